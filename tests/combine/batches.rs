//! Many adapters through other verbs in one go: the bytes are those of each verb by itself, on one machine or on many.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::refusal::{Scene, adapter, base, tree};
use crate::common::{Peft, lora_tool};

const JOBS: &str = "\
defaults:
  rank: 1
items:
  - verb: resize
    adapter: loras/*
    output: small/{name}
  - verb: convert
    adapter: [loras/one, loras/two]
    to: kohya
    output: kohya/{name}.safetensors
  - verb: check
    adapter: loras/one
    for: peft
  - verb: merge
    base: base.safetensors
    adapter: {path: 'loras/t*', weight: 0.5}
    adapters: [loras/one]
    output: merged-{name}.safetensors
  - {verb: combine, adapters: [loras/one, {path: loras/two, weight: -0.5}], output: both}
  - {verb: convert, as: lora, adapter: loras/three, output: as-lora}
  - {verb: extract, base: base.safetensors, tuned: tuned.safetensors, output: 'back-{name}'}
";

/// Lines that make one by one what the batch makes.
const LINES: [&str; 10] = [
    "resize loras/one -o one/small/one --rank 1",
    "resize loras/two -o one/small/two --rank 1",
    "resize loras/three -o one/small/three --rank 1",
    "convert loras/one -o one/kohya/one.safetensors --to kohya",
    "convert loras/two -o one/kohya/two.safetensors --to kohya",
    "merge base.safetensors loras/two:0.5 loras/one -o one/merged-two.safetensors",
    "merge base.safetensors loras/three:0.5 loras/one -o one/merged-three.safetensors",
    "combine loras/one loras/two:-0.5 -o one/both --rank 1",
    "convert loras/three --as lora --rank 1 -o one/as-lora",
    "extract base.safetensors tuned.safetensors --rank 1 -o one/back-tuned",
];

/// Three adapters in a folder, among other things, a base, and what one of them makes of it.
fn scene() -> Scene {
    let scene = Scene::empty();
    base().save(&scene.path("base.safetensors"));
    for (name, amount) in [("one", 0.25), ("two", -0.5), ("three", 0.125)] {
        adapter(amount).save(&scene.path("loras").join(name));
    }
    scene.write("loras/README.md", "adapters");
    scene.runs("merge base.safetensors loras/one -o tuned.safetensors");
    scene.write("jobs.yaml", JOBS);
    scene
}

/// What each line makes by itself.
fn one_by_one(scene: &Scene) -> Vec<(PathBuf, Vec<u8>)> {
    for folder in ["one/small", "one/kohya"] {
        scene.directory(folder);
    }
    for line in LINES {
        scene.runs(line);
    }
    tree(&scene.path("one")).into_iter().collect()
}

/// What lies where the batch put it.
fn made(scene: &Scene) -> Vec<(PathBuf, Vec<u8>)> {
    let all = tree(&scene.path(""));
    let outputs = ["small", "kohya", "merged-", "both", "as-lora", "back-"];
    let is_output = |path: &PathBuf| {
        let text = path.to_string_lossy();
        outputs.iter().any(|output| text.starts_with(output)) && !text.contains(".work")
    };
    all.into_iter().filter(|(path, _)| is_output(path)).collect()
}

/// Exit code and report.
fn runs(scene: &Scene, line: &str) -> (Option<i32>, Value) {
    let mut command = lora_tool();
    command.current_dir(scene.path("")).args(line.split(' ')).arg("--json");
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), serde_json::from_slice(&done.stdout).expect(&said))
}

fn statuses(report: &Value) -> Vec<&str> {
    let items = report["items"].as_array().expect("items");
    items.iter().map(|item| item["status"].as_str().expect("a status")).collect()
}

#[test]
fn a_batch_writes_the_bytes_of_its_verbs() {
    let scene = scene();
    let expected = one_by_one(&scene);
    let (code, report) = runs(&scene, "batch jobs.yaml --dry-run");
    assert_eq!((code, report["done"].as_u64()), (Some(0), Some(11)), "{report:#}");
    assert!(made(&scene).is_empty());
    for options in ["--at-once 1 --threads 1", "--at-once 5 --threads 3", "--force"] {
        let line =
            format!("batch jobs.yaml --force {options}").replace("--force --force", "--force");
        let (code, report) = runs(&scene, &line);
        assert_eq!(code, Some(0), "{report:#}");
        assert_eq!(statuses(&report), ["done"; 11]);
        assert!(made(&scene) == expected, "{options}: other bytes");
    }
    let items = runs(&scene, "batch jobs.yaml --force").1;
    assert_eq!(items["items"][0]["item"], "resize loras/one");
    assert_eq!(items["items"][0]["line"], 4);
    assert_eq!(items["items"][0]["report"]["convention"], "peft");
    assert_eq!(items["items"][8]["item"], "combine loras/one + loras/two");
}

#[test]
fn workers_make_what_one_machine_makes() {
    let scene = scene();
    let expected = one_by_one(&scene);
    let planned = runs(&scene, "batch jobs.yaml --plan plan.json --workers 3").1;
    assert_eq!((&planned["kind"], &planned["parts"]), (&json!("batch"), &json!(11)));
    scene.refuses_late("commit plan.json", &["no worker has begun"], "lora-tool work PLAN");
    for part in [3, 1] {
        scene.runs(&format!("work plan.json --shard {part}/3"));
    }
    assert!(made(&scene).iter().all(|(_, bytes)| bytes.is_empty()), "something is in place");
    scene.refuses_late("commit plan.json", &["of 11 parts are missing: "], "lora-tool work PLAN");
    scene.runs("work plan.json --shard 2/3");
    let waiting = scene.path("small/.two.work/out/two/adapter_model.safetensors");
    let bytes = std::fs::read(&waiting).expect("a file");
    std::fs::write(&waiting, &bytes[1..]).expect("a writable file");
    let says = ["1 of 11 parts is not as it was made: resize loras/two"];
    scene.refuses_late("commit plan.json", &says, "lora-tool work PLAN");
    let again = runs(&scene, "work plan.json --shard 1/1").1;
    assert_eq!((&again["made"], &again["reused"]), (&json!(1), &json!(10)));

    // A commit that was cut short after it had put one item in place.
    let from = scene.path("small/.one.work");
    std::fs::rename(from.join("out/one"), scene.path("small/one")).expect("it can be moved");
    std::fs::remove_dir_all(from).expect("it can go");
    let (code, report) = runs(&scene, "commit plan.json");
    assert_eq!((code, statuses(&report)), (Some(0), vec!["done"; 11]), "{report:#}");
    assert!(made(&scene) == expected, "other bytes");
    assert_eq!(report["items"][0]["report"]["output"], "small/one");
    let left = tree(&scene.path("")).into_keys().filter(|path| path.ends_with(".work"));
    assert_eq!(left.count(), 0);
    scene.refuses_late("commit plan.json", &["committed already"], "plan it again");
    scene.refuses_late("work plan.json --shard 1/1", &["is there already"], "plan it again");
}

#[test]
fn an_item_that_fails_does_not_stop_the_others() {
    let scene = scene();
    scene.write("loras/two/adapter_model.safetensors", "no header");
    let jobs = "items:\n- {verb: resize, adapter: loras/*, rank: 1, output: 'small/{name}'}\n";
    scene.write("jobs.yaml", jobs);
    let (code, report) = runs(&scene, "batch jobs.yaml --dry-run");
    assert_eq!((code, statuses(&report)), (Some(2), vec!["planned", "planned", "failed"]));
    let (code, report) = runs(&scene, "batch jobs.yaml");
    assert_eq!((code, statuses(&report)), (Some(2), vec!["done", "done", "failed"]));
    let failed = &report["items"][2];
    let reason = failed["reason"].as_str().expect("a reason");
    assert!(reason.contains("loras/two/adapter_model.safetensors"), "{reason}");
    assert_eq!(
        (failed["item"].as_str(), report["failed"].as_u64()),
        (Some("resize loras/two"), Some(1))
    );
    let made = std::fs::read_dir(scene.path("small")).expect("a folder").count();
    assert_eq!(made, 2);

    // What is done is left alone, what failed is tried again.
    let before = tree(&scene.path("small"));
    adapter(-0.5).save(&scene.path("loras/two"));
    let (code, report) = runs(&scene, "batch jobs.yaml --skip-done");
    assert_eq!((code, statuses(&report)), (Some(0), vec!["skipped", "skipped", "done"]));
    assert!(before.iter().all(|(path, bytes)| tree(&scene.path("small")).get(path) == Some(bytes)));

    for name in ["one", "two", "three"] {
        scene.write(&format!("loras/{name}/adapter_model.safetensors"), "no header");
    }
    let (code, report) = runs(&scene, "batch jobs.yaml --force --fail-fast --at-once 1");
    assert_eq!((code, statuses(&report)), (Some(2), vec!["failed", "stopped", "stopped"]));
}

#[test]
fn answers_decide_the_exit_code() {
    let scene = scene();
    let check = |program: &str| {
        let jobs = format!("items: [{{verb: check, adapter: loras/*, {program}}}]\n");
        scene.write("jobs.yaml", jobs);
        runs(&scene, "batch jobs.yaml")
    };
    let (code, report) = check("for: peft");
    assert_eq!((code, statuses(&report)), (Some(0), vec!["done"; 3]), "{report:#}");
    let factors = vec![0.1; 24];
    let wide = Peft::new(3, 3.0).linear("model.layers.0.q_proj", 3, &factors, &factors);
    wide.save(&scene.path("loras/two"));
    let (code, report) = check("for: vllm, max-rank: 2");
    assert_eq!((code, statuses(&report)[2]), (Some(1), "no"), "{report:#}");
    assert!(report["items"][2]["reason"].as_str().is_some_and(|reason| reason.contains("rank")));
}

#[test]
fn a_worker_notes_what_it_cannot_make() {
    let scene = scene();
    scene.write("loras/two/adapter_model.safetensors", "no header");
    let jobs = "items:\n- {verb: resize, adapter: loras/*, rank: 1, output: 'small/{name}'}\n";
    scene.write("jobs.yaml", jobs);
    scene.runs("batch jobs.yaml --plan plan.json");
    let (code, report) = runs(&scene, "work plan.json --shard 1/1");
    assert_eq!((code, &report["made"]), (Some(2), &json!(2)));
    assert_eq!(report["failed"][0]["part"], "resize loras/two");
    let (code, report) = runs(&scene, "commit plan.json");
    assert_eq!((code, statuses(&report)), (Some(2), vec!["done", "done", "failed"]));
    assert!(scene.path("small/one").is_dir() && !scene.path("small/two").exists());
}
