//! The HTML pages of `inspect` and `compare`: whole, self-contained, and never over something else.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed"
)]

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
    for title in ["Norms", "Singular values", "Energy by rank", "Modules, the strongest first"] {
        assert!(text.contains(&format!(">{title}<")), "{title}");
    }
    assert_eq!(text.matches("role=\"img\"").count(), 3);
    // What only the page needed stays out of the answer.
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["items"][0]["modules"][0].get("singular_values"), None);
    let page = root.path().join("compare.html");
    assert_eq!(run(&["compare", &style, &task], &page).status.code(), Some(0));
    let text = whole(&page);
    for title in ["Cosine", "Output overlap", "Input overlap", "Sign conflict", "style and task"] {
        assert!(text.contains(&format!(">{title}<")), "{title}");
    }
    assert_eq!(text.matches("role=\"img\"").count(), 4 + 1 + 2 * 3);
    // What the page was made by and of, by which it can be made again.
    assert!(text.contains("<code>lora-tool compare "), "no command line");
    assert_eq!(text.matches(": SHA-256 <code>").count(), 2);
    for told in ["<dt>targets</dt><dd>down_proj ×2, gate_proj ×2", "Metadata (1)"] {
        assert!(text.contains(told), "{told}");
    }
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

/// Adapters of a deep model, whose names are as long as kohya's.
fn deep(root: &Path, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..90)
        .map(|at| format!("lora_unet_input_blocks_{}_1_transformer_blocks_{at}_attn1_to_q", at % 3))
        .collect();
    let one = |at: usize| {
        let scale = f32::from(u8::try_from(at + 1).expect("few"));
        let mut adapter = Peft::new(1, 1.0);
        for name in &names {
            adapter = adapter.linear(name, 1, &[scale, 2.0], &[3.0]);
        }
        adapter.save(&root.join(format!("style_{at:02}"))).to_string_lossy().into_owned()
    };
    (0..count).map(one).collect()
}

#[test]
fn pages_of_many_files_stay_small() {
    let root = tempfile::tempdir().expect("a directory");
    let adapters = deep(root.path(), 30);
    for (verb, most) in [("inspect", 150_000), ("compare", 600_000)] {
        let page = root.path().join(format!("{verb}.html"));
        let line: Vec<&str> =
            std::iter::once(verb).chain(adapters.iter().map(String::as_str)).collect();
        let done = run(&line, &page);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        let text = whole(&page);
        assert!(text.len() < most, "{verb}: {} bytes", text.len());
        assert!(text.contains("style_29"), "{verb}");
    }
}

#[test]
fn layers_of_a_block_share_a_row_and_all_norms_a_scale() {
    let root = tempfile::tempdir().expect("a directory");
    let adapters = deep(root.path(), 2);
    let page = root.path().join("page.html");
    assert_eq!(run(&["inspect", &adapters[0], &adapters[1]], &page).status.code(), Some(0));
    let text = whole(&page);
    assert!(text.contains("input_blocks_2 attn1_to_q (30 modules)"), "blocks are no rows");
    // The first one's norms are √5 / √8 of the second's, and cells with numbers are drawn at 0.55.
    assert!(text.contains("fill-opacity=\"0.43\""), "each page's norms have a scale of their own");
    assert!(text.contains("<summary>lora_unet_input_blocks_2: 30 modules, norm"), "no details");
    // What is concluded stands before what it is concluded from.
    let place = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}"));
    assert!(place("An adapter of 90 modules") < place("Norms<"));
    // A page of ours is made anew without being asked to.
    assert_eq!(run(&["inspect", &adapters[0]], &page).status.code(), Some(0));
}
