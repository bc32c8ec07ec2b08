//! Files of one folder use each other one way: whoever reads a folder can begin at the bottom.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::architecture::source::{Source, used_modules};
use crate::architecture::sources;

/// Which child of a folder (a file, or a folder in it) uses which others of it.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// What the files use of each other, by folder, and files that hold no code of their own left out.
fn uses(files: &[Source]) -> BTreeMap<String, Uses> {
    let modules: BTreeSet<String> = files.iter().map(|file| file.module().join("/")).collect();
    let mut folders: BTreeMap<String, Uses> = BTreeMap::new();
    for file in
        files.iter().filter(|file| !file.path.ends_with("mod.rs") && file.path.contains('/'))
    {
        let from = file.module();
        for used in used_modules(file) {
            // The longest start of the path that is a module; the rest names items.
            let Some(length) =
                (1..=used.len()).rev().find(|&n| modules.contains(&used[..n].join("/")))
            else {
                continue;
            };
            let to = &used[..length];
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(child)) = (from.get(common), to.get(common)) {
                let folder = folders.entry(to[..common].join("/")).or_default();
                folder.entry(from.clone()).or_default().insert(child.clone());
            }
        }
    }
    folders.remove("");
    folders
}

/// Children that reach themselves again through the others.
fn in_circles(uses: &Uses) -> Vec<String> {
    let reaches_itself = |start: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(next) = open.pop() {
            for used in uses.get(next).into_iter().flatten() {
                if used == start {
                    return true;
                }
                if seen.insert(used) {
                    open.push(used);
                }
            }
        }
        false
    };
    uses.keys().filter(|child| reaches_itself(child)).cloned().collect()
}

#[test]
fn files_of_a_folder_use_each_other_one_way() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let folders = uses(&files);
    let circles: Vec<String> = folders
        .iter()
        .map(|(folder, uses)| (folder, in_circles(uses)))
        .filter(|(_, children)| !children.is_empty())
        .map(|(folder, children)| format!("{folder}: {}", children.join(", ")))
        .collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn circles_are_found() {
    let files = |uses: [(&str, &str); 3]| uses.map(|(path, text)| Source::new(path, text));
    let round = files([
        ("ops/a.rs", "use super::b::X;"),
        ("ops/b.rs", "use crate::ops::{c::Y, Z};"),
        ("ops/c.rs", "fn f() { super::a::g() }"),
    ]);
    assert_eq!(in_circles(&uses(&round)["ops"]), ["a", "b", "c"]);
    let one_way = files([
        ("ops/a.rs", "use super::b::X;"),
        ("ops/b.rs", "use crate::ops::{c::Y, Z};"),
        ("ops/c.rs", "use crate::error::Error;"),
    ]);
    assert!(in_circles(&uses(&one_way)["ops"]).is_empty());
}
