//! `clean` removes what killed runs have left, and nothing else.
#![cfg(unix)]
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs::{self, File};
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::interrupt::{adapter, base, entries, started};
use crate::common::lora_tool;

/// What `clean` says, and its exit status.
fn clean(folder: &Path, more: &[&str]) -> (Value, Option<i32>) {
    let done = lora_tool().arg("clean").arg(folder).arg("--json").args(more).output();
    let done = done.expect("it runs");
    (serde_json::from_slice(&done.stdout).expect("JSON"), done.status.code())
}

fn count(report: &Value, what: &str) -> usize {
    report[what].as_array().expect("a list").len()
}

/// A folder with two temporaries of killed runs, and things that are called nearly so.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a directory");
    let write = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, "half").expect("written");
    };
    for name in [
        ".a.safetensors.partial-aB3xYz",
        "below/.out.partial-000000/model.safetensors",
        "a.safetensors",
        ".a.safetensors.partial-aB3xY",
        "a.partial-aB3xYz",
        ".hidden/notes.txt",
        ".out.resume/lock",
        ".out.work/out/model.safetensors",
    ] {
        write(name);
    }
    std::os::unix::fs::symlink(".hidden", folder.path().join(".l.partial-aaaaaa")).expect("linked");
    folder
}

#[test]
fn only_temporaries_go() {
    let folder = folder();
    let before = entries(folder.path()).len();
    let (report, status) = clean(folder.path(), &["--dry-run"]);
    assert_eq!((count(&report, "removed"), count(&report, "kept"), status), (2, 1, Some(0)));
    assert_eq!((report["dry_run"].clone(), entries(folder.path()).len()), (true.into(), before));
    let (report, status) = clean(folder.path(), &[]);
    assert_eq!((count(&report, "removed"), report["removed"][0]["bytes"].clone()), (2, 4.into()));
    assert_eq!((status, entries(folder.path()).len()), (Some(0), before - 1));
    assert!(entries(&folder.path().join("below")).is_empty());
    let (report, _) = clean(folder.path(), &["--kept"]);
    assert_eq!((count(&report, "removed"), count(&report, "kept")), (1, 0));
    assert_eq!(entries(folder.path()).len(), before - 2);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let done = lora_tool().args(["clean", "nowhere"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(
        (done.status.code(), said.trim()),
        (Some(2), "error: nowhere: no such file or directory")
    );
}

#[test]
fn what_a_run_holds_stays() {
    let folder = folder();
    let held = folder.path().join("below/.out.partial-000000");
    let lock = File::open(&held).expect("opened");
    lock.lock().expect("locked");
    let (report, status) = clean(folder.path(), &[]);
    assert_eq!((count(&report, "removed"), count(&report, "alive"), status), (1, 1, Some(1)));
    assert!(held.join("model.safetensors").exists());
    drop(lock);
    assert_eq!(clean(folder.path(), &[]).1, Some(0));
    assert!(!held.exists());
}

#[test]
fn a_run_holds_its_temporary_until_it_is_killed() {
    let root = TempDir::new().expect("a directory");
    let root = root.path();
    fs::create_dir(root.join("out")).expect("made");
    base(&root.join("base.safetensors"));
    adapter(&root.join("adapter"));
    for target in ["merged", "merged.safetensors"] {
        let mut child = started(root, target);
        let (report, status) = clean(&root.join("out"), &[]);
        assert_eq!((count(&report, "alive"), status), (1, Some(1)), "{target}: {report}");
        child.kill().expect("killed");
        child.wait().expect("ended");
        let (report, status) = clean(&root.join("out"), &[]);
        assert_eq!((count(&report, "removed"), status), (1, Some(0)), "{target}: {report}");
        assert!(entries(&root.join("out")).is_empty(), "{target}");
    }
}
