//! Holds the sources to the rules of the design: who may use whom, and what stands only in one place.
//!
//! Every check is a function from one source file to the lines that break its rule, so that each is
//! shown to fail on a made-up file before it is trusted on the real ones.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "architecture/source.rs"]
pub(crate) mod source;

use std::path::{Path, PathBuf};

use source::{Source, code_of, holds_word, used_layers};

/// The layers, and those that each may use beside itself. `main` and `cli` are a crate of their own,
/// which the compiler holds to what is public; of that they know everything but mathematics.
const LAYERS: [(&str, &[&str]); 9] = [
    ("error", &[]),
    ("format", &["error"]),
    ("math", &[]),
    ("weight", &["format", "math", "error"]),
    ("adapter", &["weight", "format", "math", "error"]),
    ("method", &["math"]),
    ("ops", &["adapter", "weight", "format", "math", "method", "error"]),
    ("api", &["ops", "adapter", "weight", "format", "math", "method", "error"]),
    ("cli", &["adapter", "format", "method", "ops", "error"]),
];

/// Words, the only places that may have them, and why.
const PLACES: [(&[&str], &[&str], &str); 13] = [
    (
        &["unsafe"],
        &["format/access.rs", "math/kernel/vectors.rs"],
        "is for the mapping and the measured kernel",
    ),
    (
        &["println!", "eprintln!", "print!", "eprint!", "dbg!"],
        &[],
        "does not print as the rest does: reports and warnings are values, `cli/terminal.rs` writes them",
    ),
    (&["process::exit"], &[], "skips destructors, and with them the removal of temporaries"),
    (&["HashMap", "HashSet"], &[], "has an order that differs between runs"),
    (
        &[
            "File::create",
            "File::create_new",
            "File::options",
            "fs::write",
            "fs::copy",
            "fs::rename",
        ],
        &[
            // What stands for a file in a store, in a directory of its own that goes with the process.
            "format/cloud/mirror.rs",
            // A blob of the Hub's cache is put in place when it has its hash; a snapshot links to it.
            "format/hub/blob.rs",
            "format/hub/download.rs",
            "format/kept.rs",
            "format/staging.rs",
        ],
        "makes outputs that a failure leaves half-written: go through `Staging`",
    ),
    (
        &["std::fs"],
        &[
            "format/",
            // Which files an adapter is, and which a model has beside its tensors.
            "adapter/files.rs",
            "ops/merge/plan/side.rs",
            // What an interrupted run left, and what is removed when it is no longer needed.
            "ops/merge/write/resume.rs",
            "ops/merge/write/stream.rs",
            // The permissions of a rewritten file, and the hash of one that is no checkpoint.
            "ops/metadata.rs",
            "ops/shared/provenance.rs",
            // What lies where a path leads nowhere.
            "error/look.rs",
        ],
        "reaches the disk past `format`, which alone opens, maps and writes files",
    ),
    (
        &["clap", "indicatif", "anstyle", "anstream"],
        &["cli/"],
        "is the command line's: a library has none",
    ),
    (
        &["ElementType::Bf16", "ElementType::F16", "ElementType::F32", "ElementType::F64"],
        // The last chooses the kernel's own types.
        &["weight/", "math/", "ops/merge/compute/fused.rs"],
        "tells element types apart: `weight/element.rs` says what a dtype is in arithmetic",
    ),
    (
        &["Dtype::BF16", "Dtype::F16", "Dtype::F64"],
        &[
            "weight/",
            "format/",
            // Words that a user says, and what is written where nothing is said.
            "cli/args.rs",
            "ops/run/recipe.rs",
            "ops/merge/plan/gguf_types.rs",
            "ops/merge/plan/quantised.rs",
            // Its tests.
            "adapter/convert/fold.rs",
        ],
        "tells dtypes apart: `weight/element.rs` decides by them",
    ),
    (
        &["ThreadPoolBuilder"],
        &["ops/shared/pool.rs"],
        "makes threads of its own: every verb computes in `thread_pool`",
    ),
    (
        &["Sha256"],
        // A download's hash as it arrives; the seal at a receipt's end, which is bytes.
        &["format/hash.rs", "format/hub/blob.rs", "ops/receipt/file.rs"],
        "hashes past `format/hash.rs`, which all files and plans are hashed by",
    ),
    (
        &["Paired::new"],
        &["ops/shared/pairing.rs"],
        "pairs two checkpoints in a way of its own: all verbs agree on any pair by `paired`",
    ),
    (
        &["is_match"],
        // Patterns of configs, and rules of orientation, are matched where those are read.
        &["ops/shared/rules.rs", "adapter/", "weight/"],
        "selects modules past `ops/shared/selection.rs` and the rules it shares with weights",
    ),
];

