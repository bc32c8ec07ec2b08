//! The HTML pages of `inspect` and `compare`: whole, self-contained, and never over something else.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;

use crate::common::{Peft, fixture, lora_tool};
use serde_json::Value;

fn run(arguments: &[&str], page: &Path) -> std::process::Output {
    lora_tool().args(arguments).arg("--report").arg(page).output().expect("it runs")
}

/// A page that was written: nothing in it needs a network or runs.
fn whole(path: &Path) -> String {
    let page = std::fs::read_to_string(path).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for foreign in ["http:", "https:", "<script", "<link", "<img", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    page
}

#[test]
fn pages_hold_every_plot() {
    let root = tempfile::tempdir().expect("a directory");
    let (style, task) = (fixture("llama/style"), fixture("llama/task"));
    let (style, task) = (style.to_string_lossy(), task.to_string_lossy());
    let page = root.path().join("inspect.html");
    let done = run(&["inspect", &style, "--json"], &page);
    assert_eq!(done.status.code(), Some(0));
    let text = whole(&page);
    for title in ["Norms", "Singular values", "Energy by rank", "Modules"] {
        assert!(text.contains(&format!(">{title}<")), "{title}");
    }
    assert_eq!(text.matches("role=\"img\"").count(), 3);
    // What only the page needed stays out of the answer.
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["items"][0]["modules"][0].get("singular_values"), None);
    let page = root.path().join("compare.html");
    assert_eq!(run(&["compare", &style, &task], &page).status.code(), Some(0));
    let text = whole(&page);
    for title in ["Cosine", "Output overlap", "Input overlap", "Sign conflict", "[1] and [2]"] {
        assert!(text.contains(&format!(">{title}<")), "{title}");
    }
    assert_eq!(text.matches("role=\"img\"").count(), 4 + 1 + 2 * 3);
    let mut ids: Vec<_> = text.split(" id=\"").skip(1).map(|rest| rest.split('"').next()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id stands twice");
}

#[test]
fn hostile_names_stay_text() {
    let root = tempfile::tempdir().expect("a directory");
    let name = "layers.0.</title></svg><script>alert(1)</script><b>";
    let adapter =
        Peft::new(1, 1.0).linear(name, 1, &[1.0, 2.0], &[3.0]).save(&root.path().join("a"));
    let page = root.path().join("page.html");
    let done = run(&["inspect", &adapter.to_string_lossy()], &page);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(whole(&page).contains("&lt;/title&gt;&lt;/svg&gt;&lt;script&gt;alert(1)"));
}

#[test]
fn existing_files_and_inputs_are_not_overwritten() {
    let root = tempfile::tempdir().expect("a directory");
    let page = root.path().join("page.html");
    std::fs::write(&page, "mine").expect("written");
    let style = fixture("llama/style");
    let style = style.to_string_lossy();
    for verb in [vec!["inspect", &style], vec!["compare", &style, &style]] {
        let done = run(&verb, &page);
        assert_eq!(done.status.code(), Some(2), "{verb:?}");
        assert_eq!(std::fs::read(&page).expect("still there"), b"mine");
        let inside = fixture("llama/style").join("page.html");
        assert_eq!(run(&verb, &inside).status.code(), Some(2), "{verb:?}");
        assert!(!inside.exists());
    }
    assert_eq!(run(&["inspect", &style, "--force"], &page).status.code(), Some(0));
    whole(&page);
}
