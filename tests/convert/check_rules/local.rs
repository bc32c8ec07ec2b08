//! llama.cpp, Ollama, PEFT, mlx-lm and OpenVINO GenAI.

use super::*;

#[test]
fn llama_cpp_and_ollama_do_as_they_do() {
    let none = Base::None;
    let ranked = || {
        let adapter = with(whole(), "model.layers.2.mlp.gate_proj", (64, 96), 2);
        adapter.field("rank_pattern", json!({ "layers.2.mlp.gate_proj": 2 }))
    };
    let latent = || named("model.layers.0.self_attn.kv_b_proj");
    judged(&[
        hit("L1 rslora", ("llama.cpp", "scale", SCALED), none, whole().field("use_rslora", true)),
        hit(
            "L1 alphas",
            ("llama.cpp", "scale", SCALED),
            none,
            whole().field("alpha_pattern", json!({ "q_proj": 32 })),
        ),
        miss("L1 ranks", ("llama.cpp", "scale"), none, ranked()),
        hit("L2", ("llama.cpp", "replaced", REFUSED), none, saved("lm_head", 48)),
        hit("L2 magnitudes", ("llama.cpp", "dora", REFUSED), none, magnitudes(whole())),
        hit(
            "L3",
            ("llama.cpp", "tied-head", REFUSED),
            Base::Tied,
            with(only(&[]), "lm_head", (64, 48), RANK),
        ),
        miss("L3", ("llama.cpp", "tied-head"), Base::Llama, head()),
        miss(
            "L3 without",
            ("llama.cpp", "tied-head"),
            Base::Tied,
            named("model.layers.0.self_attn.q_proj"),
        ),
        miss("L4", ("llama.cpp", "base"), Base::Llama, embeddings(whole(), 48)),
        hit("L5 stacks", ("llama.cpp", "stacked-experts", REFUSED), QWEN_MOE, stacks()),
        hit(
            "L5",
            ("llama.cpp", "all-experts", REFUSED),
            QWEN_MOE,
            experts(|expert, _| if expert == 3 { 0 } else { RANK }, PLAIN),
        ),
        miss("L5", ("llama.cpp", "all-experts"), QWEN_MOE, experts(|_, _| RANK, PLAIN)),
        miss(
            "L6",
            ("llama.cpp", "base"),
            Base::Llama,
            named("model.language_model.layers.0.self_attn.q_proj"),
        ),
        hit(
            "L7",
            ("llama.cpp", "base", REFUSED),
            Base::Llama,
            named("model.layers.9.self_attn.q_proj"),
        ),
        hit(
            "L latent keys",
            ("llama.cpp", "latent-keys", IGNORED),
            Base::Class("DeepseekV3ForCausalLM"),
            latent(),
        ),
        miss(
            "L latent keys",
            ("llama.cpp", "latent-keys"),
            Base::Class("DeepseekV3ForCausalLM"),
            named("model.layers.0.self_attn.o_proj"),
        ),
        hit("O2", ("ollama", "architecture", REFUSED), Base::Class("Qwen2ForCausalLM"), whole()),
        miss("O2", ("ollama", "architecture"), Base::Class("Gemma2ForCausalLM"), whole()),
        hit("O2 which base", ("ollama", "architecture", "unknown"), none, whole()),
        hit(
            "O4",
            ("ollama", "alpha", REFUSED),
            Base::Class("Gemma2ForCausalLM"),
            whole().field("lora_alpha", 8.0),
        ),
        miss(
            "O4",
            ("ollama", "alpha"),
            Base::Class("Gemma2ForCausalLM"),
            whole().field("lora_alpha", 8),
        ),
        hit(
            "O4 rslora",
            ("ollama", "scale", SCALED),
            Base::Class("Gemma2ForCausalLM"),
            whole().field("use_rslora", true),
        ),
        hit("O5", ("ollama", "query-rows", ELSEWHERE), Base::Class("LlamaForCausalLM"), whole()),
        miss(
            "O5 no queries",
            ("ollama", "query-rows"),
            Base::Class("LlamaForCausalLM"),
            only(&["v_proj"]),
        ),
        miss("O5", ("ollama", "query-rows"), Base::Class("Gemma2ForCausalLM"), whole()),
    ]);
}

