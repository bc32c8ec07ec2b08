//! One extraction on many machines: `extract --plan`, `work`, `commit` write the bytes of `extract` in one go.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use lora_tool::format::Dtype;
use serde_json::{Value, json};

use crate::common::refusal::{Scene, tree};
use crate::common::{Peft, Random, Tensors};

const LAYERS: usize = 6;

/// A base, the same with an adapter merged in, a norm and a bias that changed beside it.
fn scene() -> Scene {
    let scene = Scene::empty();
    let mut random = Random::new(7);
    let (mut base, mut adapter) = (Tensors::new(), Peft::new(3, 6.0));
    for number in 0..LAYERS {
        let (module, size) = (format!("model.layers.{number}.q_proj"), 48 + 8 * (number * 5 % 7));
        let values = random.values(size * size, 0.2);
        base = base.float(&format!("{module}.weight"), Dtype::BF16, &[size, size], &values);
        let (down, up) = (random.values(3 * size, 0.3), random.values(3 * size, 0.3));
        adapter = adapter.linear(&module, 3, &down, &up);
    }
    let (norm, bias) = (random.values(48, 1.0), random.values(48, 1.0));
    let with = |tensors: Tensors, add: f32| {
        let moved = |values: &[f32]| values.iter().map(|value| value + add).collect::<Vec<_>>();
        let tensors = tensors.float("model.norm.weight", Dtype::F32, &[48], &moved(&norm));
        tensors.float("model.layers.0.q_proj.bias", Dtype::F32, &[48], &moved(&bias))
    };
    with(base, 0.0).save(&scene.path("base.safetensors"));
    adapter.save(&scene.path("adapter"));
    scene.runs("merge base.safetensors adapter -o merged.safetensors");
    let mut tuned = Tensors::new();
    for (name, read) in crate::common::read(&scene.path("merged.safetensors")) {
        if name.ends_with("q_proj.weight") {
            tuned = tuned.raw(&name, read.dtype, &read.shape, &read.bytes);
        }
    }
    with(tuned, 0.25).save(&scene.path("tuned.safetensors"));
    scene
}

fn report(text: &str) -> Value {
    serde_json::from_str(text).expect("a JSON report")
}

#[test]
fn workers_in_any_order_write_the_bytes_of_one_process() {
    let scene = scene();
    for (number, options) in [
        "--rank auto --full-norms",
        "--rank 2 --dtype bf16 --seed 3",
        "--rank energy:0.9 --to comfyui --full-norms",
        "--rank 4 --to kohya --min-diff 1e-6",
        "--rank 3 --exact --clamp-quantile 0.99 --exclude layers.2",
    ]
    .into_iter()
    .enumerate()
    {
        let ending = if options.contains("--to") { ".safetensors" } else { "" };
        let (out, whole) = (format!("out{number}{ending}"), format!("one/out{number}{ending}"));
        scene.directory("one");
        let line = format!("extract base.safetensors tuned.safetensors {options} --json -o");
        let expected = report(&scene.runs(&format!("{line} {whole}")));
        let planned =
            report(&scene.runs(&format!("{line} {out} --plan {number}.json --workers 3")));
        assert_eq!(planned["kind"], "extract");
        assert_eq!(planned["workers"].as_array().map(Vec::len), Some(3));
        for part in [2, 3, 1, 2] {
            scene.runs(&format!("work {number}.json --shard {part}/3"));
            assert!(!scene.path(&out).exists());
        }
        let committed = report(&scene.runs(&format!("commit {number}.json --json")));
        for key in ["modules", "whole", "left_out", "relative_error", "bytes", "equal", "warnings"]
        {
            assert_eq!(committed[key], expected[key], "{options}: {key}");
        }
        let bytes = |path: &str| match scene.path(path).is_dir() {
            true => tree(&scene.path(path)),
            false => {
                [(std::path::PathBuf::new(), std::fs::read(scene.path(path)).expect("a file"))]
                    .into()
            }
        };
        assert!(bytes(&out) == bytes(&whole), "{options}: other bytes");
        assert!(!scene.path(&format!(".{out}.work")).exists());
        scene.refuses_late(
            &format!("commit {number}.json"),
            &["committed already"],
            "plan it again",
        );
    }
}

#[test]
fn what_is_missing_or_altered_is_named_and_made_again() {
    let scene = scene();
    scene.runs("extract base.safetensors tuned.safetensors --rank 3 -o whole");
    scene.runs("extract base.safetensors tuned.safetensors --rank 3 -o out --plan plan.json");
    scene.refuses_late("commit plan.json", &["no worker has begun"], "lora-tool work PLAN");
    scene.runs("work plan.json --shard 2/2");
    scene.refuses_late("commit plan.json", &["of 8 parts are missing: "], "lora-tool work PLAN");
    scene.runs("work plan.json --shard 1/2");
    let folder = scene.path(".out.work/out");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert_eq!(files.len(), LAYERS);
    let mut bytes = std::fs::read(&files[1]).expect("a file");
    bytes[100] ^= 1;
    std::fs::write(&files[1], bytes).expect("a writable file");
    std::fs::remove_file(&files[4]).expect("a file");
    let says = ["1 of 8 parts is missing: model.layers.", "1 of 8 parts is not as it was made"];
    scene.refuses_late("commit plan.json", &says, "lora-tool work PLAN");
    let again = report(&scene.runs("work plan.json --shard 1/1 --json"));
    assert_eq!((&again["made"], &again["reused"]), (&json!(2), &json!(6)));
    scene.runs("commit plan.json");
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
}

#[test]
fn what_one_process_must_see_is_refused() {
    let scene = scene();
    let line = "extract base.safetensors tuned.safetensors -o out.safetensors --plan plan.json";
    scene.refuses_late(&format!("{line} --rank size:64KiB"), &["shared out over all modules"], "");
    scene.refuses_late(&format!("{line} --rank 4 --workers 0"), &["nobody would work"], "");
    scene.runs(&format!("{line} --rank 4"));
    let text = std::fs::read_to_string(scene.path("plan.json")).expect("a plan");
    let mut plan: Value = serde_json::from_str(&text).expect("JSON");
    plan["options"]["seed"] = json!(1);
    scene.write("plan.json", plan.to_string());
    scene.refuses_late("work plan.json --shard 1/1", &["was edited"], "as it was written");
}
