//! What only a base tells: classes, layers and names that a program does not have, and how many modules that is.

use super::*;

const ZORK: Base = Base::Config(r#"{"architectures": ["ZorkForCausalLM"], "model_type": "zork"}"#);
const LLAMA: Base =
    Base::Config(r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}"#);
const MLLAMA: Base = Base::Config(
    r#"{"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama"}"#,
);
/// Its layers have q, k and v in one tensor.
const PHI3: Base = Base::Config(
    r#"{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "num_attention_heads": 4}"#,
);
const PHIMOE: Base = Base::Config(
    r#"{"architectures": ["PhiMoEForCausalLM"], "model_type": "phimoe", "num_local_experts": 4}"#,
);

/// vLLM serves it by the class of InternS1.
const INTERNVL: Base = Base::Config(
    r#"{"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl"}"#,
);

const TOWER: &str = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";

fn tower() -> Peft {
    with(whole(), TOWER, (64, 64), RANK)
}

#[test]
fn a_class_that_nobody_knows_is_right_for_no_server() {
    for program in ["sglang", "tensorrt-llm", "lmdeploy", "tgi", "lorax", "llama.cpp", "ollama"] {
        judged(&[
            hit("a class of nobody", (program, "class", UNKNOWN), ZORK, whole()),
            miss("a class of all", (program, "class"), LLAMA, whole()),
        ]);
    }
    judged(&[
        hit("a class of nobody", ("vllm", "class", UNKNOWN), ZORK, whole()),
        miss("another name of a class", ("vllm", "class"), INTERNVL, whole()),
        hit("not converted", ("llama.cpp", "class", REFUSED), MLLAMA, whole()),
        hit("not converted", ("ollama", "class", REFUSED), MLLAMA, whole()),
        miss("not by llama.cpp", ("sglang", "class"), MLLAMA, whole()),
    ]);
}

#[test]
fn towers_are_no_language_models_layers() {
    judged(&[
        hit("T1", ("tensorrt-llm", "towers", ELSEWHERE), Base::None, tower()),
        miss("T1", ("tensorrt-llm", "towers"), Base::None, whole()),
        hit("TG1", ("tgi", "towers", IGNORED), Base::None, tower()),
        miss("TG1", ("lorax", "towers"), Base::None, whole()),
        miss("TG3 counts no tower", ("tgi", "missing-layers"), Base::None, tower()),
        hit("L7 mmproj", ("llama.cpp", "towers", REFUSED), LLAMA, tower()),
        miss("L7 mmproj", ("llama.cpp", "towers"), LLAMA, whole()),
        hit("O1 mmproj", ("ollama", "towers", REFUSED), LLAMA, tower()),
        hit("X2 a tower", ("mlx", "towers", REFUSED), Base::None, tower()),
        hit("X2 a tower, older", ("mlx@0.31", "towers", IGNORED), Base::None, tower()),
        miss("X2 a tower", ("mlx", "towers"), Base::None, whole()),
    ]);
}

#[test]
fn what_a_base_does_not_have_is_right_for_nobody() {
    let beyond = || with(whole(), "model.layers.9.self_attn.o_proj", (64, 64), RANK);
    let wide = || with(Peft::new(RANK, 4.0), "model.layers.0.self_attn.q_proj", (64, 72), RANK);
    let joined = || with(Peft::new(RANK, 4.0), "model.layers.0.mlp.gate_up_proj", (64, 192), RANK);
    let wrapped = || named("language_model.model.layers.0.self_attn.q_proj").field("lora_alpha", 4);
    let video = || with(Peft::new(RANK, 4.0), "blocks.0.attn.to_q", (64, 64), RANK);
    let plain = || named("model.layers.0.self_attn.q_proj").field("lora_alpha", RANK);
    let own = Base::Llama;
    judged(&[
        hit("S5 a layer", ("sglang", "names", IGNORED), own, beyond()),
        miss("S5 a layer", ("sglang", "names"), own, whole()),
        miss("S5 any wrapper", ("sglang", "names"), own, wrapped()),
        hit("T1 a layer", ("tensorrt-llm", "base", REFUSED), own, beyond()),
        hit("T1 a shape", ("tensorrt-llm", "base", REFUSED), own, wide()),
        miss("T1", ("tensorrt-llm", "base"), own, whole()),
        hit("OV2 a shape", ("openvino", "shapes", REFUSED), own, wide()),
        hit("OV2 a wrapper", ("openvino", "names", IGNORED), own, wrapped()),
        hit("OV2 joined", ("openvino", "names", IGNORED), own, joined()),
        right("OV2", "openvino", own, plain()),
        hit("OV2 video", ("openvino", "model", UNKNOWN), Base::None, video()),
        hit("L2 joined", ("llama.cpp", "joined", REFUSED), own, joined()),
        miss("L2 joined", ("llama.cpp", "joined"), PHI3, named("model.layers.0.mlp.gate_up_proj")),
        hit(
            "L2 no name",
            ("llama.cpp", "names", UNKNOWN),
            LLAMA,
            named("model.layers.0.mlp.zz_proj"),
        ),
        miss("L2 a name", ("llama.cpp", "names"), LLAMA, whole()),
    ]);
}

#[test]
fn configs_say_what_programs_want_of_them() {
    let alpha = || whole().field("lora_alpha", Value::Null);
    let gemma = Base::Class("Gemma2ForCausalLM");
    judged(&[
        hit("S1 no alpha", ("sglang", "config-fields", REFUSED), Base::None, alpha()),
        hit("S1 no rank", ("sglang", "config-fields", REFUSED), Base::None, {
            with(Peft::new(8, 8.0), "model.layers.0.self_attn.o_proj", (64, 64), 8)
                .field("r", Value::Null)
        }),
        miss("S1", ("sglang", "config-fields"), Base::None, whole()),
        hit("O4 no alpha is a factor of 1", ("ollama", "scale", SCALED), gemma, alpha()),
        miss("O4", ("ollama", "scale"), gemma, whole()),
    ]);
}

/// The verdict, and how many modules it is about.
fn verdict(program: &'static str, adapter: impl Into<Made>) -> (String, u64) {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = adapter.into().save(scratch.path());
    let done = lora_tool().arg("check").arg(path).args(["--for", program, "--json"]).output();
    let report: Value = serde_json::from_slice(&done.expect("it runs").stdout).expect("a report");
    let own = &report["programs"][0];
    (
        own["verdict"].as_str().expect("a word").to_owned(),
        own["modules"][0].as_u64().expect("a number"),
    )
}

#[test]
fn modules_are_counted_by_whatever_a_finding_names() {
    let bias = |name: &str| {
        let tensor = format!("{name}.lora_B.bias");
        named(name).field("lora_bias", true).tensor(&tensor, &[64], &[0.5; 64])
    };
    let expect =
        |own: (String, u64), word: &str, count: u64| assert_eq!(own, (word.to_owned(), count));
    // Factors by their tensors, stacks by their names, kinds by theirs.
    expect(verdict("sglang", called(whole())), "no effect", 14);
    expect(verdict("sglang", stacks()), "no effect", 8);
    expect(
        verdict("tgi", of(|layer, name| layer == 0 || name != "self_attn.q_proj")),
        "partly ignored",
        1,
    );
    // Factors work without their biases, and what is scaled wrongly is not without effect.
    expect(verdict("sglang", bias("model.layers.0.self_attn.o_proj")), "partly ignored", 0);
    expect(verdict("openvino", embeddings(whole(), 48)), "partly ignored", 15);
    // What is said of no module is said of all.
    let video = Tensors::new()
        .f32("diffusion_model.blocks.0.self_attn.q.lora_down.weight", &[2, 8], &[0.5; 16])
        .f32("diffusion_model.blocks.0.self_attn.q.lora_up.weight", &[8, 2], &[0.5; 16])
        .f32("diffusion_model.blocks.0.cross_attn.k.lora_down.weight", &[2, 8], &[0.5; 16])
        .f32("diffusion_model.blocks.0.cross_attn.k.lora_up.weight", &[8, 2], &[0.5; 16]);
    expect(verdict("forge", Made::File("wan.safetensors", video)), "no effect", 2);
}

#[test]
fn a_fix_that_could_not_run_is_not_printed() {
    let single = || {
        let mut adapter = Peft::new(RANK, 8.0);
        for (matrix, sizes) in [("w1", (64, 32)), ("w2", (32, 64)), ("w3", (64, 32))] {
            let name = format!("model.layers.0.block_sparse_moe.experts.0.{matrix}");
            adapter = with(adapter, &name, sizes, RANK);
        }
        adapter
    };
    let fix = |program: &'static str, base: Base, adapter: Peft| {
        let scratch = tempfile::tempdir().expect("a directory");
        let case = miss("a fix", (program, ANY), base, adapter);
        findings(&case, scratch.path()).iter().any(|finding| finding["fix"].is_string())
    };
    assert!(!fix("mlx", PHIMOE, single()));
    assert!(!fix("llama.cpp", ZORK, whole()));
    assert!(!fix("llama.cpp", LLAMA, tower()));
    assert!(fix("llama.cpp", LLAMA, whole()));
}
