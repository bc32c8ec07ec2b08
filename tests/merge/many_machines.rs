//! One merge on many machines: `merge --plan`, `work`, `commit`. What comes out has the bytes of a merge in one go, or
//! nothing comes out.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use lora_tool::format::Dtype;
use lora_tool::format::yaml::{Node, Value as Yaml};
use serde_json::{Value, json};

use crate::common::refusal::{Scene, tree};
use crate::common::{Peft, Random, Tensors, fixture, lora_tool};

const SHARDS: usize = 12;
const PLAN: &str = "merge base adapter -o out -w 0.7 --plan plan.json";
const BUILT: &str = ".out.work";

/// A base of twelve shards of several sizes, a config and a tokenizer, and an adapter of all its layers.
fn scene() -> Scene {
    let scene = Scene::empty();
    let mut random = Random::new(5);
    let mut adapter = Peft::new(4, 8.0);
    let mut weight_map = serde_json::Map::new();
    for number in 0..SHARDS {
        let file = format!("model-{:05}-of-{SHARDS:05}.safetensors", number + 1);
        let (module, size) = (format!("layers.{number}.q_proj"), 32 + 16 * (number * 5 % 7));
        let (weight, norm) = (random.values(size * size, 0.02), random.values(size, 1.0));
        let (tensor, norms) = (format!("{module}.weight"), format!("layers.{number}.norm.weight"));
        let tensors = Tensors::new().float(&tensor, Dtype::BF16, &[size, size], &weight);
        let tensors = tensors.float(&norms, Dtype::BF16, &[size], &norm);
        tensors.save(&scene.path("base").join(&file));
        let factors = [random.values(4 * size, 0.1), random.values(4 * size, 0.1)];
        adapter = adapter.linear(&module, 4, &factors[0], &factors[1]);
        weight_map.insert(tensor, json!(file));
        weight_map.insert(norms, json!(file));
    }
    let index = json!({"metadata": {}, "weight_map": weight_map});
    scene.write("base/model.safetensors.index.json", index.to_string());
    scene.write("base/config.json", r#"{"model_type": "llama"}"#);
    scene.write("base/tokenizer.json", r#"{"version": "1.0"}"#);
    adapter.save(&scene.path("adapter"));
    scene.runs("merge base adapter -o whole -w 0.7");
    scene
}

/// A shard, where it waits.
fn shard(scene: &Scene, number: usize) -> PathBuf {
    let file = format!("model-{number:05}-of-{SHARDS:05}.safetensors");
    scene.path(BUILT).join("out").join(file)
}

fn report(text: &str) -> Value {
    serde_json::from_str(text).expect("a JSON report")
}

/// Changes one byte near the end of a file.
fn alter(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("a writable file");
}

#[test]
fn workers_in_any_order_make_the_bytes_of_one_process() {
    let scene = scene();
    let planned = report(&scene.runs(&format!("{PLAN} --workers 5 --json")));
    assert_eq!(planned["parts"], SHARDS);
    let loads: Vec<u64> = serde_json::from_value(planned["workers"].clone()).expect("loads");
    assert_eq!(loads.iter().sum::<u64>(), planned["bytes"].as_u64().expect("bytes"));
    let (most, least) = (loads.iter().max().expect("five"), loads.iter().min().expect("five"));
    assert!(most - least < 20_000, "{loads:?}");

    // A worker that is killed, wherever it is, and is run again.
    let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_lora-tool"));
    worker.current_dir(scene.path("")).args(["-q", "work", "plan.json", "--shard", "2/5"]);
    let mut worker = worker.spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(40));
    worker.kill().expect("it can be killed");
    worker.wait().expect("it ends");
    let mut made = 0;
    for number in [4, 2, 5, 1, 3, 2] {
        let line = format!("work plan.json --shard {number}/5 --json");
        made += report(&scene.runs(&line))["made"].as_u64().expect("a count");
        assert!(!scene.path("out").exists());
    }
    assert!(made <= SHARDS as u64);
    let again = report(&scene.runs("work plan.json --shard 1/1 --json"));
    assert_eq!((&again["made"], &again["reused"]), (&json!(0), &json!(SHARDS)));

    // What was killed, or is no file of the result, does not go out with it.
    scene.write(&format!("{BUILT}/out/stranger"), "");
    let committed = report(&scene.runs("commit plan.json --json"));
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
    assert!(!scene.path(BUILT).exists());
    let whole = report(&scene.runs("merge base adapter -o again -w 0.7 --json"));
    for key in ["tensors", "effective", "tensors_changed", "tensors_copied", "bytes", "warnings"] {
        assert_eq!(committed[key], whole[key], "{key}");
    }
    scene.refuses_late("commit plan.json", &["it was committed already"], "plan it again");
    let there = ["out: the output is there already"];
    scene.refuses_late("work plan.json --shard 1/5", &there, "plan it again");
}

#[test]
fn nothing_comes_out_before_all_of_it_is_there() {
    let scene = scene();
    scene.runs(PLAN);
    scene.refuses_late("commit plan.json", &["no worker has begun"], "lora-tool work PLAN");
    scene.runs("work plan.json --shard 1/2");
    let missing = ["6 of 12 parts are missing: model-000"];
    scene.refuses_late("commit plan.json", &missing, "lora-tool work PLAN");
    scene.runs("work plan.json --shard 2/2");
    alter(&shard(&scene, 7));
    std::fs::remove_file(shard(&scene, 3)).expect("a shard");
    let names = [
        "1 of 12 parts is missing: model-00003-of-00012",
        "1 of 12 parts is not as it was made: model-00007-of-00012",
    ];
    scene.refuses_late("commit plan.json", &names, "lora-tool work PLAN");
    let report = report(&scene.runs("work plan.json --shard 1/1 --json"));
    assert_eq!((&report["made"], &report["reused"]), (&json!(2), &json!(10)));
    scene.runs("commit plan.json");
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
}

#[test]
fn other_inputs_are_refused() {
    let work = "work plan.json --shard 1/1";
    let hint = "put back what was planned with";
    for (file, says) in [
        ("adapter/adapter_model.safetensors", "its contents are others"),
        ("base/config.json", "its contents are others"),
        ("base/tokenizer.json", "its contents are others"),
    ] {
        let scene = scene();
        scene.runs(PLAN);
        let path = scene.path(file);
        let bytes = std::fs::read(&path).expect("a file");
        alter(&path);
        scene.refuses_late(work, &[file, "when the plan was made", says], hint);
        std::fs::write(&path, &bytes[1..]).expect("a writable file");
        scene.refuses_late(work, &[file, "bytes, and had"], hint);
        std::fs::write(&path, bytes).expect("a writable file");
        scene.runs(work);
        alter(&path);
        scene.refuses_late("commit plan.json", &[file], hint);
    }
    let scene = scene();
    scene.runs(PLAN);
    let path = scene.path("base/model-00004-of-00012.safetensors");
    let bytes = std::fs::read(&path).expect("a file");
    let text = bytes.windows(6).position(|text| text == b"q_proj").expect("a name");
    let mut other = bytes;
    other[text] = b'k';
    std::fs::write(&path, other).expect("a writable file");
    scene.refuses_late(work, &["model-00004", "its header is another"], hint);
}

#[test]
fn other_plans_are_refused() {
    let scene = scene();
    let work = "work plan.json --shard 1/1";
    scene.runs(PLAN);
    let text = std::fs::read_to_string(scene.path("plan.json")).expect("a plan");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut plan: Value = serde_json::from_str(&text).expect("JSON");
        change(&mut plan);
        scene.write("plan.json", plan.to_string());
    };
    with(&|plan| plan["version"] = json!("0.0.1"));
    scene.refuses_late(work, &["made by lora-tool 0.0.1"], "one version");
    with(&|plan| plan["schema"] = json!(1));
    scene.refuses_late(work, &["schema 1"], "one version");
    with(&|plan| plan["plan"]["bytes"] = json!(1));
    scene.refuses_late(work, &["was edited"], "as it was written");
    with(&|plan| plan["options"]["adapters"][0]["weight"] = json!(0.8));
    scene.refuses_late(work, &["was edited"], "as it was written");
    with(&|plan| plan["kind"] = json!("mend"));
    scene.refuses_late(work, &["of the kind `mend`"], "as it was written");
    scene.write("plan.json", "{}");
    scene.refuses_late(work, &["it is no plan of shared work"], "as it was written");
    scene.write("plan.json", &text);
    scene.write("base/generation_config.json", "{}");
    scene.refuses_late(work, &["it is other work"], "plan again");
    std::fs::remove_file(scene.path("base/generation_config.json")).expect("a file");
    scene.refuses_late("work plan.json", &["which part"], "--shard 1/1");
    scene.refuses_late("work plan.json --shard 5/4", &["`5/4` is no part"], "from 1 to N");
    scene.runs("work plan.json --shard 1/3");
    scene.runs("merge base adapter -o out -w 0.8 --plan other.json");
    let line = "work other.json --shard 1/3";
    scene.refuses_late(line, &["something else is being made there"], "another output");
}

