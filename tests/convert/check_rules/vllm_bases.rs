//! vLLM: files, the classes' names, stacks, and what a config of the base alone tells.

use super::*;

const FLOAT16: Base =
    Base::Config(r#"{"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}"#);

/// One module whose A is multiplied by this, and B divided.
fn leaning(by: f32) -> Peft {
    let mut random = Random::new(4);
    let down: Vec<f32> =
        random.values(RANK * 64, 1.0).into_iter().map(|value| value * by).collect();
    let up: Vec<f32> = random.values(64 * RANK, 1.0).into_iter().map(|value| value / by).collect();
    Peft::new(RANK, 8.0).linear("model.layers.0.self_attn.q_proj", RANK, &down, &up)
}

#[test]
fn vllm_reads_files_as_it_does() {
    let none = Base::None;
    let file = |name| Made::File(name, whole().tensors);
    judged(&[
        hit("V1 a bare file", ("vllm", "files", REFUSED), none, file("style.safetensors")),
        miss("V1", ("vllm", "files"), none, whole()),
        hit("V5 the field", ("vllm", "dora", REFUSED), none, whole().field("use_dora", true)),
        hit("V6 the field", ("vllm", "bias-field", REFUSED), none, whole().field("bias", "all")),
        miss("V6 the field", ("vllm", "bias-field"), none, whole()),
        hit(
            "V6 lora_bias",
            ("vllm@0.32", "bias-field", REFUSED),
            none,
            whole().field("lora_bias", true),
        ),
        miss("V6 lora_bias", ("vllm@0.31", "bias-field"), none, whole().field("lora_bias", true)),
        hit(
            "V7 the field",
            ("vllm", "replaced", REFUSED),
            none,
            whole().field("modules_to_save", json!(["lm_head"])),
        ),
        miss(
            "V7 the field",
            ("vllm", "replaced"),
            none,
            whole().field("modules_to_save", json!([])),
        ),
        hit(
            "V8 what nobody knows",
            ("vllm@0.32", "initialisation", REFUSED),
            none,
            whole().field("init_lora_weights", "brand_new"),
        ),
        miss(
            "V8 what nobody knows",
            ("vllm@0.31", "initialisation"),
            none,
            whole().field("init_lora_weights", "brand_new"),
        ),
        miss("V8 true", ("vllm", "initialisation"), none, whole().field("init_lora_weights", true)),
        hit("V10 too large", ("vllm", "dtype", CHANGED), FLOAT16, leaning(1e6)),
        hit("V10 too small", ("vllm", "dtype", NOTE), FLOAT16, leaning(1e-6)),
        miss("V10", ("vllm", "dtype"), FLOAT16, leaning(1.0)),
        miss("V10 another dtype", ("vllm", "dtype"), Base::Class("LlamaForCausalLM"), leaning(1e6)),
        right("V12 without the prefix", "vllm", Base::Llama, bare(whole())),
        hit(
            "V12 a stranger",
            ("vllm", "tensor-names", REFUSED),
            none,
            whole().tensor("brand.new", &[2], &[1.0; 2]),
        ),
    ]);
    // Names of files alone do not make a directory.
    let scratch = tempfile::tempdir().expect("a directory");
    let path = file("adapter_model.safetensors").save(scratch.path());
    let mut command = lora_tool();
    command.arg("check").arg(path).args(["--for", "vllm"]).assert().code(1);
}

/// V11: nothing but a word for what tensorizer wrote.
#[test]
fn tensorizers_files_are_told() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = whole().save(&scratch.path().join("adapter"));
    let from = adapter.join("adapter_model.safetensors");
    std::fs::rename(from, adapter.join("adapter_model.tensors")).expect("renamed");
    let mut command = lora_tool();
    let done = command.arg("check").arg(&adapter).args(["--for", "vllm"]).assert().code(2);
    let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert!(said.contains("tensorizer"), "{said}");
}

/// V3: the highest of all ranks that the config says, and the flag.
#[test]
fn vllm_needs_the_highest_rank_of_the_config() {
    for (adapter, flag) in [
        (
            whole().field("r", 64).field("rank_pattern", json!({ ".*": RANK })),
            Some("--max-lora-rank 64"),
        ),
        (
            whole().field("r", 257).field("rank_pattern", json!({ ".*": RANK })),
            Some("--max-lora-rank 320"),
        ),
        (
            whole().field("r", 17).field("rank_pattern", json!({ ".*": RANK })),
            Some("--max-lora-rank 32"),
        ),
        (whole(), None),
    ] {
        let scratch = tempfile::tempdir().expect("a directory");
        let adapter = adapter.save(&scratch.path().join("adapter"));
        let mut command = lora_tool();
        command.arg("check").arg(&adapter).args(["--for", "vllm", "--json"]);
        let done = command.assert().success();
        let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
        let needs = report["programs"][0]["needs"].as_array().expect("flags");
        assert_eq!(needs.first().and_then(Value::as_str), flag);
    }
}

