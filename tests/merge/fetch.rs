//! `--fetch`: repositories that the local Hub cache lacks are downloaded into it, whole and as they are, or not at all.
#![cfg(unix)]
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::hub_server::{COMMIT, Fault, HubServer};
use crate::common::{files, fixture, lora_tool};

const MERGE: &str = "merge org/base org/adapter -o out --fetch -q";
const ADAPTER: &str = "inspect hf://org/adapter --fetch -q";

struct Hub {
    server: HubServer,
    root: tempfile::TempDir,
}

impl Hub {
    fn new() -> Self {
        let repositories =
            [("org/base", fixture("llama/base")), ("org/adapter", fixture("llama/style"))];
        Self {
            server: HubServer::of(&repositories),
            root: tempfile::tempdir().expect("a directory"),
        }
    }

    fn run(&self, line: &str, token: Option<&str>) -> (Option<i32>, String) {
        let mut command = lora_tool();
        command.current_dir(self.root.path()).args(line.split_whitespace());
        command.env("HF_HUB_CACHE", self.cache()).env("HF_ENDPOINT", self.server.endpoint());
        command.env_remove("HF_TOKEN").env("HF_HOME", self.root.path().join("home"));
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        let done = command.output().expect("it runs");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn runs(&self, line: &str) {
        let (code, said) = self.run(line, None);
        assert_eq!(code, Some(0), "{line}: {said}");
    }

    /// The words of a refusal.
    fn refused(&self, line: &str, token: Option<&str>) -> String {
        let (code, said) = self.run(line, token);
        assert_eq!(code, Some(2), "{line}: {said}");
        said
    }

    fn cache(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    /// A repository's snapshot, which holds the very bytes of a directory.
    fn holds(&self, repository: &str, directory: &Path) {
        let folder = self.cache().join(format!("models--{}", repository.replace('/', "--")));
        assert_eq!(fs::read_to_string(folder.join("refs/main")).expect("a reference"), COMMIT);
        let snapshot = folder.join("snapshots").join(COMMIT);
        assert!(files(&snapshot) == files(directory), "{repository}");
        for (file, _) in files(&snapshot) {
            let link = fs::read_link(snapshot.join(file)).expect("a link");
            assert!(link.is_relative(), "{}", link.display());
        }
        assert!(incomplete(&folder).is_empty());
    }

    /// The adapter is not found in the cache, nor any part of it in a place of what is whole.
    fn lacks_the_adapter(&self) {
        let folder = self.cache().join("models--org--adapter");
        assert!(!folder.join("refs").exists());
        let here = self.run("inspect hf://org/adapter", None);
        assert!(here.0 == Some(2) && here.1.contains("is not in the local Hub cache"), "{here:?}");
    }
}

/// Names of blobs that are not whole.
fn incomplete(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("blobs")) else { return Vec::new() };
    let names =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".incomplete")).collect()
}

#[test]
fn what_is_fetched_is_merged_as_from_paths_and_not_fetched_again() {
    let hub = Hub::new();
    hub.runs(MERGE);
    hub.holds("org/base", &fixture("llama/base"));
    hub.holds("org/adapter", &fixture("llama/style"));
    let (base, adapter) = (fixture("llama/base"), fixture("llama/style"));
    hub.runs(&format!("merge {} {} -o by-path -q", base.display(), adapter.display()));
    assert!(files(&hub.root.path().join("out")) == files(&hub.root.path().join("by-path")));
    assert!(!hub.server.asked().is_empty());
    hub.runs(&format!("{MERGE} --force"));
    let asked = hub.server.asked();
    assert!(
        asked.iter().all(|line| !line.starts_with("GET") || line.contains("/api/")),
        "{asked:?}"
    );
    // Without a server the cache has to do; without --fetch none is asked.
    hub.server.fail(Fault::Silent);
    hub.runs(&format!("{MERGE} --force"));
    hub.server.asked();
    hub.runs("merge org/base org/adapter -o out -f -q");
    assert!(hub.server.asked().is_empty());
}

