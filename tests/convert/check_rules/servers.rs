//! SGLang, TensorRT-LLM, LMDeploy, TGI and LoRAX.

use super::*;

#[test]
fn sglang_does_as_it_does() {
    let both = || {
        with(
            named("model.layers.0.self_attn.q_a_proj"),
            "model.layers.0.self_attn.kv_a_proj_with_mqa",
            (64, 12),
            RANK,
        )
    };
    let tower = || with(whole(), "model.visual.layers.0.self_attn.q_proj", (64, 64), RANK);
    let none = Base::None;
    judged(&[
        hit("S1 rslora", ("sglang", "scale", SCALED), none, whole().field("use_rslora", true)),
        hit(
            "S1 alphas",
            ("sglang", "scale", SCALED),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        miss(
            "S1 the same alphas",
            ("sglang", "scale"),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 8 })),
        ),
        hit(
            "S1 ranks",
            ("sglang", "ranks", REFUSED),
            none,
            with(whole(), "model.layers.2.mlp.gate_proj", (64, 96), 2)
                .field("rank_pattern", json!({ "layers.2.mlp.gate_proj": 2 })),
        ),
        miss("S1 ranks", ("sglang", "ranks"), none, whole()),
        hit("S3 DoRA", ("sglang", "dora", REFUSED), none, magnitudes(whole())),
        hit(
            "S3 PiSSA",
            ("sglang", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
        miss(
            "S3 eva",
            ("sglang", "initialisation"),
            none,
            whole().field("init_lora_weights", "eva"),
        ),
        hit("S3 whole modules", ("sglang", "replaced", IGNORED), none, saved("lm_head", 48)),
        hit("S4", ("sglang", "targets", REFUSED), none, whole().field("target_modules", ".*_proj")),
        miss("S4", ("sglang", "targets"), none, whole().field("target_modules", "all-linear")),
        hit("S5", ("sglang", "towers", ELSEWHERE), none, tower()),
        miss(
            "S5 towers without layers",
            ("sglang", "towers"),
            none,
            with(whole(), "model.visual.blocks.0.attn.qkv", (64, 64), RANK),
        ),
        hit(
            "S5 outside layers",
            ("sglang", "outside-layers", IGNORED),
            none,
            named("model.visual.blocks.0.attn.qkv"),
        ),
        miss("S5 in layers", ("sglang", "outside-layers"), none, whole()),
        hit(
            "S6 queries",
            ("sglang", "query-without-value", REFUSED),
            none,
            only(&["q_proj", "k_proj"]),
        ),
        miss(
            "S6 queries and values",
            ("sglang", "query-without-value"),
            none,
            only(&["q_proj", "v_proj"]),
        ),
        hit("S6 values", ("sglang", "value-without-query", IGNORED), none, only(&["v_proj"])),
        miss("S6 values", ("sglang", "value-without-query"), none, only(&["q_proj", "v_proj"])),
        hit("S7", ("sglang", "up-without-gate", IGNORED), none, only(&["up_proj"])),
        miss("S7 gates", ("sglang", "up-without-gate"), none, only(&["gate_proj"])),
        miss("S8", ("sglang", "outside-layers"), none, named("model.layers.0.self_attn.qkv_proj")),
        hit("S9", ("sglang", "stacked-experts", IGNORED), QWEN_MOE, stacks()),
        miss("S9", ("sglang", "stacked-experts"), QWEN_MOE, experts(|_, _| RANK, PLAIN)),
        miss("S9 shared", ("sglang", "stacked-experts"), QWEN_MOE, joint()),
        hit("S10", ("sglang", "embeddings", IGNORED), none, embeddings(whole(), 48)),
        miss(
            "S10",
            ("sglang", "embeddings"),
            none,
            embeddings(whole(), 48).field("target_modules", json!(["q_proj", "embed_tokens"])),
        ),
        hit(
            "S11",
            ("sglang", "latent-queries", REFUSED),
            none,
            named("model.layers.0.self_attn.q_a_proj"),
        ),
        miss("S11", ("sglang", "latent-queries"), none, both()),
        miss(
            "S11 a model without q_a_proj",
            ("sglang", "latent-queries"),
            none,
            named("model.layers.0.self_attn.kv_a_proj_with_mqa"),
        ),
        hit("S3 the field", ("sglang", "dora", REFUSED), none, whole().field("use_dora", true)),
        hit("S3 a bias", ("sglang", "bias", IGNORED), none, biased()),
        miss("S3 a bias", ("sglang", "bias"), none, whole()),
        hit(
            "S4 nothing",
            ("sglang", "targets", REFUSED),
            none,
            whole().field("target_modules", Value::Null),
        ),
        right("S5 every spelling", "sglang", none, both_layers("model.language_model.layers")),
        right("S5 every spelling", "sglang", none, both_layers("language_model.model.layers")),
        miss(
            "S6 keys may be missing",
            ("sglang", "query-without-value"),
            none,
            only(&["q_proj", "v_proj", "o_proj"]),
        ),
        hit("S6 keys", ("sglang", "value-without-query", IGNORED), none, only(&["k_proj"])),
        right(
            "S8",
            "sglang",
            none,
            with(
                with(
                    named("model.layers.0.self_attn.qkv_proj"),
                    "model.layers.0.mlp.gate_up_proj",
                    (64, 64),
                    RANK,
                ),
                "model.layers.0.linear_attn.in_proj_qkvz",
                (64, 64),
                RANK,
            ),
        ),
        miss(
            "S10 another name",
            ("sglang", "embeddings"),
            none,
            head().field("target_modules", json!(["q_proj", "unembed_tokens"])),
        ),
        hit("S a name", ("sglang", "tensor-names", IGNORED), none, called(whole())),
        miss("S a name", ("sglang", "tensor-names"), none, whole()),
    ]);
}

