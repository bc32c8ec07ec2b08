//! A folder's `mod.rs` says what the folder is and lists its files; code stands in files with a name.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use crate::architecture::source::{Source, code_of};
use crate::architecture::sources;

/// The first lines of the items of a file that are code: no `mod`, no `use`, no list in a macro.
fn items_of_code(source: &Source) -> Vec<String> {
    let tests = source.text.find("\n#[cfg(test)]\n").unwrap_or(source.text.len());
    let code = code_of(&source.text[..tests]);
    let mut rest = code.trim_start();
    let mut items = Vec::new();
    while !rest.is_empty() {
        if rest.starts_with('#') {
            rest = after_brackets(rest, ['[', ']']).trim_start();
            continue;
        }
        let block = rest.find('{').unwrap_or(rest.len());
        let end = rest.find(';').unwrap_or(rest.len());
        let (head, length) = match block < end {
            true => (&rest[..block], rest.len() - after_brackets(rest, ['{', '}']).len()),
            false => (&rest[..end], (end + 1).min(rest.len())),
        };
        let word = match head.strip_prefix("pub") {
            Some(seen) if seen.starts_with('(') => after_brackets(seen, ['(', ')']).trim_start(),
            Some(seen) => seen.trim_start(),
            None => head,
        };
        let used = word.starts_with("use ");
        let listed = head.trim_end().ends_with('!');
        let file = word.starts_with("mod ") && end < block;
        if !(used || listed || file) {
            items.push(head.lines().next().unwrap_or_default().trim().to_owned());
        }
        rest = match used {
            true => &rest[(end + 1).min(rest.len())..],
            false => &rest[length..],
        };
        rest = rest.trim_start();
    }
    items
}

/// What follows the bracket that closes the first one of this kind.
fn after_brackets(text: &str, [open, close]: [char; 2]) -> &str {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        if character == open {
            depth += 1;
        } else if character == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return &text[at + 1..];
            }
        }
    }
    ""
}

#[test]
fn mod_files_hold_no_code() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/mod.rs")) {
        let items = items_of_code(file);
        if let Some(first) = items.first() {
            faults.push(format!(
                "{}: {} items of code, the first is `{first}`",
                file.path,
                items.len()
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn code_in_a_mod_file_is_found() {
    let found = |text: &str| items_of_code(&Source::new("ops/x/mod.rs", text));
    let clean = "//! A room.\n#![allow(x)]\n#[macro_use]\nmod list;\npub(in crate::ops) mod a;\n\
        pub use a::{B, c::{D, E}};\nlist! {\n    one, two,\n}\n\n#[cfg(test)]\nmod tests {\n fn f() {}\n}\n";
    assert!(found(clean).is_empty(), "{:?}", found(clean));
    for (code, first) in [
        ("mod a;\npub fn f() { a::g() }\nuse a::B;", "pub fn f()"),
        ("use a::{B, C};\nimpl B { fn x() {} }", "impl B"),
        ("pub(crate) const X: u8 = 1;", "pub(crate) const X: u8 = 1"),
        ("mod inline { fn f() {} }", "mod inline"),
        ("macro_rules! m { () => {} }", "macro_rules! m"),
        ("#[derive(Debug)]\npub struct S;", "pub struct S"),
    ] {
        assert_eq!(found(code), [first], "{code}");
    }
}