#[test]
fn vllm_takes_embeddings_by_class() {
    let tokens = |count| {
        Base::Config(match count {
            48 => r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 48}"#,
            _ => r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 50}"#,
        })
    };
    let inside = |model| {
        Base::Config(match model {
            "llama" => {
                r#"{"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "llama"}}"#
            }
            _ => {
                r#"{"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "mistral"}}"#
            }
        })
    };
    let class = Base::Class;
    let head = || with(Peft::new(RANK, 8.0), "lm_head", (64, 48), RANK);
    judged(&[
        hit("V14", ("vllm", "embeddings", REFUSED), class("MistralForCausalLM"), head()),
        hit("V14", ("vllm", "embeddings", REFUSED), class("Gemma2ForCausalLM"), head()),
        hit("V14", ("vllm", "embeddings", REFUSED), class("DeepseekV3ForCausalLM"), head()),
        hit("V14", ("vllm", "embeddings", REFUSED), class("Glm4MoeForCausalLM"), head()),
        hit("V14", ("vllm", "embeddings", REFUSED), class("GptOssForCausalLM"), head()),
        hit("V14", ("vllm", "embeddings", REFUSED), class("OlmoeForCausalLM"), head()),
        miss("V14", ("vllm", "embeddings"), class("Phi3ForCausalLM"), head()),
        miss("V14", ("vllm", "embeddings"), class("Qwen3MoeForCausalLM"), head()),
        miss("V14", ("vllm", "embeddings"), class("GraniteForCausalLM"), head()),
        miss("V14", ("vllm", "embeddings"), class("SolarForCausalLM"), head()),
        hit("V14 within", ("vllm", "embeddings", REFUSED), inside("mistral"), head()),
        miss("V14 within", ("vllm", "embeddings"), inside("llama"), head()),
        hit("V15 the config", ("vllm", "vocabulary", REFUSED), tokens(50), embeddings(whole(), 48)),
        miss("V15 the config", ("vllm", "vocabulary"), tokens(48), embeddings(whole(), 48)),
        hit(
            "V13 the head",
            ("vllm", "base-layers", IGNORED),
            Base::None,
            head().tensor("lm_head.base_layer.weight", &[48, 64], &[0.5; 48 * 64]),
        ),
    ]);
}

/// V19 and V22: the spellings that the mapper of each kind of wrapper leads to a module, in 0.32 and 0.33.
#[test]
fn vllm_takes_the_spellings_of_its_wrappers() {
    const SPELLINGS: [(&str, &str); 5] = [
        ("T", "model.layers.0.self_attn.o_proj"),
        ("N", "model.language_model.layers.0.self_attn.o_proj"),
        ("O", "language_model.model.layers.0.self_attn.o_proj"),
        ("L", "llm.model.layers.0.self_attn.o_proj"),
        ("X", "model.text_model.layers.0.self_attn.o_proj"),
    ];
    for (class, older, newer) in [
        ("Qwen2VLForConditionalGeneration", "TNO", "TNO"),
        ("Qwen2_5_VLForConditionalGeneration", "TNO", "TNO"),
        ("Mistral3ForConditionalGeneration", "TNO", "TNO"),
        ("Gemma4ForConditionalGeneration", "TNO", "TNO"),
        ("Qwen3VLForConditionalGeneration", "NO", "TNO"),
        ("Qwen3_5ForConditionalGeneration", "NO", "TNO"),
        ("Gemma3ForConditionalGeneration", "NO", "TNO"),
        ("PaliGemmaForConditionalGeneration", "NO", "TNO"),
        ("LlavaForConditionalGeneration", "NO", "TNO"),
        ("PixtralForConditionalGeneration", "NO", "TNO"),
        ("Glm4vForConditionalGeneration", "NO", "TNO"),
        ("InternVLChatModel", "O", "TO"),
        ("Llama4ForConditionalGeneration", "O", "TO"),
        ("Qwen2_5OmniThinkerForConditionalGeneration", "O", "TO"),
        ("Qwen3OmniMoeThinkerForConditionalGeneration", "TO", "TO"),
        ("DotsOCRForCausalLM", "TO", "TO"),
        ("MiniCPMV4_5", "L", "TL"),
        ("MolmoForCausalLM", "T", "T"),
        ("Phi4MMForCausalLM", "T", "T"),
        ("SmolVLMForConditionalGeneration", "X", "TX"),
        ("Idefics3ForConditionalGeneration", "X", "TX"),
    ] {
        for (program, lands) in [("vllm@0.32", older), ("vllm@0.33", newer)] {
            let case = |(letter, name): (&str, &'static str)| {
                let (base, adapter) = (Base::Class(class), named(name));
                match lands.contains(letter) {
                    true => miss(class, (program, "names"), base, adapter),
                    false => hit(class, (program, "names", IGNORED), base, adapter),
                }
            };
            judged(&SPELLINGS.map(case));
        }
    }
}