/// The examples as a scheduler runs them.
#[test]
fn schedulers_say_the_part() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let scene = scene();
    let binary =
        std::path::Path::new(env!("CARGO_BIN_EXE_lora-tool")).parent().expect("a directory");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    scene.runs(&format!("{PLAN} --workers 3"));
    for id in ["3", "1"] {
        let variables = [("ID", id), ("COUNT", "3"), ("MIN", "1"), ("STEP", "1")];
        let variables = variables.map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value));
        let mut task = std::process::Command::new("sh");
        task.current_dir(scene.path("")).arg(examples.join("slurm_array.sh")).arg("plan.json");
        task.envs(variables).env("SLURM_CPUS_PER_TASK", "1").env("PATH", &path);
        assert!(task.output().expect("a shell").status.success());
    }
    let job = std::fs::read_to_string(examples.join("kubernetes_indexed_job.yaml")).expect("a job");
    assert!(job.contains("completions: 16") && job.contains("value: \"16\""));
    let command = "command: [\"lora-tool\", \"--quiet\", \"work\", \"plan.json\"]";
    assert!(job.contains(command));
    let mut pod = lora_tool();
    pod.current_dir(scene.path("")).args(["--quiet", "work", "plan.json"]);
    pod.env("JOB_COMPLETION_INDEX", "1").env("JOB_COMPLETIONS", "3").assert().success();
    scene.runs("commit plan.json");
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
}

