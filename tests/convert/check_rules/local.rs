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
        hit(
            "L1 PiSSA",
            ("llama.cpp", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
        hit(
            "L2 norms",
            ("llama.cpp", "norms", IGNORED),
            none,
            whole().field("modules_to_save", json!(["input_layernorm"])).tensor(
                "model.layers.0.input_layernorm.weight",
                &[64],
                &[1.5; 64],
            ),
        ),
        miss("L2 norms", ("llama.cpp", "norms"), none, saved("lm_head", 48)),
        miss("L2 the head", ("llama.cpp", "replaced"), none, whole()),
        hit(
            "L2 beside factors",
            ("llama.cpp", "base-layers", IGNORED),
            none,
            embeddings(whole(), 48).tensor(
                "model.embed_tokens.base_layer.weight",
                &[48, 64],
                &[0.5; 48 * 64],
            ),
        ),
        miss("L2 beside factors", ("llama.cpp", "base-layers"), none, embeddings(whole(), 48)),
        hit("L2 a name", ("llama.cpp", "tensor-names", REFUSED), none, called(whole())),
        miss("L2 a name", ("llama.cpp", "tensor-names"), none, whole()),
        hit("L2 a bias", ("llama.cpp", "bias", REFUSED), none, biased()),
        hit(
            "L3 the config",
            ("llama.cpp", "tied-head", REFUSED),
            Base::Config(r#"{"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": true}"#),
            head(),
        ),
        hit(
            "L4 other tokens",
            ("llama.cpp", "base", REFUSED),
            Base::Llama,
            embeddings(whole(), 50),
        ),
        hit(
            "L6 no such layer",
            ("llama.cpp", "base", REFUSED),
            Base::Llama,
            named("model.language_model.layers.7.self_attn.q_proj"),
        ),
        miss(
            "L9",
            ("llama.cpp", "variant"),
            none,
            whole().field("alora_invocation_tokens", json!([1, 2])),
        ),
        hit(
            "O2 what it is not",
            ("ollama", "architecture", REFUSED),
            Base::Class("Gemma3ForCausalLM"),
            whole(),
        ),
        hit("O3", ("ollama", "names", REFUSED), Base::Class("Gemma2ForCausalLM"), head()),
        hit(
            "O3 another root",
            ("ollama", "names", REFUSED),
            Base::Class("Gemma2ForCausalLM"),
            named("model.language_model.layers.0.self_attn.q_proj"),
        ),
        miss("O3", ("ollama", "names"), Base::Class("Gemma2ForCausalLM"), whole()),
        right("O3", "ollama", Base::Class("Gemma2ForCausalLM"), whole().field("lora_alpha", 8)),
        hit(
            "O4 DoRA",
            ("ollama", "dora", REFUSED),
            Base::Class("Gemma2ForCausalLM"),
            magnitudes(whole()),
        ),
        hit(
            "O4 the scale of mlx",
            ("ollama", "scale", SCALED),
            Base::Class("Gemma2ForCausalLM"),
            mlx(&MLX, 20.0),
        ),
        miss(
            "O4 the scale of mlx",
            ("ollama", "scale"),
            Base::Class("Gemma2ForCausalLM"),
            mlx(&MLX, 1.0),
        ),
        hit(
            "O4 PiSSA",
            ("ollama", "initialisation", CHANGED),
            Base::Class("Gemma2ForCausalLM"),
            whole().field("init_lora_weights", "pissa"),
        ),
    ]);
}

/// A bias of B.
fn biased() -> Peft {
    let name = "model.layers.0.self_attn.q_proj.lora_B.bias";
    whole().field("lora_bias", true).tensor(name, &[64], &[0.5; 64])
}

