//! What must hold when something goes wrong from outside: a full disk, a limit, a kill at any moment,
//! two runs at once. The output is absent, old or complete; inputs never change.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "what was skipped, and how often the kill came in time")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::refusal::{Scene, tree};
use crate::common::{Peft, Random, Tensors};
use lora_tool::format::Dtype;
use serde_json::json;

const TOOL: &str = env!("CARGO_BIN_EXE_lora-tool");

/// Sizes of a base's shards: sides of their square bf16 tensors.
type Shards<'a> = &'a [&'a [usize]];

/// A scene with a sharded base `base`, its index and a tokenizer of `side` bytes, and an `adapter` of
/// rank 8 for every tensor.
fn scene(shards: Shards<'_>, side: usize) -> Scene {
    let scene = Scene::empty();
    let mut random = Random::new(3);
    let mut adapter = Peft::new(8, 8.0);
    let mut weight_map = serde_json::Map::new();
    for (number, sides) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        let mut tensors = Tensors::new();
        for (at, &size) in sides.iter().enumerate() {
            let module = format!("model.layers.{number}.part_{at}");
            // A pattern, for it is quicker than as many random numbers.
            let row = Tensors::new().float("row", Dtype::BF16, &[size], &random.values(size, 0.02));
            let bytes = row.entries[0].3.repeat(size);
            tensors = tensors.raw(&format!("{module}.weight"), Dtype::BF16, &[size, size], &bytes);
            let factors = [random.values(8 * size, 0.05), random.values(8 * size, 0.05)];
            adapter = adapter.linear(&module, 8, &factors[0], &factors[1]);
            weight_map.insert(format!("{module}.weight"), json!(file));
        }
        tensors.save(&scene.path("base").join(&file));
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    scene.write("base/model.safetensors.index.json", index.to_string());
    scene.write("base/tokenizer.json", vec![b' '; side]);
    adapter.save(&scene.path("adapter"));
    scene
}

fn start(scene: &Scene, options: &str) -> Child {
    let mut command = Command::new(TOOL);
    command.current_dir(scene.path("")).args(["-q", "merge", "base", "adapter"]);
    command.args(options.split(' ')).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("started")
}

/// (exit code, stderr) of a merge run by a shell that says `before` first.
fn through_shell(scene: &Scene, before: &str, out: &str) -> (Option<i32>, String) {
    let line = format!("{before}; exec '{TOOL}' -q merge base adapter -o {out}");
    let mut command = Command::new("sh");
    let output = command.current_dir(scene.path("")).args(["-c", &line]).output().expect("a shell");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_limit_on_file_sizes_leaves_nothing() {
    // 64 KiB, 512 KiB and 4 MiB; a shell's block is 512 or 1024 bytes.
    let scene = scene(&[&[128, 128], &[512]], 4 << 20);
    let before = tree(&scene.path(""));
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let cases = [(0, first), (1, first), (60, first), (256, second), (2048, "tokenizer.json")];
    for (blocks, file) in cases {
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}");
        let (code, stderr) = through_shell(&scene, &limit, "out");
        assert_eq!(code, Some(2), "{blocks} blocks\n{stderr}");
        assert!(
            stderr.starts_with(&format!("error: out/{file}: File too large")),
            "{blocks} blocks\n{stderr}"
        );
        assert!(stderr.contains("\nhint: nothing was left behind"), "{blocks} blocks\n{stderr}");
        assert!(tree(&scene.path("")) == before, "{blocks} blocks left something");
        if blocks < 2048 {
            let (code, stderr) = through_shell(&scene, &limit, "out.safetensors");
            assert_eq!(code, Some(2), "{blocks} blocks\n{stderr}");
            assert!(stderr.starts_with("error: out.safetensors: File too large"), "{stderr}");
            assert!(tree(&scene.path("")) == before, "{blocks} blocks left something");
        }
    }
    let (code, stderr) = through_shell(&scene, "trap '' XFSZ; ulimit -f 20000", "out");
    assert_eq!(code, Some(0), "{stderr}");
}

/// A small file system of its own, unmounted whatever happens.
struct Mount(PathBuf);

impl Mount {
    /// `None` where mounting is not permitted.
    fn new(at: PathBuf, bytes: usize) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&at);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    const WEIGHTS: usize = 2 * (128 * 128 * 2 + 512 * 512);
    // The disk, the bytes beside the weights, what is said, and whether planning could tell.
    let cases = [
        (64 << 10, 0, "error: disk/out: the output needs 590 kB, the disk has 66 kB free", true),
        // Room for the weights, not for a header.
        (WEIGHTS, 0, "error: disk/out/model-00002-of-00002.safetensors: No space left", false),
        // Room for the weight files, not for what lies beside them.
        (1 << 20, 1 << 20, "error: disk/out/tokenizer.json: No space left", false),
    ];
    for (bytes, side, says, planned) in cases {
        let scene = scene(&[&[128, 128], &[512]], side);
        let Some(_mount) = Mount::new(scene.directory("disk"), bytes) else {
            eprintln!("skipped: mounting a tmpfs is not permitted here");
            return;
        };
        let line = "merge base adapter -o disk/out";
        if planned {
            scene.refuses(line, &[says], "free some space");
        } else {
            scene.refuses_late(line, &[says], "free some space");
        }
        if side == 0 {
            scene.refuses_late(
                "merge base adapter -o disk/out.safetensors",
                &[],
                "free some space",
            );
        }
        // What is there already stays.
        scene.write("disk/out/old.txt", "old");
        scene.refuses_late(&format!("{line} --force"), &[], "free some space");
    }
}

