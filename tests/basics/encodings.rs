//! Encodings of quantised weights: each is one file and one entry of the list, and each of the thirty rules that a naive
//! reader or writer of them breaks has a test of its own (`rule_N_…`):
//!
//! | rules | of | tests |
//! |---|---|---|
//! | 1, 2, 24 | scales: in another shard, multiplied whatever their name, of activations | `weights_rules` |
//! | 3–5 | NVFP4's constant, order of nibbles, tiles of scales | `weights_rules`, `weights_layouts` |
//! | 6, 10, 11 | packed whole numbers: offset, activation order, zero points down the rows | `weights_rules` |
//! | 7–9 | GPTQ and AWQ: two versions, a zero point that is ambiguous, transposed codes | `weights_rules`, `weights_layouts` |
//! | 12–14 | bitsandbytes: blocks across rows, nested magnitudes, two roundings | `weights_rules` |
//! | 15, 16, 23 | 8-bit floats: their ends, powers of two, plain casts | `weights_rules`, `weights_layouts` |
//! | 17, 18 | stacks of gpt-oss, ragged blocks | `weights_layouts`, `weights_rules` |
//! | 19 | MLX: negative scales, codes across words | `weights_rules` |
//! | 20–22 | GGUF: blocks by rows, dimensions, shapes that were changed | `weights_layouts` |
//! | 25–27 | a result in plain numbers: companions, skip lists, what is loaded as one, configs | `merge/quantised_rules`, `weights_rules` |
//! | 28 | scales made anew move numbers on a grid | `weights_layouts`, `merge/quantised_rules` |
//! | 29, 30 | ties, and odd multiples of 32 columns | `weights_layouts` |
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use lora_tool::weight::encoding::ENCODINGS;

use crate::architecture::source::Source;
use crate::architecture::sources;

/// Files of the folder that are no encodings.
const OTHERS: [&str; 4] = ["definition", "mod", "plain", "registry"];

/// Where such a name stands for something else: a convention, and what a program reads.
const ELSEWHERE: [&str; 3] = ["weight/encoding/", "adapter/convention/", "ops/check/program/"];

/// Words that are an encoding's name too and mean something else: file, word, and what it is there.
const OTHER_MEANINGS: [(&str, &str, &str); 10] = [
    ("ops/merge/plan/side.rs", "ggml", "a file's ending"),
    ("ops/shared/options/table.rs", "mxfp4", "a type of GGUF's blocks"),
    ("ops/shared/options/table.rs", "nvfp4", "a type of GGUF's blocks"),
    ("weight/config.rs", "gptq", "a method of configs"),
    ("weight/config.rs", "mlx", "a method of configs"),
    ("weight/retyped.rs", "mlx", "a method of configs"),
    ("weight/skip.rs", "awq", "a method of configs"),
    ("weight/skip.rs", "gptq", "a method of configs"),
    ("weight/skip.rs", "mlx", "a method of configs"),
    ("weight/skip.rs", "mxfp4", "a method of configs"),
];

/// What compares an encoding with a certain one.
const TESTS_OF_A_NAME: [&str; 4] =
    ["encoding ==", "encoding !=", "match weight.encoding", "matches!(weight.encoding"];

fn all() -> Vec<Source> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Lines of a file's code, with their numbers, without its tests and comments.
fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let code = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let code = code.enumerate().map(|(at, line)| (at + 1, line.trim()));
    code.filter(|(_, line)| !line.starts_with("//"))
}

/// Where a file outside the folder names an encoding, or tells encodings apart by their names.
fn named(source: &Source) -> Vec<String> {
    if ELSEWHERE.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, line) in lines(source) {
        let place = format!("{}:{number}", source.path);
        for encoding in ENCODINGS {
            let name = encoding.name;
            let means =
                OTHER_MEANINGS.iter().any(|(file, word, _)| (*file, *word) == (&source.path, name));
            if !means && line.contains(&format!("\"{name}\"")) {
                faults.push(format!("{place}: names the encoding `{name}`"));
            }
        }
        let tests = TESTS_OF_A_NAME.iter().filter(|test| line.contains(**test));
        faults.extend(tests.map(|test| format!("{place}: tells by a name: `{test}`")));
    }
    faults
}

#[test]
fn an_encoding_is_one_file_and_one_entry() {
    let files = all();
    let text = |path: &str| {
        let found = files.iter().find(|source| source.path == format!("weight/encoding/{path}"));
        found.map(|source| source.text.as_str()).expect("a file")
    };
    let folder = files.iter().filter_map(|source| source.path.strip_prefix("weight/encoding/"));
    let stems =
        folder.filter_map(|path| path.strip_suffix(".rs").filter(|stem| !stem.contains('/')));
    let own: BTreeSet<&str> = stems.filter(|stem| !OTHERS.contains(stem)).collect();
    for stem in &own {
        let file = text(&format!("{stem}.rs"));
        assert_eq!(file.matches("const ENCODING: Encoding").count(), 1, "{stem}");
        let entry = format!("{stem}::ENCODING,");
        assert_eq!(text("registry.rs").matches(&entry).count(), 1, "{stem}");
        assert!(text("mod.rs").contains(&format!("\nmod {stem};")), "{stem}");
    }
    assert_eq!(own.len(), ENCODINGS.len());
    let names: BTreeSet<&str> = ENCODINGS.iter().map(|encoding| encoding.name).collect();
    assert_eq!(names.len(), ENCODINGS.len());
}

#[test]
fn encodings_are_told_by_what_they_can_do() {
    let files = all();
    let faults: Vec<String> = files.iter().flat_map(named).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for (file, word, meaning) in OTHER_MEANINGS {
        let quoted = format!("\"{word}\"");
        let found = files.iter().find(|source| source.path == file);
        let found =
            found.is_some_and(|source| lines(source).any(|(_, line)| line.contains(&quoted)));
        assert!(found, "{file} has no `{word}` ({meaning}) any more: take it from the list");
    }
    let found = |path: &str, text: &str| named(&Source::new(path, text)).join("\n");
    for line in ["if weight.encoding == other {", "let codes = (\"gptq\", 4);"] {
        assert!(found("ops/x.rs", line).starts_with("ops/x.rs:1: "), "{line}");
        assert_eq!(found("weight/encoding/x.rs", line), "");
    }
}

/// Numbers of the rules that tests are named after, `rule_N_…` or `rules_N_M_and_O_…`, anywhere in a name.
fn rules_of(name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut of_rules = false;
    for part in name.split('_') {
        match part.parse() {
            Ok(number) if of_rules => found.push(number),
            _ => of_rules = matches!(part, "rule" | "rules") || (of_rules && part == "and"),
        }
    }
    found
}

#[test]
fn every_rule_has_a_test() {
    let mut tested = BTreeSet::new();
    for source in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0].trim() == "#[test]") {
            let name = pair[1].trim().strip_prefix("fn ").unwrap_or_default();
            tested.extend(rules_of(name.split('(').next().unwrap_or_default()));
        }
    }
    assert_eq!(tested, (1..=30).collect());
    assert_eq!(rules_of("rules_4_20_and_21_ggml_halves_its_32"), [4, 20, 21]);
    assert_eq!(rules_of("rule_3_the_1_and_rule_4_low"), [3, 4]);
}