/// A module of mlx-lm's: name, inputs, outputs, rank.
type Own = (&'static str, usize, usize, usize);

const MLX: [Own; 2] = [
    ("model.layers.0.self_attn.q_proj", 64, 64, RANK),
    ("model.layers.1.self_attn.q_proj", 64, 64, RANK),
];

/// An adapter of mlx-lm's of all layers.
fn mlx(modules: &[Own], scale: f64) -> Made {
    mlx_of(
        modules,
        json!({
            "fine_tune_type": "lora", "num_layers": 2,
            "lora_parameters": { "rank": RANK, "scale": scale, "dropout": 0.0 },
        }),
    )
}

fn mlx_of(modules: &[Own], config: Value) -> Made {
    let mut random = Random::new(12);
    let tensors = modules.iter().fold(Tensors::new(), |tensors, (name, inputs, outputs, rank)| {
        let (a, b) = (random.values(inputs * rank, 1.0), random.values(rank * outputs, 1.0));
        tensors.f32(&format!("{name}.lora_a"), &[*inputs, *rank], &a).f32(
            &format!("{name}.lora_b"),
            &[*rank, *outputs],
            &b,
        )
    });
    Made::Directory(config, "adapters.safetensors", tensors)
}

/// GGUF adapters, which llama.cpp and Ollama read themselves: of their base right, of another refused.
#[test]
fn a_gguf_adapter_is_for_one_architecture() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = whole().save(&scratch.path().join("adapter"));
    let gguf = scratch.path().join("adapter.gguf");
    let mut command = lora_tool();
    command.arg("convert").arg(&adapter).args(["--for", "llama.cpp", "--reference"]);
    command.arg(fixture("llama/base")).arg("-o").arg(&gguf).assert().success();
    let other = Base::Config(r#"{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}"#);
    let path = || Made::Path(gguf.clone());
    let cases = ["llama.cpp", "ollama"].map(|program| {
        [
            right("L7 O1", program, Base::Llama, path()),
            hit("L7 O1", (program, "architecture", REFUSED), other, path()),
        ]
    });
    judged(cases.as_flattened());
    // L8: the rows of queries and keys depend on the base's heads, so that the fix asks for the base.
    let found = findings(
        &hit("L8", ("llama.cpp", "convention", REFUSED), Base::Llama, whole()),
        scratch.path(),
    );
    let fix = found.iter().find_map(|finding| finding["fix"].as_str()).expect("a fix");
    assert!(fix.contains("--reference"), "{fix}");
}

#[test]
fn mlx_does_as_it_does() {
    let none = Base::None;
    let outer: [Own; 1] = [("language_model.model.layers.0.self_attn.q_proj", 64, 64, RANK)];
    let ranks: [Own; 2] = [MLX[0], ("model.layers.1.self_attn.q_proj", 64, 64, 2)];
    let lost: [Own; 1] = [("model.layers.9.self_attn.q_proj", 64, 64, RANK)];
    let lora = |own: Value, layers: i64| json!({ "fine_tune_type": "lora", "num_layers": layers, "lora_parameters": own });
    let plain = || json!({ "rank": RANK, "scale": 2.0, "dropout": 0.0 });
    let keys = |own: &str| json!({ "rank": RANK, "scale": 2.0, "dropout": 0.0, "keys": [own] });
    let dora = |name: &'static str| {
        let Made::Directory(mut config, file, tensors) = mlx(&[(name, 64, 64, RANK)], 2.0) else {
            panic!("a directory");
        };
        config["fine_tune_type"] = json!("dora");
        Made::Directory(config, file, tensors.f32(&format!("{name}.m"), &[64], &[1.0; 64]))
    };
    judged(&[
        right("X1", "mlx", Base::Llama, mlx(&MLX, 2.0)),
        hit(
            "X1 a field",
            ("mlx", "config", REFUSED),
            none,
            mlx_of(&MLX, lora(json!({ "rank": RANK, "scale": 2.0 }), 2)),
        ),
        miss("X1 a field", ("mlx", "config"), none, mlx(&MLX, 2.0)),
        hit(
            "X1 alpha for scale",
            ("mlx", "damaged-file", REFUSED),
            none,
            mlx_of(&MLX, lora(json!({ "rank": RANK, "alpha": 8.0, "dropout": 0.0 }), 2)),
        ),
        hit("X2", ("mlx", "names", REFUSED), Base::Llama, mlx(&lost, 2.0)),
        hit("X2 older", ("mlx@0.31.2", "names", IGNORED), Base::Llama, mlx(&lost, 2.0)),
        miss("X2", ("mlx", "names"), Base::Llama, mlx(&MLX, 2.0)),
        hit("X2 a wrapper", ("mlx", "wrapped", REFUSED), QWEN_VL, mlx(&MLX[..1], 2.0)),
        hit(
            "X2 a wrapper, older",
            ("mlx@0.31.2", "wrapped", IGNORED),
            QWEN_VL,
            mlx(&MLX[..1], 2.0),
        ),
        miss("X2 a wrapper", ("mlx", "wrapped"), QWEN_VL, mlx(&outer, 2.0)),
        hit("X3 ranks", ("mlx", "ranks", REFUSED), none, mlx(&ranks, 2.0)),
        miss("X3 ranks", ("mlx", "ranks"), none, mlx(&MLX, 2.0)),
        hit("X3 the config's rank", ("mlx", "ranks", REFUSED), none, {
            mlx_of(&MLX, lora(json!({ "rank": 8, "scale": 2.0, "dropout": 0.0 }), 2))
        }),
        hit("X3 layers", ("mlx", "layers", REFUSED), Base::Llama, mlx_of(&MLX, lora(plain(), 1))),
        hit(
            "X3 layers, older",
            ("mlx@0.31.2", "layers", IGNORED),
            Base::Llama,
            mlx_of(&MLX, lora(plain(), 1)),
        ),
        miss("X3 the last", ("mlx", "layers"), Base::Llama, mlx_of(&MLX[1..], lora(plain(), 1))),
        miss("X3 all", ("mlx", "layers"), Base::Llama, mlx_of(&MLX, lora(plain(), -1))),
        hit(
            "X3 keys",
            ("mlx", "layers", REFUSED),
            none,
            mlx_of(&MLX, lora(keys("self_attn.v_proj"), 2)),
        ),
        miss("X3 keys", ("mlx", "layers"), none, mlx_of(&MLX, lora(keys("self_attn.q_proj"), 2))),
        hit("X4 no magnitudes", ("mlx", "magnitudes", CHANGED), none, {
            let mut config = lora(plain(), 2);
            config["fine_tune_type"] = json!("dora");
            mlx_of(&MLX, config)
        }),
        hit("X4 magnitudes of no DoRA", ("mlx", "magnitudes", REFUSED), none, {
            let Made::Directory(mut config, file, tensors) = dora(MLX[0].0) else {
                panic!("a directory");
            };
            config["fine_tune_type"] = json!("lora");
            Made::Directory(config, file, tensors)
        }),
        miss("X4 magnitudes", ("mlx", "magnitudes"), none, dora(MLX[0].0)),
        miss("X4", ("mlx", "dora-experts"), none, dora("model.layers.0.self_attn.q_proj")),
    ]);
}