/// What stands at an output's path.
fn output(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    if path.is_dir() {
        return tree(path).into_iter().collect();
    }
    std::fs::read(path).map(|bytes| (PathBuf::new(), bytes)).into_iter().collect()
}

/// Names in a directory other than the output's own and its temporaries'.
fn strangers(directory: &Path, out: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a readable directory");
    let names =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != out && !name.starts_with(&format!(".{out}.partial-"))).collect()
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new() {
    const RUNS: usize = 60;
    // 36 MiB.
    let scene = scene(&[&[1024; 6], &[1024; 6], &[1024; 6]], 1 << 10);
    let inputs = [tree(&scene.path("base")), tree(&scene.path("adapter"))];
    let kinds = [("out", false), ("out.safetensors", false), ("out", true)];
    let (mut references, mut durations) = (Vec::new(), Vec::new());
    for (out, _) in kinds {
        scene.directory("reference");
        let begin = Instant::now();
        scene.runs(&format!("merge base adapter -o reference/{out} --force"));
        durations.push(begin.elapsed());
        references.push(output(&scene.path("reference").join(out)));
    }
    let longest = durations.iter().max().copied().unwrap_or_default();
    let mut random = Random::new(11);
    let (mut killed, mut absent, mut old, mut complete) = (0, 0, 0, 0);
    for run in 0..RUNS {
        let (out, replace) = kinds[run % kinds.len()];
        let directory = scene.directory("run");
        let before = if replace {
            scene.write(&format!("run/{out}/old.txt"), "old");
            output(&directory.join(out))
        } else {
            Vec::new()
        };
        let force = if replace { " --force" } else { "" };
        let mut child = start(&scene, &format!("-o run/{out}{force}"));
        let moment = f64::from(random.value(0.6) + 0.6);
        std::thread::sleep(Duration::from_secs_f64(longest.as_secs_f64() * moment));
        // It may be done already.
        let _ = child.kill();
        let done = child.wait_with_output().expect("it ended");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(matches!(done.status.code(), None | Some(0)), "run {run}: {said}");
        killed += usize::from(done.status.code().is_none());
        let found = output(&directory.join(out));
        if found == references[run % kinds.len()] {
            complete += 1;
        } else {
            assert!(found == before, "run {run}, killed at {moment:.3}: a partial {out}");
            assert_ne!(done.status.code(), Some(0), "run {run}: done, and nothing there");
            absent += usize::from(!replace);
            old += usize::from(replace);
        }
        assert_eq!(strangers(&directory, out), Vec::<String>::new(), "run {run}");
        std::fs::remove_dir_all(&directory).expect("removed");
    }
    eprintln!(
        "of {RUNS} runs of {longest:.2?}, {killed} were killed: {absent} absent, {old} old, {complete} complete"
    );
    assert!(killed > RUNS / 6, "only {killed} runs were killed before they were done");
    assert!(
        inputs == [tree(&scene.path("base")), tree(&scene.path("adapter"))],
        "an input changed"
    );
}

#[test]
fn two_runs_for_one_output_do_not_mix() {
    let scene = scene(&[&[512; 4], &[512; 4]], 1 << 10);
    for (out, force) in
        [("out", ""), ("out.safetensors", ""), ("out", " --force"), ("out.safetensors", " --force")]
    {
        scene.directory("reference");
        scene.runs(&format!("merge base adapter -o reference/{out} --force"));
        let reference = output(&scene.path("reference").join(out));
        for round in 0..8 {
            let directory = scene.directory("run");
            let children = [(); 2].map(|()| start(&scene, &format!("-o run/{out}{force}")));
            let ends = children.map(|child| child.wait_with_output().expect("it ended"));
            let won = ends.iter().filter(|end| end.status.code() == Some(0)).count();
            for end in ends.iter().filter(|end| end.status.code() != Some(0)) {
                let said = String::from_utf8_lossy(&end.stderr);
                let refused = end.status.code() == Some(2) && said.contains("it exists already");
                assert!(refused, "round {round} of {out}{force}: {said}");
            }
            let fits = if force.is_empty() { won == 1 } else { won >= 1 };
            assert!(fits, "round {round} of {out}{force}: {won} runs won");
            assert!(
                output(&directory.join(out)) == reference,
                "round {round}: a mixed {out}{force}"
            );
            let left = std::fs::read_dir(&directory).expect("a readable directory").count();
            assert_eq!(left, 1, "round {round} of {out}{force}: temporaries are left");
            std::fs::remove_dir_all(&directory).expect("removed");
        }
    }
}

#[test]
fn modes_follow_the_umask() {
    let scene = scene(&[&[16], &[16]], 16);
    let mode =
        |path: &str| scene.path(path).metadata().expect("it exists").permissions().mode() & 0o7777;
    for (umask, file, directory) in
        [("022", 0o644, 0o755), ("077", 0o600, 0o700), ("002", 0o664, 0o775)]
    {
        for out in ["out", "out.safetensors"] {
            let (code, stderr) =
                through_shell(&scene, &format!("umask {umask}"), &format!("{umask}-{out}"));
            assert_eq!(code, Some(0), "{stderr}");
        }
        assert_eq!(mode(&format!("{umask}-out.safetensors")), file, "umask {umask}");
        assert_eq!(mode(&format!("{umask}-out")), directory, "umask {umask}");
        for name in
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
        {
            assert_eq!(mode(&format!("{umask}-out/{name}")), file, "{name} under umask {umask}");
        }
    }
}
