//! What a config says and the tensors do not bear out, tensors that are the base's own, adapters in several files.

use super::*;
use crate::common::read;

const Q: &str = "model.layers.0.self_attn.q_proj";

/// Factors of the embeddings, and the whole of them beside as PEFT saves it.
fn beside(value: f32) -> Peft {
    let name = "model.embed_tokens.base_layer.weight";
    embeddings(Peft::new(RANK, 8.0), 48).field("target_modules", json!(["embed_tokens"])).tensor(
        name,
        &[48, 64],
        &[value; 48 * 64],
    )
}

/// Layers 0, 1 and a copy of 1.
fn copied(layer: usize) -> Peft {
    let name = format!("model.layers.{layer}.self_attn.q_proj");
    named(&name).field("layer_replication", json!([[0, 2], [1, 2]]))
}

#[test]
fn peft_makes_modules_of_what_its_config_names() {
    let (none, llama) = (Base::None, Base::Llama);
    let golden = |name: &str| Made::Path(fixture(&format!("golden/{name}/input/adapter")));
    let targets = |of: Value| whole().field("target_modules", of);
    let layers = |of: Value| whole().field("layers_to_transform", of);
    let tied = || with(Peft::new(RANK, 8.0), "lm_head", (64, 48), RANK);
    let twice = format!("base_model.model.{Q}");
    judged(&[
        hit("P1 targets", ("peft", "targets", IGNORED), none, targets(json!(["q_proj", "v_proj"]))),
        hit("P1 layers", ("peft", "targets", IGNORED), llama, layers(json!([1]))),
        right("P1 layers", "peft", llama, layers(json!([0, 1]))),
        right("P1 targets", "peft", llama, whole()),
        right("P1 a pattern", "peft", llama, targets(json!(r".*_proj"))),
        hit("P1 twice", ("peft", "tensor-names", IGNORED), none, named(&twice)),
        hit("TG1 twice", ("tgi", "tensor-names", IGNORED), none, named(&twice)),
        hit("LM1 twice", ("lmdeploy", "tensor-names", REFUSED), none, named(&twice)),
        right("P1 what modules share", "peft", none, golden("merge_vera")),
        right("P1 a bank of vectors", "peft", none, golden("merge_vblora")),
        miss("P1 a tied head", ("peft", "names"), Base::Tied, tied()),
        miss("P1 a copied layer", ("peft", "names"), llama, copied(2)),
        hit("P1 no copy", ("peft", "names", IGNORED), llama, copied(3)),
        miss("P1 a bias of B where the layer has none", ("peft", "shapes"), llama, {
            let name = format!("{Q}.lora_B.bias");
            named(Q).field("lora_bias", true).tensor(&name, &[64], &[0.5; 64])
        }),
    ]);
}

#[test]
fn what_is_the_bases_own_is_not_lost() {
    judged(&[
        miss("V13", ("llama.cpp", "base-layers"), Base::Tied, beside(0.5)),
        hit("V13 trained", ("llama.cpp", "base-layers", IGNORED), Base::Tied, beside(0.25)),
        miss("L2", ("llama.cpp", "replaced"), Base::Tied, beside(0.25)),
        right("V13", "vllm", Base::Tied, beside(0.5)),
        hit("V13 trained", ("vllm", "base-layers", IGNORED), Base::Tied, beside(0.25)),
        miss("V13 trained", ("vllm", "replaced"), Base::Tied, beside(0.25)),
        hit("S3 trained", ("sglang", "replaced", IGNORED), Base::Tied, beside(0.25)),
        miss("S3", ("sglang", "replaced"), Base::Tied, beside(0.5)),
    ]);
}

