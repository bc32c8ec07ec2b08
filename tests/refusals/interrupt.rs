//! Ctrl-C and SIGTERM leave no temporary and no output, wherever they meet a merge.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::{Peft, Random};
use lora_tool::format::{Dtype, header};

const LAYERS: usize = 32;
const ROWS: usize = 2048;
const COLUMNS: usize = 4096;
const RANK: usize = 8;

fn module(layer: usize) -> String {
    format!("model.layers.{layer}.self_attn.q_proj")
}

/// A base of half a GiB that takes no room: its tensors are a hole in the file.
pub(super) fn base(path: &Path) {
    let tensors = (0..LAYERS)
        .map(|layer| (format!("{}.weight", module(layer)), Dtype::BF16, vec![ROWS, COLUMNS]));
    let header = header::encode(None, &header::lay_out(tensors)).expect("a short header");
    let mut file = File::create(path).expect("created");
    file.write_all(&header).expect("written");
    file.set_len((header.len() + LAYERS * ROWS * COLUMNS * 2) as u64).expect("sparse");
}

pub(super) fn adapter(path: &Path) {
    let mut random = Random::new(1);
    let (down, up) = (random.values(RANK * COLUMNS, 0.1), random.values(ROWS * RANK, 0.1));
    let add = |peft: Peft, layer| peft.linear(&module(layer), RANK, &down, &up);
    (0..LAYERS).fold(Peft::new(RANK, 8.0), add).save(path);
}

pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("listed");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Starts a merge into `out/<target>` and waits until its temporary is there.
pub(super) fn started(root: &Path, target: &str) -> Child {
    let out = root.join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_lora-tool"))
        .current_dir(root)
        .args(["merge", "base.safetensors", "adapter", "-o"])
        .arg(Path::new("out").join(target))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    while entries(&out).is_empty() && child.try_wait().expect("asked").is_none() {
        sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn signals_leave_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    base(&root.path().join("base.safetensors"));
    adapter(&root.path().join("adapter"));
    let out = root.path().join("out");
    fs::create_dir(&out).expect("a directory");
    let mut interrupted = 0;
    for run in 0..20u8 {
        let target = if run % 2 == 0 { "merged" } else { "merged.safetensors" };
        let (signal, code) = if run % 5 == 4 { ("TERM", 143) } else { ("INT", 130) };
        let mut child = started(root.path(), target);
        sleep(Duration::from_millis(u64::from(run) * 3));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "no signal sent");
        let status = child.wait().expect("ended");
        if status.success() {
            // It was faster than the signal; then the output is whole, and alone.
            assert_eq!(entries(&out), [out.join(target)], "run {run}");
            let path = out.join(target);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        } else {
            assert_eq!(status.code(), Some(code), "run {run}, SIG{signal}");
            assert_eq!(entries(&out), [] as [PathBuf; 0], "run {run}, SIG{signal}");
            interrupted += 1;
        }
    }
    assert!(interrupted >= 10, "only {interrupted} runs were interrupted");
}
