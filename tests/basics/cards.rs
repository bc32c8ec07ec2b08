//! `--card`: what a result was made of, how, and the licences of its inputs, as a page beside it.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::{fixture, lora_tool};

/// A folder with copies of the fixture's base and adapters, some of which name licences.
fn scene() -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for name in ["base", "style", "task"] {
        copy(&fixture("llama").join(name), &root.path().join(name));
    }
    let write = |name: &str, text: &str| {
        std::fs::write(root.path().join(name), text).expect("written");
    };
    write("base/README.md", "---\nlicense: llama3.1\n---\n# The base\n");
    write("style/README.md", "---\nlicense: mit\n---\n# Style\n");
    root
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn run(root: &TempDir, line: &str) -> (Option<i32>, String) {
    let output = lora_tool()
        .current_dir(root.path())
        .args(line.split_whitespace())
        .output()
        .expect("started");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn read(root: &TempDir, name: &str) -> String {
    std::fs::read_to_string(root.path().join(name)).expect("a card")
}

#[test]
fn a_merge_into_a_directory_has_a_readme_of_its_own() {
    let root = scene();
    let (code, said) = run(&root, "merge base style task:0.5 -o merged --card");
    assert_eq!(code, Some(0), "{said}");
    let card = read(&root, "merged/README.md");
    for words in [
        "library_name: transformers\n",
        "# merged\n",
        "| style | 1 | 14 of 14 modules | mit |",
        "| task | 0.5 | 6 of 6 modules | not named |",
        "- method: linear",
        "- tensors changed: 14",
        "- error of the update after rounding: 1.",
        "- base: llama3.1",
        "- task: names none in its header or README",
    ] {
        assert!(card.contains(words), "{words}\n{card}");
    }
    // Licences differ, so that none is claimed, and no folder of the machine is told.
    assert!(!card.contains("\nlicense:"), "{card}");
    assert!(!card.contains(root.path().to_str().expect("a path")), "{card}");
    // It stands in the place of the base's, which verify knows.
    let line = "verify merged --base base --adapter style task:0.5";
    assert_eq!(run(&root, line).0, Some(0));
    assert_eq!(read(&root, "base/README.md"), "---\nlicense: llama3.1\n---\n# The base\n");
}

#[test]
fn an_adapter_names_the_licence_that_all_inputs_name() {
    let root = scene();
    std::fs::write(root.path().join("task/README.md"), "---\nlicense: MIT\n---\n")
        .expect("written");
    let (code, said) = run(&root, "combine style task -w 0.7 0.3 -o both --rank 4 --card");
    assert_eq!(code, Some(0), "{said}");
    let card = read(&root, "both/README.md");
    assert!(!card.contains("\nlicense:"), "mit and MIT are two texts: {card}");
    std::fs::write(root.path().join("task/README.md"), "---\nlicense: mit\n---\n")
        .expect("written");
    let (code, said) = run(&root, "combine style task -w 0.7 0.3 -o both --rank 4 --card --force");
    assert_eq!(code, Some(0), "{said}");
    let card = read(&root, "both/README.md");
    for words in ["\nlicense: mit\n", "library_name: peft\n", "| style | 0.7 |", "- rank: 4"] {
        assert!(card.contains(words), "{words}\n{card}");
    }
}

#[test]
fn a_file_has_its_card_beside_it_and_nothing_is_overwritten() {
    let root = scene();
    let line = "merge base style -o merged.safetensors --card";
    let place: PathBuf = root.path().join("merged.md");
    std::fs::write(&place, "mine").expect("written");
    let (code, said) = run(&root, line);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("merged.md") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(&place).expect("still there"), b"mine");
    assert!(!root.path().join("merged.safetensors").exists());
    std::fs::remove_file(&place).expect("removed");
    assert_eq!(run(&root, line).0, Some(0));
    assert!(read(&root, "merged.md").contains("# merged.safetensors"));
    let line = "combine style task -o both.safetensors --to kohya --card";
    assert_eq!(run(&root, line).0, Some(0));
    assert!(read(&root, "both.md").contains("- convention: kohya"));
}