/// A bias of B.
fn biased() -> Peft {
    let name = "model.layers.0.self_attn.q_proj.lora_B.bias";
    whole().field("lora_bias", true).tensor(name, &[64], &[0.5; 64])
}

/// Every projection of two layers below another root.
fn both_layers(root: &str) -> Peft {
    (0..2).fold(Peft::new(RANK, 8.0), |adapter, layer| {
        PROJECTIONS.iter().fold(adapter, |adapter, (name, inputs, outputs)| {
            with(adapter, &format!("{root}.{layer}.{name}"), (*inputs, *outputs), RANK)
        })
    })
}

/// S2: tokens beside the adapter; without a base nobody knows.
#[test]
fn sglang_refuses_tokens_that_the_base_does_not_have() {
    for number in [47, 48] {
        let scratch = tempfile::tempdir().expect("a directory");
        let adapter = whole().save(&scratch.path().join("adapter"));
        let tokens = json!({ "<new>": number }).to_string();
        std::fs::write(adapter.join("added_tokens.json"), tokens).expect("written");
        let mut command = lora_tool();
        command.arg("check").arg(&adapter).args(["--for", "sglang"]).assert().code(2);
    }
    for (number, refused) in [(48, true), (47, false)] {
        let scratch = tempfile::tempdir().expect("a directory");
        let adapter = whole().save(&scratch.path().join("adapter"));
        let tokens = json!({ "<new>": number }).to_string();
        std::fs::write(adapter.join("added_tokens.json"), tokens).expect("written");
        let mut command = lora_tool();
        command.arg("check").arg(&adapter).args(["--for", "sglang", "--against"]);
        command.arg(fixture("llama/base")).assert().code(i32::from(refused));
    }
}