/// Lines of a file, and of what stands before its tests.
const LONGEST: (usize, usize) = (500, 450);

/// What is wrong in a file, one line each.
type Check = fn(&Source) -> Vec<String>;

const CHECKS: [Check; 4] = [layers, places, lengths, heads];

#[test]
fn the_sources_keep_the_rules() {
    let mut faults = Vec::new();
    for source in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        faults.extend(CHECKS.iter().flat_map(|check| check(&source)));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// All sources below a folder.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    collect(root, &mut files);
    assert!(files.len() > 30, "only {} files found", files.len());
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a readable source");
        let path = file.strip_prefix(root).expect("below src").to_string_lossy().replace('\\', "/");
        Source { path, text }
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Paths lead only to layers that the file's own layer may use.
fn layers(source: &Source) -> Vec<String> {
    let Some(layer) = source.layer() else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{}: `{layer}` is no layer of the design", source.path)];
    };
    let used = used_layers(source).into_iter();
    used.filter(|(_, other)| other != layer && !allowed.contains(&other.as_str()))
        .map(|(line, other)| format!("{}:{line}: {layer} may not use {other}", source.path))
        .collect()
}

/// Words that have their one place stand nowhere else.
fn places(source: &Source) -> Vec<String> {
    let code = code_of(&source.text);
    let mut faults = Vec::new();
    for (words, places, why) in PLACES {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            for word in words.iter().filter(|word| holds_word(line, word)) {
                faults.push(format!("{}:{}: `{word}` {why}", source.path, number + 1));
            }
        }
    }
    faults
}

/// No file is longer than one can keep in mind.
fn lengths(source: &Source) -> Vec<String> {
    let all = source.text.lines().count();
    let before_tests = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
    if all > LONGEST.0 || before_tests > LONGEST.1 {
        return vec![format!("{}: {all} lines, {before_tests} before its tests", source.path)];
    }
    Vec::new()
}

/// Every file begins by saying what it is for.
fn heads(source: &Source) -> Vec<String> {
    match source.text.strip_prefix("//! ") {
        Some(_) => Vec::new(),
        None => vec![format!("{}: does not begin with a `//!` comment", source.path)],
    }
}

/// Runs a check on a made-up file and returns what it found, in one text.
fn found(check: Check, path: &str, text: &str) -> String {
    check(&Source::new(path, text)).join("\n")
}

