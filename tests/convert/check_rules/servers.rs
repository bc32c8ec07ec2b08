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
    ]);
}

/// S2: tokens beside the adapter.
#[test]
fn sglang_refuses_tokens_that_the_base_does_not_have() {
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
        hit("T2", ("tensorrt-llm", "expert-names", IGNORED), none, experts(|_, _| RANK, PLAIN)),
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
        ]);
    }
    judged(&cases);
}