#[test]
fn peft_mlx_and_openvino_do_as_they_do() {
    let none = Base::None;
    let fields: [(&'static str, &'static str, &'static str, Value); 9] = [
        (
            "peft@0.7",
            "peft@0.8.2",
            "rank_pattern and alpha_pattern",
            json!({ "alpha_pattern": { "q_proj": 32 } }),
        ),
        ("peft@0.7", "peft@0.8.2", "use_rslora", json!({ "use_rslora": true })),
        ("peft@0.9", "peft@0.10.0", "layer_replication", json!({ "layer_replication": [[0, 2]] })),
        ("peft@0.12", "peft@0.14.0", "lora_bias", json!({ "lora_bias": true })),
        (
            "peft@0.16",
            "peft@0.17.1",
            "target_parameters",
            json!({ "target_parameters": ["x.weight"] }),
        ),
        (
            "peft@0.17",
            "peft@0.18.1",
            "fields of newer releases",
            json!({ "alora_invocation_tokens": [1] }),
        ),
        ("peft@0.15", "peft@0.16.0", "use_qalora", json!({ "use_qalora": true })),
        ("peft@0.18", "peft@0.19.1", "use_bdlora", json!({ "use_bdlora": true })),
        ("peft@0.20", "peft@0.21.2", "kasa_config", json!({ "kasa_config": { "a": 1 } })),
    ];
    let mut cases = Vec::new();
    for (older, newer, rule, set) in &fields {
        let adapter = || {
            let set = set.as_object().expect("fields").clone();
            set.into_iter().fold(whole(), |adapter, (name, value)| adapter.field(&name, value))
        };
        cases.push(hit("P5", (older, rule, CHANGED), none, adapter()));
        cases.push(miss("P5", (newer, rule), none, adapter()));
    }
    // A config without lora_alpha: PEFT takes 8.
    let alphas = |alpha: f32| {
        let adapter = named("model.layers.0.self_attn.q_proj").field("lora_alpha", Value::Null);
        adapter.tensor("model.layers.0.self_attn.q_proj.alpha", &[1], &[alpha])
    };
    let convolution = |size: usize| {
        let values = |count: usize| Random::new(4).values(count, 1.0);
        whole()
            .tensor(
                "unet.conv.lora_A.weight",
                &[RANK, 8, size, size],
                &values(RANK * 8 * size * size),
            )
            .tensor("unet.conv.lora_B.weight", &[8, RANK, 1, 1], &values(RANK * 8))
    };
    cases.extend([
        hit(
            "P1",
            ("peft", "names", IGNORED),
            Base::Llama,
            named("model.language_model.layers.0.self_attn.q_proj"),
        ),
        miss("P1", ("peft", "names"), Base::Llama, whole()),
        // What says two alphas, or two ranks, is no sound adapter for any program.
        hit("P2", ("peft", "faulty-module", REFUSED), none, alphas(32.0)),
        miss("P2 the same alpha", ("peft", "faulty-module"), none, alphas(8.0)),
        hit("P3", ("peft", "faulty-module", REFUSED), none, whole().field("r", 8)),
        miss(
            "P3",
            ("peft", "faulty-module"),
            none,
            whole().field("r", 8).field("rank_pattern", json!({ ".*": RANK })),
        ),
        hit("P6", ("peft", "magnitudes", CHANGED), none, whole().field("use_dora", true)),
        miss("P6", ("peft", "magnitudes"), none, magnitudes(whole())),
        hit("X1", ("mlx", "convention", REFUSED), none, whole()),
        hit("OV1", ("openvino", "scale", SCALED), none, whole()),
        miss("OV1", ("openvino", "scale"), none, whole().field("lora_alpha", RANK)),
        hit("OV2", ("openvino", "convolutions", REFUSED), none, convolution(3)),
        miss("OV2", ("openvino", "convolutions"), none, convolution(1)),
    ]);
    judged(&cases);
}