/// The scalar at a path of keys and places in lists.
fn at<'a>(node: &'a Node, path: &[&str]) -> &'a Node {
    let Some((key, rest)) = path.split_first() else { return node };
    let found = match &node.value {
        Yaml::Mapping(entries) => {
            entries.iter().find(|(found, _)| found.text == *key).map(|(_, node)| node)
        }
        Yaml::List(nodes) => key.parse::<usize>().ok().and_then(|place| nodes.get(place)),
        Yaml::Scalar(..) => None,
    };
    at(found.unwrap_or_else(|| panic!("no `{key}`")), rest)
}

fn scalar(node: &Node) -> String {
    match &node.value {
        Yaml::Scalar(text, _) => text.clone(),
        _ => panic!("no scalar: {node:?}"),
    }
}

/// The lines of the workflow's steps, its parameters put in as Argo does, through the shell of its container.
#[test]
fn argo_plans_works_and_commits() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let text = std::fs::read(examples.join("argo_workflow.yaml")).expect("a workflow");
    let workflow = lora_tool::format::yaml::parse(&text).expect("YAML");
    let spec = at(&workflow, &["spec"]);
    let binary =
        std::path::Path::new(env!("CARGO_BIN_EXE_lora-tool")).parent().expect("a directory");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let scene = scene();
    let container = at(spec, &["templates", "1", "container"]);
    let shell = scalar(at(container, &["command", "0"]));
    assert_eq!(scalar(at(container, &["command", "1"])), "-c");
    let exec = scalar(at(container, &["args", "0"]));
    let run = |step: &str, item: &str| {
        let line = ["templates", "0", "steps", step, "0", "arguments", "parameters", "0", "value"];
        let mut line = exec.replace("{{inputs.parameters.line}}", &scalar(at(spec, &line)));
        for (name, value) in
            [("base", "base"), ("adapter", "adapter:0.7"), ("output", "out"), ("workers", "3")]
        {
            line = line.replace(&format!("{{{{workflow.parameters.{name}}}}}"), value);
        }
        line = line.replace("{{item}}", item);
        assert!(!line.contains('{'), "{line}");
        let mut command = std::process::Command::new(&shell);
        command.current_dir(scene.path("")).args(["-c", &line]).env("PATH", &path);
        let done = command.output().expect("a shell");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run("0", "");
    for item in ["2", "3", "1"] {
        run("1", item);
    }
    run("2", "");
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
}