#[test]
fn a_file_of_a_repository_is_fetched_alone() {
    let hub = Hub::new();
    hub.runs("inspect hf://org/adapter/adapter_model.safetensors --fetch -q");
    let asked = hub.server.asked();
    assert!(asked.iter().all(|line| !line.contains("adapter_config.json")), "{asked:?}");
}

#[test]
fn bodies_that_are_cut_go_on_where_they_ended() {
    let hub = Hub::new();
    hub.server.fail(Fault::Cut(2));
    hub.runs(MERGE);
    hub.holds("org/base", &fixture("llama/base"));
    // The rest was asked for, not the whole again.
    let from = |line: &String| {
        line.rsplit_once(' ').and_then(|(_, range)| range.split('-').next()?.parse().ok())
    };
    assert!(hub.server.asked().iter().filter_map(from).any(|from: u64| from > 0));
}

#[test]
fn a_server_in_trouble_is_asked_again_and_given_up_in_the_end() {
    let hub = Hub::new();
    hub.server.fail(Fault::Status(503, usize::MAX));
    let said = hub.refused(ADAPTER, None);
    assert!(said.contains("503") && said.contains("again later"), "{said}");
    hub.lacks_the_adapter();
    hub.server.fail(Fault::Status(500, 2));
    hub.runs(ADAPTER);
    hub.holds("org/adapter", &fixture("llama/style"));
}

#[test]
fn what_an_earlier_run_left_is_continued() {
    let hub = Hub::new();
    let whole = fs::read(fixture("llama/style/adapter_model.safetensors")).expect("read");
    hub.runs("inspect hf://org/adapter/adapter_model.safetensors --fetch -q");
    let folder = hub.cache().join("models--org--adapter");
    let link = folder.join("snapshots").join(COMMIT).join("adapter_model.safetensors");
    let blob = fs::canonicalize(&link).expect("a blob");
    fs::remove_file(&link).expect("removed");
    fs::rename(&blob, format!("{}.incomplete", blob.display())).expect("renamed");
    let left = fs::OpenOptions::new()
        .write(true)
        .open(format!("{}.incomplete", blob.display()))
        .expect("a file");
    left.set_len(1000).expect("shortened");
    hub.server.asked();
    hub.runs(ADAPTER);
    let rest = format!("1000-{}", whole.len() - 1);
    let asked = hub.server.asked();
    assert!(asked.iter().any(|line| line.ends_with(&rest)), "{asked:?}");
    hub.holds("org/adapter", &fixture("llama/style"));
}

#[test]
fn a_server_that_sends_whole_files_only_does() {
    let hub = Hub::new();
    hub.server.fail(Fault::NoRanges);
    hub.runs(ADAPTER);
    hub.holds("org/adapter", &fixture("llama/style"));
}

#[test]
fn other_bytes_than_announced_are_thrown_away() {
    let hub = Hub::new();
    hub.server.fail(Fault::OtherBytes);
    let said = hub.refused(ADAPTER, None);
    assert!(said.contains("the server announced"), "{said}");
    hub.lacks_the_adapter();
    assert!(incomplete(&hub.cache().join("models--org--adapter")).is_empty());
    hub.server.fail(Fault::Nothing);
    hub.runs(ADAPTER);
    hub.holds("org/adapter", &fixture("llama/style"));
}

#[test]
fn refusals_of_the_server_say_what_to_do() {
    let hub = Hub::new();
    let said = hub.refused("inspect org/nowhere --fetch", None);
    assert!(said.contains("404") && said.contains("spelling"), "{said}");
    hub.server.fail(Fault::Private);
    let said = hub.refused(ADAPTER, None);
    assert!(said.contains("401") && said.contains("HF_TOKEN"), "{said}");
    let said = hub.refused(ADAPTER, Some("wrong"));
    assert!(said.contains("401") && said.contains("terms"), "{said}");
    hub.lacks_the_adapter();
    let (code, said) = hub.run(ADAPTER, Some("right"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn without_a_server_nothing_is_left() {
    let hub = Hub::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let done = lora_tool()
        .current_dir(hub.root.path())
        .env("HF_HUB_CACHE", hub.cache())
        .env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .args(ADAPTER.split_whitespace())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("HF_ENDPOINT"), "{said}");
    assert!(!hub.cache().exists());
}