#[test]
fn fields_that_are_not_read_change_what_is_computed() {
    let none = Base::None;
    let activated = || whole().field("alora_invocation_tokens", json!([1, 2]));
    let wide = || with(Peft::new(RANK, 8.0), Q, (80, 64), RANK);
    let mut cases: Vec<Case> = Vec::new();
    for program in ["sglang", "tgi", "lorax", "lmdeploy", "tensorrt-llm"] {
        cases.push(hit("S1 TG2 LM2", (program, "variant", CHANGED), none, activated()));
        cases.push(miss("S1 TG2 LM2", (program, "variant"), none, whole()));
    }
    cases.extend([
        hit("TG shapes", ("tgi", "shapes", REFUSED), Base::Llama, wide()),
        miss("TG shapes", ("tgi", "shapes"), Base::Llama, named(Q)),
    ]);
    judged(&cases);
}

/// The line that mends what a program finds.
fn fix(adapter: &Path, program: &str) -> String {
    let done = lora_tool().arg("check").arg(adapter).args(["--for", program, "--json"]).output();
    let report: Value = serde_json::from_slice(&done.expect("it runs").stdout).expect("JSON");
    assert_eq!(report["answer"], "no", "{report}");
    report["programs"][0]["fix"].as_str().unwrap_or_else(|| panic!("no fix: {report}")).to_owned()
}

/// Runs a fix, and checks and merges what it writes.
fn mended(adapter: &Path, program: &str, scratch: &Path) -> PathBuf {
    let line = fix(adapter, program);
    let mut words = line.split(' ').skip(1);
    let out = scratch.join(program);
    let words: Vec<&str> = words.by_ref().take_while(|word| *word != "-o").collect();
    lora_tool().args(words).args(["--force", "-o"]).arg(&out).assert().success();
    lora_tool().arg("check").arg(&out).args(["--for", program]).assert().success();
    let merged = scratch.join("merged");
    let mut merge = lora_tool();
    merge.arg("merge").arg(fixture("llama/base")).arg(&out).args(["--force", "-o"]).arg(&merged);
    merge.assert().success();
    merged
}

#[test]
fn shards_and_a_promise_of_magnitudes_are_mended() {
    let scratch = tempfile::tempdir().expect("a directory");
    let scratch = scratch.path();
    let plain = whole().save(&scratch.join("plain"));
    let merged = scratch.join("expected");
    let mut merge = lora_tool();
    merge.arg("merge").arg(fixture("llama/base")).arg(&plain).arg("-o").arg(&merged);
    merge.assert().success();
    let expected = read(&merged);
    // P6: plain LoRA, which the user says by the line.
    let promised = whole().field("use_dora", true).save(&scratch.join("promised"));
    assert_eq!(read(&mended(&promised, "vllm", scratch)), expected);
    // V1: the same tensors in two files, of which no program reads either.
    let sharded = scratch.join("sharded");
    std::fs::create_dir_all(&sharded).expect("a directory");
    let copy = |name: &str| std::fs::copy(plain.join(name), sharded.join(name)).expect("copied");
    copy("adapter_config.json");
    let mut places = serde_json::Map::new();
    for half in 0..2 {
        let name = format!("adapter_model-0000{}-of-00002.safetensors", half + 1);
        let mut tensors = whole().tensors;
        let count = tensors.entries.len();
        tensors.entries = tensors.entries.split_off(half * count / 2);
        tensors.entries.truncate(count / 2);
        places.extend(tensors.entries.iter().map(|own| (own.0.clone(), json!(name))));
        tensors.save(&sharded.join(&name));
    }
    let index = json!({ "metadata": {}, "weight_map": places }).to_string();
    std::fs::write(sharded.join("adapter_model.safetensors.index.json"), index).expect("written");
    judged(&[
        hit("V1", ("vllm", "files", REFUSED), Base::None, Made::Path(sharded.clone())),
        hit("V1", ("peft", "files", REFUSED), Base::None, Made::Path(sharded.clone())),
        miss("V1", ("vllm", "files"), Base::None, Made::Path(plain)),
    ]);
    assert_eq!(read(&mended(&sharded, "vllm", scratch)), expected);
    assert_eq!(read(&mended(&sharded, "peft", scratch)), expected);
}
