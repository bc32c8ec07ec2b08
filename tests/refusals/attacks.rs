//! Files made to mislead, exhaust or crash: each must be answered as `fixtures/attacks/table.tsv` says,
//! with nothing written and nothing on the terminal that a terminal would obey.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::common::{fixture, lora_tool};

/// A row of the table: file, command, exit code, words of the answer.
struct Attack {
    file: String,
    command: String,
    exit: i32,
    words: Vec<String>,
}

fn table() -> Vec<Attack> {
    let text = fs::read_to_string(fixture("attacks/table.tsv")).expect("a table");
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [file, command, exit, words] = cells[..] else { unreachable!("{line}") };
        Attack {
            file: file.to_owned(),
            command: command.to_owned(),
            exit: exit.parse().expect("an exit code"),
            words: words.split(" | ").map(str::to_owned).collect(),
        }
    });
    rows.collect()
}

/// Writes a file with this header, and no bytes of tensors.
fn header(path: &Path, json: &str) {
    let mut file = File::create(path).expect("a file");
    file.write_all(&(json.len() as u64).to_le_bytes()).expect("written");
    file.write_all(json.as_bytes()).expect("written");
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

/// What is too large or too odd to be stored.
fn make(root: &Path) {
    let made = root.join("made");
    for directory in ["links", "config-pipe", "config-long", "index-pipe"] {
        fs::create_dir_all(made.join(directory)).expect("a directory");
    }
    let mut million = String::from("{");
    for number in 0..1_000_000 {
        let comma = if number > 0 { "," } else { "" };
        let tensor = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        for part in [comma, "\"t", &number.to_string(), "\":", tensor] {
            million.push_str(part);
        }
    }
    header(&made.join("million.safetensors"), &(million + "}"));
    let value = "x".repeat(90_000_000);
    let bomb = format!(r#"{{"__metadata__":{{"ss_tag_frequency":"{value}"}}}}"#);
    header(&made.join("metadata.safetensors"), &bomb);
    let shape = "[2147483648,4]";
    let rank =
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,34359738368]}}}}"#);
    header(&made.join("rank-2-to-31.safetensors"), &rank);
    pipe(&made.join("pipe.safetensors"));
    symlink("/dev/zero", made.join("zero.safetensors")).expect("a link");
    symlink("loop.safetensors", made.join("loop.safetensors")).expect("a link");
    symlink("model.safetensors", made.join("links/model.safetensors")).expect("a link");
    let sound = root.join("rank/zero/adapter_model.safetensors");
    for directory in ["config-pipe", "config-long"] {
        fs::copy(&sound, made.join(directory).join("adapter_model.safetensors")).expect("copied");
    }
    pipe(&made.join("index-pipe/model.safetensors.index.json"));
    symlink("/dev/zero", made.join("config-pipe/adapter_config.json")).expect("a link");
    let long = File::create(made.join("config-long/adapter_config.json")).expect("a file");
    long.set_len(1 << 40).expect("a sparse file");
}

/// A copy of the corpus, with what is made.
fn corpus() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    let from = fixture("attacks/.");
    let copied = Command::new("cp").arg("-R").arg(from).arg(root.path()).status();
    assert!(copied.expect("cp").success());
    make(root.path());
    root
}

#[test]
fn every_attack_gets_its_answer() {
    let root = corpus();
    let mut wrong = Vec::new();
    for attack in table() {
        let line = attack.command.replace("{}", &attack.file);
        let output = lora_tool()
            .current_dir(root.path())
            .args(line.split(' '))
            .timeout(std::time::Duration::from_secs(120))
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8")
            + &String::from_utf8(output.stderr).expect("UTF-8");
        let mut faults = Vec::new();
        if output.status.code() != Some(attack.exit) {
            faults.push(format!("{}, not {}", output.status, attack.exit));
        }
        if attack.exit == 2 && !text.starts_with("error: ") {
            faults.push("no error".to_owned());
        }
        faults.extend(
            attack.words.iter().filter(|word| !text.contains(*word)).map(|w| format!("no `{w}`")),
        );
        let hostile = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        if text.contains(hostile) || text.contains("\nerror: ") {
            faults.push("it reaches the terminal".to_owned());
        }
        if text.len() > 5000 {
            faults.push(format!("{} bytes of answer", text.len()));
        }
        if root.path().join("OUT").exists() {
            faults.push("an output".to_owned());
        }
        if !faults.is_empty() {
            let text: String = text.chars().take(600).collect();
            wrong.push(format!("{line}: {}\n{text}", faults.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_of_the_corpus_is_in_the_table() {
    let rows = table();
    let root = fixture("attacks");
    let listed = Command::new("find").arg(&root).args(["-type", "f"]).output().expect("find");
    for path in String::from_utf8(listed.stdout).expect("UTF-8").lines() {
        let path =
            Path::new(path).strip_prefix(&root).expect("below").to_string_lossy().into_owned();
        let tools = ["table.tsv", "sound.safetensors", "base.safetensors"];
        let known =
            rows.iter().any(|row| path == row.file || path.starts_with(&format!("{}/", row.file)));
        assert!(known || tools.contains(&path.as_str()), "{path}");
    }
}