#[test]
fn peft_mlx_and_openvino_do_as_they_do() {
    let none = Base::None;
    let fields: [(&'static str, &'static str, &'static str, Value); 9] = [
        (
            "peft@0.4",
            "peft@0.6",
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
        hit("P2", ("peft", "alphas", SCALED), none, alphas(32.0)),
        hit("P2 of a server", ("sglang", "scale", SCALED), none, alphas(32.0)),
        right("P2 the same alpha", "peft", none, alphas(8.0)),
        hit("P3", ("peft", "faulty-module", REFUSED), none, whole().field("r", 8)),
        miss(
            "P3",
            ("peft", "faulty-module"),
            none,
            whole().field("r", 8).field("rank_pattern", json!({ ".*": RANK })),
        ),
        hit("P6", ("peft", "magnitudes", CHANGED), none, whole().field("use_dora", true)),
        miss("P6", ("peft", "magnitudes"), none, magnitudes(whole())),
        hit("P1 no prefix", ("peft", "tensor-names", IGNORED), Base::Llama, bare(whole())),
        miss("P1 no prefix", ("peft", "tensor-names"), Base::Llama, whole()),
        right("P2 a name", "peft", Base::Llama, called(whole())),
        right("P4 no alpha, which is 8", "peft", none, whole().field("lora_alpha", Value::Null)),
        hit(
            "P4 what nobody knows",
            ("peft", "unknown-adapter", UNKNOWN),
            none,
            whole().field("use_brand_new", true),
        ),
        hit(
            "P5 anchored",
            ("peft@0.12", "anchored patterns", CHANGED),
            none,
            whole().field("alpha_pattern", json!({ "^model.layers.0.mlp.up_proj": 4 })),
        ),
        miss(
            "P5 anchored",
            ("peft@0.14.0", "anchored patterns"),
            none,
            whole().field("alpha_pattern", json!({ "^model.layers.0.mlp.up_proj": 4 })),
        ),
        hit("P5 DoRA", ("peft@0.8.2", "use_dora", CHANGED), none, magnitudes(whole())),
        miss("P5 DoRA", ("peft@0.9.0", "use_dora"), none, magnitudes(whole())),
        hit("P5 tokens", ("peft@0.14.0", "trainable_token_indices", CHANGED), none, tokens()),
        miss("P5 tokens", ("peft@0.15.2", "trainable_token_indices"), none, tokens()),
        hit("P7 moved", ("peft@0.15.2", "names", IGNORED), QWEN_VL, moved()),
        miss("P7 moved", ("peft@0.16.0", "names"), QWEN_VL, moved()),
        hit("X1", ("mlx", "convention", REFUSED), none, whole()),
        hit("OV1", ("openvino", "scale", SCALED), none, whole()),
        miss("OV1", ("openvino", "scale"), none, whole().field("lora_alpha", RANK)),
        hit("OV1 rslora", ("openvino", "scale", SCALED), none, whole().field("use_rslora", true)),
        hit(
            "OV1 PiSSA",
            ("openvino", "initialisation", CHANGED),
            none,
            whole().field("init_lora_weights", "pissa"),
        ),
        hit("OV1 DoRA", ("openvino", "dora", CHANGED), none, magnitudes(whole())),
        hit("OV1 a bias", ("openvino", "bias", IGNORED), none, biased()),
        miss("OV2 the head", ("openvino", "replaced"), none, saved("lm_head", 48)),
        hit("OV2 another", ("openvino", "replaced", IGNORED), none, saved("score", 2)),
        hit("OV2 embeddings", ("openvino", "embeddings", IGNORED), none, embeddings(whole(), 48)),
        hit("OV2 experts", ("openvino", "experts", REFUSED), none, experts(|_, _| RANK, PLAIN)),
        hit("OV2 stacks", ("openvino", "stacked-experts", IGNORED), none, stacks()),
        hit("OV2 a name", ("openvino", "tensor-names", IGNORED), none, called(whole())),
        hit(
            "OV2 names",
            ("openvino", "names", IGNORED),
            Base::Llama,
            named("model.layers.9.self_attn.q_proj"),
        ),
        miss("OV2 names", ("openvino", "names"), Base::Llama, whole()),
        hit("OV2", ("openvino", "convolutions", REFUSED), none, convolution(3)),
        miss("OV2", ("openvino", "convolutions"), none, convolution(1)),
    ]);
    judged(&cases);
}

/// Rows of the embeddings.
fn tokens() -> Peft {
    whole().field("trainable_token_indices", json!({ "embed_tokens": [1, 2] })).tensor(
        "model.embed_tokens.token_adapter.trainable_tokens_delta",
        &[2, 64],
        &[0.5; 128],
    )
}

/// Names of the wrapper's other spelling, of which transformers' class maps the one to the other.
fn moved() -> Peft {
    with(Peft::new(RANK, 8.0), "language_model.model.layers.0.self_attn.q_proj", (32, 32), RANK)
}
