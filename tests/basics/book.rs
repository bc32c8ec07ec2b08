//! The book in `docs`: its pages are all in its table of contents, its links lead somewhere, a page of each verb is
//! what the command says of itself, and commands on the pages of tasks print what the pages show. To write pages anew:
//! `LORA_TOOL_WRITE=1 cargo test --test basics book`.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::options::hold;
use crate::common::{fixture, lora_tool};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

fn help(arguments: &[&str]) -> String {
    let output = lora_tool().args(arguments).output().expect("started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The verbs, each with what it does.
fn verbs() -> Vec<(String, String)> {
    let text = help(&["--help"]);
    let (_, list) = text.split_once("Commands:\n").expect("a list of commands");
    let mut verbs: Vec<(String, String)> = Vec::new();
    for line in list.lines().take_while(|line| !line.is_empty()) {
        match line.trim_start().split_once("  ") {
            Some((verb, about)) if line.starts_with("  ") && !line.starts_with("   ") => {
                verbs.push((verb.to_owned(), about.trim().to_owned()));
            }
            _ => {
                let (_, about) = verbs.last_mut().expect("a verb");
                let _ = write!(about, " {}", line.trim());
            }
        }
    }
    verbs.retain(|(verb, _)| verb != "help");
    verbs
}

#[test]
fn every_verb_has_its_page() {
    let mut list = String::new();
    for (verb, about) in verbs() {
        let text = help(&[&verb, "--help"]);
        let page = format!("# {verb}\n\n{about}.\n\n```text\n{}\n```\n", text.trim_end());
        hold(&format!("docs/verbs/{verb}.md"), &page);
        let _ = writeln!(list, "  - [{verb}](verbs/{verb}.md)");
    }
    let summary = read(&docs().join("SUMMARY.md"));
    let (before, rest) = summary.split_once("<!-- verbs -->\n").expect("where verbs begin");
    let (_, after) = rest.split_once("<!-- end of verbs -->\n").expect("where they end");
    let made = format!("{before}<!-- verbs -->\n{list}<!-- end of verbs -->\n{after}");
    hold("docs/SUMMARY.md", &made);
}

/// Markdown files below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Targets of links in a page that lead to files, without those in blocks of code.
fn links(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        }
        for part in line.split("](").skip(1).filter(|_| !inside) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_page_is_listed_and_every_link_leads_to_one() {
    let (docs, mut broken) = (docs(), Vec::new());
    let listed: BTreeSet<PathBuf> =
        links(&read(&docs.join("SUMMARY.md"))).into_iter().map(|link| docs.join(link)).collect();
    let guide = read(&docs.join("llms.txt"));
    for page in pages(&docs) {
        let name = page.strip_prefix(&docs).expect("below").display().to_string();
        if name != "SUMMARY.md" && !listed.contains(&page) {
            broken.push(format!("{name} is not in SUMMARY.md"));
        }
        if name != "SUMMARY.md"
            && !name.starts_with("verbs/")
            && !guide.contains(&format!("({name})"))
        {
            broken.push(format!("{name} is not in llms.txt"));
        }
        for link in links(&read(&page)) {
            let target = page.parent().expect("a folder").join(&link);
            let inside = target.canonicalize().is_ok_and(|target| target.starts_with(&docs));
            if !inside {
                broken.push(format!("{name}: {link} leads to no file of the book"));
            }
        }
    }
    broken.extend(links(&guide).into_iter().filter(|link| !docs.join(link).is_file()));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The fixture's files in a folder of their own, of one date, which `list` shows.
fn scene() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    copy(&fixture("llama"), root.path());
    root
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        std::fs::copy(entry.path(), &target).expect("copied");
        let file = std::fs::File::options().write(true).open(&target).expect("opened");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_768_435_200))
            .expect("dated");
    }
}

/// A page whose blocks of commands show what they print now.
fn shown(page: &str) -> String {
    let root = scene();
    let (mut text, mut inside) = (String::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        let command = line.strip_prefix("$ lora-tool ").filter(|_| inside);
        if inside && command.is_none() && line != "```console" {
            // What was printed the last time.
            continue;
        }
        let _ = writeln!(text, "{line}");
        if let Some(command) = command {
            let output = lora_tool()
                .current_dir(root.path())
                .args(command.split_whitespace())
                .output()
                .expect("started");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_ne!(output.status.code(), Some(2), "{command}\n{errors}");
            text.push_str(&String::from_utf8_lossy(&output.stdout));
        }
    }
    text
}

#[test]
fn commands_print_what_the_pages_show() {
    let mut commands = 0;
    for page in pages(&docs().join("tasks")) {
        let text = read(&page);
        commands += text.matches("\n$ lora-tool ").count();
        let name = page.file_name().expect("a name").to_string_lossy().into_owned();
        hold(&format!("docs/tasks/{name}"), &shown(&text));
    }
    assert!(commands >= 20, "only {commands} commands found");
}