/// V17: what each class has fused.
#[test]
fn vllm_takes_fused_projections_by_class() {
    let attention = |leaf: &str| named(&format!("model.layers.0.self_attn.{leaf}"));
    let class = Base::Class;
    judged(&[
        miss("V17", ("vllm", "fused"), class("Phi4MMForCausalLM"), attention("qkv_proj")),
        miss(
            "V17",
            ("vllm", "fused"),
            class("Glm4vForConditionalGeneration"),
            named("model.language_model.layers.0.mlp.gate_up_proj"),
        ),
        hit(
            "V17",
            ("vllm", "fused", REFUSED),
            class("Glm4vForConditionalGeneration"),
            named("model.language_model.layers.0.mlp.up_proj"),
        ),
        miss(
            "V17",
            ("vllm", "fused"),
            class("Glm4vForConditionalGeneration"),
            named("model.language_model.layers.0.self_attn.q_proj"),
        ),
        miss(
            "V17",
            ("vllm", "fused"),
            class("ChatGLMForCausalLM"),
            named("transformer.encoder.layers.0.self_attention.query_key_value"),
        ),
        hit(
            "V17",
            ("vllm", "fused", REFUSED),
            class("LlamaForCausalLM"),
            named("transformer.encoder.layers.0.self_attention.query_key_value"),
        ),
        hit(
            "V17",
            ("vllm", "fused", REFUSED),
            class("Qwen3ForCausalLM"),
            named("model.layers.0.mlp.gate_up_proj"),
        ),
        right("V18", "vllm", Base::Llama, only(&["q_proj", "v_proj"])),
        right("V18 keys alone", "vllm", Base::Llama, only(&["k_proj"])),
        miss(
            "V21",
            ("vllm", "skipped"),
            class("NemotronHForCausalLM"),
            named("model.layers.0.mixer.q_proj"),
        ),
    ]);
}

const MIXTRAL: Base = Base::Class("MixtralForCausalLM");
const PHI: Base = Base::Class("PhiMoEForCausalLM");
const QWEN: Base = Base::Class("Qwen3MoeForCausalLM");
const NUMBERED: [&str; 3] = ["w1", "w2", "w3"];

#[test]
fn vllm_wants_experts_as_the_class_has_them() {
    let one = |keep: &'static str| {
        let name = "model.layers.0.mlp.experts";
        let adapter = Peft::new(RANK, 8.0).field("target_modules", json!([]));
        let adapter = adapter.field("target_parameters", json!([format!("mlp.experts.{keep}")]));
        let size = if keep == "down_proj" { (16, 32) } else { (32, 32) };
        with(adapter.field("peft_version", "0.21.2"), name, size, 4 * RANK)
    };
    let both = |version: &'static str, swapped: bool| {
        let name = "model.layers.0.mlp.experts";
        let adapter = Peft::new(RANK, 8.0).field("target_modules", json!([]));
        let targets = json!(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]);
        let adapter = adapter.field("target_parameters", targets).field("peft_version", version);
        let turn = |(a, b): (usize, usize)| if swapped { (b, a) } else { (a, b) };
        let adapter = with(adapter, &format!("{name}.base_layer"), turn((32, 24)), 4 * RANK);
        with(adapter, name, turn((12, 32)), 4 * RANK)
    };
    let stacked = Base::Class("Qwen3VLMoeForConditionalGeneration");
    judged(&[
        hit("V23 one of two", ("vllm", "both-stacks", REFUSED), stacked, one("down_proj")),
        hit("V23 one of two", ("vllm", "both-stacks", REFUSED), stacked, one("gate_up_proj")),
        miss("V23", ("vllm", "both-stacks"), stacked, both("0.21.2", false)),
        hit(
            "V24 w1 of Qwen",
            ("vllm", "expert-names", REFUSED),
            QWEN,
            experts(|_, _| RANK, NUMBERED),
        ),
        miss("V24 gate of Qwen", ("vllm", "expert-names"), QWEN, experts(|_, _| RANK, PLAIN)),
        hit("V24 gate of Phi", ("vllm", "expert-names", REFUSED), PHI, experts(|_, _| RANK, PLAIN)),
        miss("V24 w1 of Phi", ("vllm", "expert-names"), PHI, experts(|_, _| RANK, NUMBERED)),
        miss("V24 gate of Mixtral", ("vllm", "expert-names"), MIXTRAL, experts(|_, _| RANK, PLAIN)),
        miss(
            "V24 w1 of Mixtral",
            ("vllm", "expert-names"),
            MIXTRAL,
            experts(|_, _| RANK, NUMBERED),
        ),
        hit("V28", ("vllm", "stack-sides", REFUSED), stacked, both("0.18.1", true)),
        miss("V28", ("vllm", "stack-sides"), stacked, both("0.19.1", false)),
    ]);
}