#[test]
fn layers_that_reach_up_are_found() {
    let cases = [
        ("format/x.rs", "use crate::math::Factor;", "x.rs:1: format may not use math"),
        ("math/x.rs", "use crate::error::Error;", "math may not use error"),
        ("math/x.rs", "\nfn f() { crate::Result::Ok(1) }", "x.rs:2: math may not use error"),
        ("adapter/family/x.rs", "use super::super::super::ops::merge;", "adapter may not use ops"),
        (
            "adapter/mod.rs",
            "pub use super::{error::Error, method::x};",
            "adapter may not use method",
        ),
        ("method/x.rs", "use crate::{math::A, adapter::{B, C}};", "method may not use adapter"),
        (
            "method/x.rs",
            "use crate::{\n    math::{A, B},\n    format,\n};",
            "method may not use format",
        ),
        ("ops/merge/x.rs", "use crate::cli::Terminal;", "ops may not use cli"),
        ("cli/x.rs", "use lora_tool::math::Factor;", "cli may not use math"),
        ("main.rs", "fn f() { lora_tool::math::x() }", "cli may not use math"),
        ("error.rs", "use crate::format::Dtype;", "error may not use format"),
        (
            "adapter/x.rs",
            "mod tests {\n    use super::super::super::ops;\n}",
            "x.rs:2: adapter may not use ops",
        ),
        (
            "adapter/x.rs",
            "mod tests {\n}\nuse super::super::cli;",
            "x.rs:3: adapter may not use cli",
        ),
        ("utils/x.rs", "", "`utils` is no layer"),
    ];
    for (path, text, expected) in cases {
        let faults = found(layers, path, text);
        assert!(faults.contains(expected), "{path}: {text}\nfound: {faults}");
    }
}

#[test]
fn layers_that_keep_to_the_design_pass() {
    let cases = [
        ("format/x.rs", "use crate::error::{Error, Result};\nuse super::header;"),
        ("adapter/family/x.rs", "use super::super::module::Module;\nuse crate::math::Factor;"),
        (
            "adapter/x.rs",
            "// crate::ops\nconst X: &str = \"crate::ops\"; const Y: &str = r#\"\"crate::ops\"#;",
        ),
        ("adapter/x.rs", "fn f<'a>(x: &'a str) -> char { '\"' } // \"\nuse crate::math;"),
        (
            "ops/merge/x.rs",
            "pub(in crate::ops) fn f() -> crate::Error { super::super::verify::x() }",
        ),
        ("math/x.rs", "mod tests {\n    use super::super::factor;\n}"),
        ("cli/x.rs", "use lora_tool::ops::merge;\nuse super::terminal;\nuse crate::cli::Answer;"),
        ("lib.rs", "pub mod ops;\npub use error::Error;"),
    ];
    for (path, text) in cases {
        assert_eq!(found(layers, path, text), "", "{path}: {text}");
    }
}

#[test]
fn words_out_of_place_are_found() {
    for (words, places_of, _) in PLACES {
        for word in words {
            let text = format!("//! Head.\nfn f() {{ {word} }}\n");
            assert!(
                found(places, "ops/x.rs", &text).contains(&format!("ops/x.rs:2: `{word}`")),
                "{word}"
            );
            for place in places_of {
                assert!(
                    !found(places, place, &text).contains(&format!("`{word}`")),
                    "{word} in {place}"
                );
            }
        }
    }
    let harmless = "// unsafe println!\nconst X: &str = \"HashMap\";\n#[allow(unsafe_code)]\nfn reprintln() {}";
    assert_eq!(found(places, "ops/x.rs", harmless), "");
}

#[test]
fn long_and_headless_files_are_found() {
    let lines = |count: usize| "x\n".repeat(count);
    assert_ne!(found(lengths, "ops/x.rs", &lines(501)), "");
    assert_ne!(found(lengths, "ops/x.rs", &lines(451)), "");
    assert_eq!(
        found(lengths, "ops/x.rs", &format!("{}#[cfg(test)]\n{}", lines(450), lines(49))),
        ""
    );
    assert_ne!(
        found(lengths, "ops/x.rs", &format!("{}#[cfg(test)]\n{}", lines(450), lines(50))),
        ""
    );
    assert_ne!(found(heads, "ops/x.rs", "use std::fmt;\n//! Too late.\n"), "");
    assert_ne!(found(heads, "ops/x.rs", "/// Of an item.\n"), "");
    assert_eq!(found(heads, "ops/x.rs", "//! What it is for.\n"), "");
}
