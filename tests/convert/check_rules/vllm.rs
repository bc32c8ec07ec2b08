//! vLLM.

use super::*;

#[test]
fn vllm_reads_configs_as_it_does() {
    let bias = || {
        let name = "model.layers.0.self_attn.q_proj.lora_B.bias";
        whole().field("lora_bias", true).tensor(name, &[64], &[0.5; 64])
    };
    let none = Base::None;
    judged(&[
        hit(
            "V2 no alpha",
            ("vllm", "config-fields", REFUSED),
            none,
            whole().field("lora_alpha", Value::Null),
        ),
        miss(
            "V2 no targets",
            ("vllm", "config-fields"),
            none,
            whole().field("target_modules", json!([])),
        ),
        hit(
            "V4 alphas",
            ("vllm@0.31", "patterns", SCALED),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        miss(
            "V4 alphas",
            ("vllm@0.32", "patterns"),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        miss(
            "V4 the same alphas",
            ("vllm@0.31", "patterns"),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 8 })),
        ),
        hit("V5", ("vllm", "dora", REFUSED), none, magnitudes(whole())),
        miss("V5", ("vllm", "dora"), none, whole().field("use_dora", false)),
        hit("V6", ("vllm", "bias", REFUSED), none, bias()),
        miss("V6", ("vllm", "bias"), none, whole()),
        hit(
            "V7 a head that scores",
            ("vllm@0.30", "replaced", REFUSED),
            Base::Class("LlamaForSequenceClassification"),
            saved("score", 2),
        ),
        miss(
            "V7 a head that scores",
            ("vllm@0.31", "replaced"),
            Base::Class("LlamaForSequenceClassification"),
            saved("score", 2),
        ),
        hit(
            "V7 the same of a class without",
            ("vllm", "replaced", REFUSED),
            Base::Class("LlamaForCausalLM"),
            saved("score", 2),
        ),
        hit(
            "V7 another head",
            ("vllm", "replaced", REFUSED),
            Base::Class("LlamaForSequenceClassification"),
            saved("lm_head", 48),
        ),
        hit(
            "V8",
            ("vllm", "initialisation", REFUSED),
            none,
            whole().field("init_lora_weights", "pissa_niter_4"),
        ),
        hit(
            "V8",
            ("vllm@0.31", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
        hit(
            "V8 taken, and wrong",
            ("vllm", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "lora_ga"),
        ),
        miss(
            "V8",
            ("vllm", "initialisation"),
            none,
            whole().field("init_lora_weights", "gaussian"),
        ),
        hit(
            "V9",
            ("vllm", "variant", REFUSED),
            none,
            whole().field("alora_invocation_tokens", json!([1, 2])),
        ),
        hit(
            "V9",
            ("vllm@0.31", "variant", CHANGED),
            none,
            whole().field("alora_invocation_tokens", json!([1, 2])),
        ),
        miss(
            "V9",
            ("vllm", "variant"),
            none,
            whole().field("alora_invocation_tokens", Value::Null),
        ),
    ]);
}

#[test]
fn vllm_finds_names_as_it_does() {
    let part = |part: &str| {
        let name = format!("model.layers.0.self_attn.q_proj.lora_{part}.default.weight");
        let shape = if part == "A" { [RANK, 64] } else { [64, RANK] };
        (name, shape)
    };
    let default = ["A", "B"].into_iter().fold(Peft::new(RANK, 8.0), |adapter, own| {
        let (name, shape) = part(own);
        adapter.tensor(&name, &shape, &[0.5; RANK * 64])
    });
    let copied = embeddings(whole(), 48).tensor(
        "model.embed_tokens.base_layer.weight",
        &[48, 64],
        &Random::new(8).values(48 * 64, 1.0),
    );
    let eyes = || named("model.visual.blocks.0.attn.proj");
    judged(&[
        hit("V12", ("vllm", "tensor-names", REFUSED), Base::None, default),
        miss("V12", ("vllm", "tensor-names"), Base::None, whole()),
        hit("V13", ("vllm", "base-layers", IGNORED), Base::None, copied),
        miss("V13", ("vllm", "base-layers"), Base::None, embeddings(whole(), 48)),
        hit("V14", ("vllm", "embeddings", REFUSED), Base::Class("Qwen2ForCausalLM"), head()),
        miss("V14", ("vllm", "embeddings"), Base::Class("LlamaForCausalLM"), head()),
        hit("V15", ("vllm", "shapes", REFUSED), Base::Llama, embeddings(whole(), 50)),
        miss("V15", ("vllm", "shapes"), Base::Llama, embeddings(whole(), 48)),
        hit(
            "V16 a leaf of none",
            ("vllm", "leaves", REFUSED),
            Base::Llama,
            named("model.layers.0.self_attn.x_proj"),
        ),
        miss(
            "V16 a leaf elsewhere",
            ("vllm", "leaves"),
            Base::Llama,
            named("model.layers.9.self_attn.q_proj"),
        ),
        hit(
            "V16 a path of none",
            ("vllm", "names", IGNORED),
            Base::Llama,
            named("model.layers.9.self_attn.q_proj"),
        ),
        miss("V16 a path", ("vllm", "names"), Base::Llama, whole()),
        hit(
            "V16 an expert of none",
            ("vllm", "leaves", REFUSED),
            QWEN_MOE,
            with(
                experts(|_, _| RANK, PLAIN),
                "model.layers.0.mlp.experts.7.gate_proj",
                (32, 16),
                RANK,
            ),
        ),
        hit("V17 divided", ("vllm", "fused", REFUSED), Base::Class("Phi3ForCausalLM"), whole()),
        hit(
            "V17 fused",
            ("vllm", "fused", REFUSED),
            Base::Class("LlamaForCausalLM"),
            named("model.layers.0.self_attn.qkv_proj"),
        ),
        miss(
            "V17 as the class",
            ("vllm", "fused"),
            Base::Class("Phi3ForCausalLM"),
            named("model.layers.0.self_attn.qkv_proj"),
        ),
        miss("V18 queries alone", ("vllm", "names"), Base::Llama, only(&["q_proj"])),
        hit(
            "V20",
            ("vllm", "towers", IGNORED),
            Base::Class("Qwen3VLForConditionalGeneration"),
            eyes(),
        ),
        miss(
            "V20",
            ("vllm", "towers"),
            QWEN_VL,
            named("model.language_model.layers.0.self_attn.o_proj"),
        ),
        hit(
            "V21",
            ("vllm", "skipped", IGNORED),
            Base::Class("NemotronHForCausalLM"),
            named("mtp.layers.0.mixer.q_proj"),
        ),
        hit(
            "V27",
            ("vllm", "skipped", IGNORED),
            Base::Class("NemotronHForCausalLM"),
            named("model.layers.0.mixer.gate"),
        ),
        miss(
            "V27 a router elsewhere",
            ("vllm", "skipped"),
            Base::Class("Qwen3MoeForCausalLM"),
            named("model.layers.0.mlp.gate"),
        ),
        hit(
            "V22",
            ("vllm@0.32", "names", IGNORED),
            Base::Class("Qwen3VLForConditionalGeneration"),
            named("model.layers.0.self_attn.q_proj"),
        ),
        miss(
            "V22",
            ("vllm@0.33", "names"),
            Base::Class("Qwen3VLForConditionalGeneration"),
            named("model.layers.0.self_attn.q_proj"),
        ),
    ]);
}

#[test]
fn vllm_reads_experts_as_it_does() {
    judged(&[
        hit("V23", ("vllm", "single-experts", REFUSED), GPT_OSS, experts(|_, _| RANK, PLAIN)),
        miss("V23", ("vllm", "single-experts"), QWEN_MOE, experts(|_, _| RANK, PLAIN)),
        hit("V24 stacks", ("vllm", "stacked-experts", REFUSED), QWEN_MOE, stacks()),
        hit(
            "V24 some",
            ("vllm", "all-experts", REFUSED),
            QWEN_MOE,
            experts(|expert, _| if expert == 3 { 0 } else { RANK }, PLAIN),
        ),
        hit(
            "V24 two of three",
            ("vllm", "all-experts", REFUSED),
            QWEN_MOE,
            experts(|_, name| if name == "up_proj" { 0 } else { RANK }, PLAIN),
        ),
        miss("V24 all", ("vllm", "all-experts"), QWEN_MOE, experts(|_, _| RANK, PLAIN)),
        hit(
            "V24 ranks",
            ("vllm", "expert-ranks", REFUSED),
            QWEN_MOE,
            experts(|expert, _| if expert == 3 { 2 } else { RANK }, PLAIN)
                .field("rank_pattern", json!({ ".*experts.3.*": 2 })),
        ),
        miss(
            "V24 a rank a projection",
            ("vllm", "expert-ranks"),
            QWEN_MOE,
            experts(|_, name| if name == "up_proj" { 2 } else { RANK }, PLAIN)
                .field("rank_pattern", json!({ "up_proj": 2 })),
        ),
        hit("V26", ("vllm", "joint-experts", REFUSED), QWEN_MOE, joint()),
        miss("V26", ("vllm", "joint-experts"), QWEN_MOE, experts(|_, _| RANK, PLAIN)),
    ]);
}

/// V25: since 0.24 a server can be started for both forms.
#[test]
fn vllm_says_the_flag_for_the_other_form_of_experts() {
    let scratch = tempfile::tempdir().expect("a directory");
    for (program, flag) in [("vllm@0.23", false), ("vllm@0.24", true)] {
        for (rule, base, adapter) in [
            ("stacked-experts", QWEN_MOE, stacks()),
            ("single-experts", GPT_OSS, experts(|_, _| RANK, PLAIN)),
        ] {
            let case = hit("V25", (program, rule, REFUSED), base, adapter);
            let found = findings(&case, scratch.path());
            let own = found.iter().find(|finding| finding["rule"] == rule).expect("it is found");
            let says = own["says"].as_str().expect("a text");
            assert_eq!(says.contains("--enable-mixed-moe-lora-format"), flag, "{program}: {says}");
        }
    }
}
