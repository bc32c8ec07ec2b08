//! What a convention or a family can do stands in its own file: nowhere else is one told by its name.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use lora_tool::adapter::convention::CONVENTIONS;

use crate::architecture::source::Source;
use crate::architecture::sources;

/// Where a convention's name may stand as text: its own file, what programs read, and help.
const PLACES: [&str; 3] = ["adapter/convention/", "ops/check/program/", "cli/"];

/// Words that are a convention's name too and mean something else: file, word, and what it is there.
const OTHER_MEANINGS: [(&str, &str, &str); 21] = [
    ("adapter/convert/requirements.rs", "peft", "what servers read, as in `ops/check/program/`"),
    ("adapter/write.rs", "gguf", "a file's ending"),
    ("method/compat.rs", "kohya", "a program whose arithmetic is reproduced"),
    ("method/compat.rs", "peft", "a program whose arithmetic is reproduced"),
    ("format/cloud/mirror.rs", "gguf", "a file's ending"),
    ("ops/batch/jobs.rs", "gguf", "a file's ending"),
    ("ops/batch/verbs.rs", "kohya", "a program whose choice of modules is reproduced"),
    ("ops/combine/carry.rs", "gguf", "a file's ending"),
    ("ops/merge/plan/layout.rs", "gguf", "a file's ending"),
    ("ops/undo.rs", "gguf", "a file's ending"),
    ("ops/convert/run.rs", "gguf", "a file's ending"),
    ("ops/list/find.rs", "gguf", "a file's ending"),
    ("ops/merge/plan/options.rs", "gguf", "a file's ending"),
    ("ops/merge/plan/side.rs", "gguf", "a file's ending"),
    ("ops/run/recipe.rs", "kohya", "a program whose arithmetic is reproduced"),
    ("ops/run/recipe.rs", "peft", "a program whose arithmetic is reproduced"),
    ("ops/shared/options/table.rs", "", "programs whose arithmetic is reproduced"),
    ("weight/config.rs", "mlx", "a quantisation"),
    ("weight/encoding/mlx.rs", "mlx", "a quantisation"),
    ("weight/retyped.rs", "mlx", "a quantisation"),
    ("weight/skip.rs", "mlx", "a quantisation"),
];

/// What compares a convention or a family with a certain one.
const TESTS_OF_A_NAME: [&str; 9] = [
    "== convention::",
    "!= convention::",
    "convention.name ==",
    "convention.name !=",
    "family ==",
    "family !=",
    "&module.family)",
    "match module.family",
    "match (module.family",
];

/// Lines of a file's code, with their numbers, without its tests and comments.
fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let code = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    code.enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.starts_with("//"))
}

/// Where a file names a convention, or tells conventions or families by their names.
fn named(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in lines(source) {
        let place = format!("{}:{number}", source.path);
        for convention in CONVENTIONS {
            let name = convention.name;
            let means = |(file, word, _): &(&str, &str, &str)| {
                *file == source.path && (word.is_empty() || *word == name)
            };
            let elsewhere = PLACES.iter().any(|place| source.path.starts_with(place))
                || OTHER_MEANINGS.iter().any(means);
            if !elsewhere && line.contains(&format!("\"{name}\"")) {
                faults.push(format!("{place}: names the convention `{name}`"));
            }
        }
        let own = ["adapter/convention/", "adapter/family/", "ops/check/"];
        if !own.iter().any(|folder| source.path.starts_with(folder)) {
            let tests = TESTS_OF_A_NAME.iter().filter(|test| line.contains(**test));
            faults.extend(tests.map(|test| format!("{place}: tells by a name: `{test}`")));
        }
    }
    faults
}

#[test]
fn conventions_and_families_are_told_by_what_they_can_do() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let faults: Vec<String> = files.iter().flat_map(named).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for (file, word, meaning) in OTHER_MEANINGS {
        let found = files.iter().find(|source| source.path == file).is_some_and(|source| {
            lines(source).any(|(_, line)| line.contains(&format!("\"{word}")))
        });
        assert!(found, "{file} has no `{word}` ({meaning}) any more: take it from the list");
    }
}

#[test]
fn names_are_found() {
    let found = |path: &str, text: &str| named(&Source::new(path, text)).join("\n");
    for line in [
        "if adapter.convention.name == target { }",
        "let mlx = by_name(\"mlx\");",
        "if module.family == \"loha\" { }",
        "if target == convention::peft() { }",
    ] {
        assert!(found("ops/x.rs", line).starts_with("ops/x.rs:1: "), "{line}");
    }
    let harmless = "// by_name(\"mlx\")\nlet x = \"mlx-lm has\";\n#[cfg(test)]\nby_name(\"mlx\")";
    assert_eq!(found("ops/x.rs", harmless), "");
    assert_eq!(found("adapter/convention/x.rs", "name: \"mlx\","), "");
}