#[test]
fn tensorrt_llm_does_as_it_does() {
    let none = Base::None;
    let ranked = || {
        let adapter = with(whole(), "model.layers.2.mlp.gate_proj", (64, 96), 2);
        adapter.field("rank_pattern", json!({ "layers.2.mlp.gate_proj": 2 }))
    };
    judged(&[
        hit(
            "T1",
            ("tensorrt-llm", "names", REFUSED),
            none,
            with(whole(), "model.layers.0.mixer.in_proj", (64, 64), RANK),
        ),
        miss("T1", ("tensorrt-llm", "names"), none, whole()),
        hit("T1 the head", ("tensorrt-llm", "embeddings", IGNORED), none, head()),
        hit("T2 stacks", ("tensorrt-llm", "stacked-experts", REFUSED), none, stacks()),
        hit("T2", ("tensorrt-llm", "expert-names", REFUSED), none, experts(|_, _| RANK, PLAIN)),
        miss(
            "T2",
            ("tensorrt-llm", "expert-names"),
            none,
            experts(|_, _| RANK, ["w1", "w2", "w3"]),
        ),
        hit(
            "T3",
            ("tensorrt-llm", "scale", SCALED),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        miss("T3 rslora", ("tensorrt-llm", "scale"), none, whole().field("use_rslora", true)),
        miss("T3 ranks", ("tensorrt-llm", "scale"), none, ranked()),
        miss("T4", ("tensorrt-llm", "family"), none, magnitudes(whole())),
        miss("T5", ("tensorrt-llm", "names"), none, named("model.layers.0.mlp.gate_up_proj")),
        hit(
            "T6",
            ("tensorrt-llm", "incomplete-attention", REFUSED),
            none,
            only(&["q_proj", "v_proj"]),
        ),
        miss(
            "T6 even heads",
            ("tensorrt-llm", "incomplete-attention"),
            Base::EvenHeads,
            only(&["q_proj", "v_proj"]),
        ),
        miss(
            "T6 all three",
            ("tensorrt-llm", "incomplete-attention"),
            none,
            only(&["q_proj", "k_proj", "v_proj"]),
        ),
        hit("T7", ("tensorrt-llm", "replaced", IGNORED), none, saved("lm_head", 48)),
        miss("T7", ("tensorrt-llm", "replaced"), none, head()),
        hit("T1 no layer", ("tensorrt-llm", "names", REFUSED), none, named("self_attn.q_proj")),
        hit(
            "T1 no parent",
            ("tensorrt-llm", "names", REFUSED),
            none,
            named("model.layers.0.q_proj"),
        ),
        right("T1 any prefix", "tensorrt-llm", none, bare(whole())),
        hit("T1 a name", ("tensorrt-llm", "tensor-names", REFUSED), none, called(whole())),
        miss("T1 a name", ("tensorrt-llm", "tensor-names"), none, whole()),
        hit(
            "T2 fused",
            ("tensorrt-llm", "names", REFUSED),
            none,
            named("model.layers.0.self_attn.qkv_proj"),
        ),
        right("T2 a router", "tensorrt-llm", none, named("model.layers.0.mlp.gate")),
        right("T4", "tensorrt-llm", none, magnitudes(whole())),
        hit(
            "T4 experts",
            ("tensorrt-llm", "dora-experts", REFUSED),
            none,
            experts(|_, _| RANK, ["w1", "w2", "w3"]).field("use_dora", true).tensor(
                "model.layers.0.mlp.experts.0.w1.lora_magnitude_vector",
                &[16],
                &[1.0; 16],
            ),
        ),
        right("T5", "tensorrt-llm", none, named("model.layers.0.mlp.gate_up_proj")),
        hit("T a bias", ("tensorrt-llm", "bias", REFUSED), none, biased()),
        hit(
            "T PiSSA",
            ("tensorrt-llm", "variant", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
    ]);
}

#[test]
fn lmdeploy_tgi_and_lorax_do_as_they_do() {
    let other = || named("model.language_model.layers.0.self_attn.q_proj");
    let none = Base::None;
    let first = |layer: usize, _: &str| layer == 0;
    let mut cases = vec![
        hit("LM1", ("lmdeploy", "names", REFUSED), Base::Llama, other()),
        miss("LM1", ("lmdeploy", "names"), Base::Llama, whole()),
        hit("LM2", ("lmdeploy", "scale", SCALED), none, whole().field("use_rslora", true)),
        miss("LM2", ("lmdeploy", "scale"), none, whole()),
        hit(
            "LM3",
            ("lmdeploy", "targets", IGNORED),
            none,
            whole().field("target_modules", ".*_proj"),
        ),
        miss("LM3", ("lmdeploy", "targets"), none, whole()),
        hit("LM experts", ("lmdeploy", "experts", REFUSED), none, experts(|_, _| RANK, PLAIN)),
        hit("LM1 no prefix", ("lmdeploy", "tensor-names", REFUSED), Base::Llama, bare(whole())),
        hit("LM1 a name", ("lmdeploy", "tensor-names", REFUSED), none, called(whole())),
        miss("LM1", ("lmdeploy", "tensor-names"), Base::Llama, whole()),
        hit(
            "LM1 no such",
            ("lmdeploy", "names", REFUSED),
            Base::Llama,
            named("model.layers.9.self_attn.q_proj"),
        ),
        hit("LM1 DoRA", ("lmdeploy", "dora", REFUSED), none, magnitudes(whole())),
        hit("LM1 whole", ("lmdeploy", "replaced", REFUSED), none, saved("lm_head", 48)),
        hit("LM1 embeddings", ("lmdeploy", "embeddings", REFUSED), none, embeddings(whole(), 48)),
        hit(
            "LM2 alphas",
            ("lmdeploy", "scale", SCALED),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        hit(
            "LM2 ranks",
            ("lmdeploy", "ranks", REFUSED),
            none,
            with(whole(), "model.layers.2.mlp.gate_proj", (64, 96), 2)
                .field("rank_pattern", json!({ "layers.2.mlp.gate_proj": 2 })),
        ),
        miss("LM2 ranks", ("lmdeploy", "ranks"), none, whole()),
        hit("LM4", ("lmdeploy", "needs", NOTE), none, whole()),
        miss("LM4", ("vllm", "needs"), none, whole()),
        hit(
            "LM PiSSA",
            ("lmdeploy", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
    ];
    for program in ["tgi", "lorax"] {
        cases.extend([
            hit("TG1", (program, "names", IGNORED), Base::Llama, other()),
            miss("TG1", (program, "names"), Base::Llama, whole()),
            hit(
                "TG2",
                (program, "scale", SCALED),
                none,
                whole().field("alpha_pattern", json!({ "q_proj": 32 })),
            ),
            miss("TG2 rslora", (program, "scale"), none, whole().field("use_rslora", true)),
            hit(
                "TG2 ranks of layers",
                (program, "ranks", REFUSED),
                none,
                with(whole(), "model.layers.2.mlp.gate_proj", (64, 96), 2)
                    .field("rank_pattern", json!({ "layers.2.mlp.gate_proj": 2 })),
            ),
            miss("TG2 ranks", (program, "ranks"), none, whole()),
            hit("TG3", (program, "missing-layers", IGNORED), Base::Llama, of(first)),
            miss("TG3", (program, "missing-layers"), Base::Llama, only(&["q_proj"])),
            hit("TG4", (program, "dora", CHANGED), none, magnitudes(whole())),
            hit("TG4 whole modules", (program, "replaced", IGNORED), none, saved("lm_head", 48)),
            hit("TG4 embeddings", (program, "embeddings", IGNORED), none, embeddings(whole(), 48)),
            miss("TG4 the head", (program, "embeddings"), none, head()),
            hit("TG4 a bias", (program, "bias", IGNORED), none, biased()),
            right("TG4", program, Base::Llama, whole()),
            hit("TG1 no prefix", (program, "tensor-names", IGNORED), Base::Llama, bare(whole())),
            hit("TG1 a name", (program, "tensor-names", IGNORED), none, called(whole())),
            miss("TG1 a name", (program, "tensor-names"), none, whole()),
            hit("TG experts", (program, "experts", REFUSED), none, experts(|_, _| RANK, PLAIN)),
            hit("TG stacks", (program, "stacked-experts", IGNORED), none, stacks()),
            hit(
                "TG3 without a base",
                (program, "missing-layers", IGNORED),
                none,
                of(|layer, _| layer == 1),
            ),
            miss("TG3 without a base", (program, "missing-layers"), none, whole()),
            hit(
                "TG PiSSA",
                (program, "initialisation", CHANGED),
                none,
                whole().field("init_lora_weights", "pissa"),
            ),
        ]);
    }
    judged(&cases);
}
