//! The commands of the README and of pages beside it run as they stand, in order, from a directory that has the fixtures.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;

use crate::common::lora_tool;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).expect("a page")
}

/// Commands in console blocks, one a line.
fn commands() -> Vec<String> {
    let text = ["README.md", "docs/recipes.md", "docs/methods.md"].map(page).concat();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            commands.push(line.to_owned());
        }
    }
    commands
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

#[test]
fn every_command_works() {
    let directory = tempfile::tempdir().expect("a directory");
    copy(&crate::common::fixture("llama"), &directory.path().join("fixtures/llama"));
    let commands = commands();
    let mut run = 0;
    for command in &commands {
        // `cargo test` is this; `cargo run` is the command under another name.
        let line = command.replace("cargo run --release -- ", "lora-tool ");
        let Some(arguments) = line.strip_prefix("lora-tool ") else { continue };
        let output = lora_tool()
            .current_dir(directory.path())
            .args(arguments.split_whitespace())
            .output()
            .expect("started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{errors}");
        assert!(!output.stdout.is_empty(), "{command} says nothing");
        run += 1;
    }
    assert!(run >= 20, "only {run} commands found");
    assert_eq!(commands.first().map(|c| c.starts_with("cargo run")), Some(true));
    assert_eq!(commands.get(1).map(String::as_str), Some("cargo test"));
}

#[test]
fn the_methods_table_is_the_tools_own() {
    let text = page("docs/methods.md");
    let (_, rest) = text.split_once("<!-- methods -->\n").expect("where the table begins");
    let (table, _) = rest.split_once("<!-- end of methods -->").expect("where it ends");
    let output = lora_tool().args(["methods", "--markdown"]).output().expect("started");
    assert_eq!(table.trim(), String::from_utf8_lossy(&output.stdout).trim());
}

#[test]
fn the_recipe_is_the_fixture() {
    let text = page("docs/recipes.md");
    let (_, rest) = text.split_once("```yaml\n").expect("a recipe");
    let (shown, _) = rest.split_once("```").expect("its end");
    let recipe =
        std::fs::read_to_string(crate::common::fixture("llama/blend.yaml")).expect("a recipe");
    assert_eq!(shown, recipe);
}