#[test]
fn recipes_and_methods_are_planned_too() {
    let scene = scene();
    let recipe = "base: base\nadapters: [{path: adapter, weight: 0.7}, {path: adapter, weight: -0.2}]\n\
                  method: ties\nparameters: {density: [0.3, 0.6]}\n";
    scene.write("recipe.yaml", recipe);
    scene.runs("run recipe.yaml -o in-one-go");
    scene.runs("run recipe.yaml -o out --plan plan.json --workers 3");
    for number in [3, 1, 2] {
        scene.runs(&format!("work plan.json --shard {number}/3"));
    }
    scene.runs("commit plan.json");
    assert!(tree(&scene.path("out")) == tree(&scene.path("in-one-go")), "other bytes");
    let existing = "merge base adapter -o out --plan plan.json --force";
    scene.runs(existing);
    scene.runs("work plan.json --shard 1/1");
    assert!(tree(&scene.path("out")) == tree(&scene.path("in-one-go")), "before the commit");
    scene.runs("commit plan.json");
    assert!(tree(&scene.path("out")) != tree(&scene.path("in-one-go")));
}

/// What a weight that is quantised again loses of its update is known when all shards are: the commit refuses it, as
/// a merge in one go does.
#[test]
fn updates_that_do_not_survive_are_refused_at_the_commit() {
    let scene = Scene::empty();
    let case = fixture("quant/nvfp4_ct");
    let (base, adapter) = (case.join("base"), case.join("adapter"));
    let line = format!("merge {} {} --quantized requantize", base.display(), adapter.display());
    scene.runs(&format!("{line} --min-survival 0 -o whole"));
    for (least, out) in [("0", "out"), ("1", "lost")] {
        scene.runs(&format!("{line} --min-survival {least} -o {out} --plan {out}.json"));
        scene.runs(&format!("work {out}.json --shard 2/2"));
        scene.runs(&format!("work {out}.json --shard 1/2"));
    }
    scene.runs("commit out.json");
    assert!(tree(&scene.path("out")) == tree(&scene.path("whole")), "other bytes");
    scene.refuses_late("commit lost.json", &["surviv"], "-");
    assert!(!scene.path("lost").exists());
}

#[test]
fn what_one_process_alone_can_do_is_refused() {
    let scene = scene();
    for (line, says) in [
        ("merge base adapter -o out --plan plan.json --verify", "--verify"),
        ("merge base adapter -o out --plan plan.json --receipt kept", "--receipt"),
        ("merge base adapter -o out.safetensors --plan plan.json", "a directory"),
        ("merge base adapter -o out --plan plan.json --workers 0", "nobody"),
    ] {
        scene.refuses_late(line, &[says], "");
    }
}
