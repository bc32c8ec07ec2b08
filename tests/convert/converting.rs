//! Conversions: there and back is the same update, and what cannot be carried is refused by name.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;

use crate::common::bench::Bench;
use crate::common::deltas::Deltas;
use crate::common::{Peft, Random, Tensors, fixture, lora_tool, read};
use lora_tool::adapter::{Adapter, OpenOptions};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

/// Llama's modules: names, outputs, inputs.
const LLAMA: [(&str, usize, usize); 4] = [
    ("model.layers.0.self_attn.q_proj", 16, 8),
    ("model.layers.0.self_attn.k_proj", 8, 8),
    ("model.layers.1.mlp.down_proj", 8, 12),
    ("lm_head", 20, 8),
];

/// A directory with the config of a small Llama.
fn llama() -> Bench {
    let bench = Bench::new();
    let config = json!({
        "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    std::fs::create_dir(bench.path("base")).expect("made");
    std::fs::write(bench.path("base/config.json"), config.to_string()).expect("written");
    bench
}

/// A PEFT adapter with two ranks and two alphas.
fn peft(bench: &Bench, dtype: Dtype) -> PathBuf {
    let mut random = Random::new(7);
    let mut peft = Peft::new(4, 8.0)
        .field("rank_pattern", json!({"down_proj": 2}))
        .field("alpha_pattern", json!({"down_proj": 3.0, "lm_head": 2.0}));
    for (module, outputs, inputs) in LLAMA {
        let rank = if module.ends_with("down_proj") { 2 } else { 4 };
        let key = |part: &str| format!("base_model.model.{module}.{part}.weight");
        let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 1.0));
        peft.tensors = peft.tensors.float(&key("lora_A"), dtype, &[rank, inputs], &down).float(
            &key("lora_B"),
            dtype,
            &[outputs, rank],
            &up,
        );
    }
    peft.save(&bench.path("peft"))
}

/// llama.cpp has no tensor of a head that is the input embedding, and refuses an adapter that names one.
#[test]
fn a_tied_head_has_no_place_in_gguf() {
    let bench = llama();
    let config = json!({
        "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2,
        "tie_word_embeddings": true,
    });
    std::fs::write(bench.path("base/config.json"), config.to_string()).expect("written");
    let own = peft(&bench, Dtype::F32);
    for flags in ["--to gguf --reference base", "--for llama.cpp --reference base"] {
        let said = bench.refuse(&own, flags, "a.gguf");
        assert!(said.contains("lm_head") && said.contains("tie_word_embeddings"), "{said}");
        assert!(said.contains("--exclude lm_head"), "{said}");
    }
    // The fix that it names.
    let (code, said) = bench.run("resize", &[&own], "--rank lossless --exclude lm_head", "without");
    assert_eq!(code, Some(0), "{said}");
    bench.convert(&bench.path("without"), "--for llama.cpp --reference base", "b.gguf");
}

#[test]
fn language_models_go_there_and_back() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let bench = llama();
        let peft = peft(&bench, dtype);
        let original = Deltas::of(&peft);
        let mlx = bench.convert(&peft, "--to mlx", "mlx");
        Deltas::of(&mlx).close_to(&original, 1e-6);
        let config = std::fs::read(mlx.join("adapter_config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["fine_tune_type"], "lora");
        assert_eq!(config["lora_parameters"]["scale"], 2.0);
        let q = &read(&mlx.join("adapters.safetensors"))["model.layers.0.self_attn.q_proj.lora_a"];
        assert_eq!(q.shape, [8, 4]);
        let back = bench.convert(&mlx, "--to peft", "from-mlx");
        Deltas::of(&back).close_to(&original, 1e-6);
        let gguf = bench.convert(&peft, "--to gguf --reference base", "a.gguf");
        let back = bench.convert(&gguf, "--to peft --reference base", "from-gguf");
        Deltas::of(&back).close_to(&original, 1e-6);
        let vllm = bench.convert(&peft, "--for vllm", "vllm");
        Deltas::of(&vllm).close_to(&original, 1e-6);
        let config = std::fs::read(vllm.join("adapter_config.json")).expect("a config");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(8)));
        assert_eq!((&config["rank_pattern"], &config["alpha_pattern"]), (&json!({}), &json!({})));
    }
}

#[test]
fn only_names_change_where_that_is_all() {
    let bench = llama();
    let peft = peft(&bench, Dtype::BF16);
    let kohya = bench.convert(&peft, "--to kohya", "k.safetensors");
    let (before, after) = (read(&peft.join("adapter_model.safetensors")), read(&kohya));
    let (a, b) = (
        &before["base_model.model.lm_head.lora_B.weight"],
        &after["lora_unet_lm_head.lora_up.weight"],
    );
    assert_eq!(a, b);
    assert_eq!(after["lora_unet_lm_head.alpha"].values(), [2.0]);
    // Its hashes are kohya's: an edit of the header confirms them.
    let mut command = lora_tool();
    command.arg("metadata").arg(&kohya).args(["--set", "a=b", "-o"]);
    command.arg(bench.path("again.safetensors")).assert().success().stderr("");
}

/// A little U-Net and text encoder in diffusers' names, and a pipeline to take names from.
fn diffusers(bench: &Bench) -> PathBuf {
    let modules = [
        ("unet/down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 8, 4),
        ("unet/up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", 4, 8),
        ("text_encoder/text_model.encoder.layers.0.self_attn.q_proj", 6, 6),
    ];
    let mut random = Random::new(3);
    let mut tensors = Tensors::new();
    for component in ["unet", "text_encoder"] {
        let mut base = Tensors::new();
        for (path, outputs, inputs) in modules.iter().filter(|m| m.0.starts_with(component)) {
            let name = format!("{}.weight", path.split_once('/').expect("a component").1);
            base = base.f32(&name, &[*outputs, *inputs], &vec![0.0; outputs * inputs]);
        }
        base.save(&bench.path("pipeline").join(component).join("model.safetensors"));
    }
    for (path, outputs, inputs) in modules {
        let key = |part: &str| format!("{}.{part}.weight", path.replacen('/', ".", 1));
        tensors = tensors.f32(&key("lora_A"), &[2, inputs], &random.values(2 * inputs, 1.0)).f32(
            &key("lora_B"),
            &[outputs, 2],
            &random.values(2 * outputs, 1.0),
        );
    }
    let entry = json!({
        "unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 3},
        "text_encoder.r": 2, "text_encoder.lora_alpha": 1,
    });
    let metadata = tensors.metadata.as_mut().expect("metadata");
    metadata.insert("lora_adapter_metadata".to_owned(), entry.to_string());
    tensors.save(&bench.path("d.safetensors"))
}

#[test]
fn image_models_go_there_and_back() {
    let bench = llama();
    let original = diffusers(&bench);
    let adapter = Adapter::open(&original, &OpenOptions::default()).expect("opens");
    let scales: Vec<f64> = adapter.modules.iter().map(|module| module.scale.value).collect();
    assert_eq!(scales, [0.5, 1.5, 2.0]);
    let kohya = bench.convert(&original, "--to kohya", "k.safetensors");
    let keys: Vec<String> = read(&kohya).into_keys().collect();
    let q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight";
    let te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha";
    assert!(keys.iter().any(|key| key == q) && keys.iter().any(|key| key == te), "{keys:?}");
    let back = bench.convert(&kohya, "--to diffusers --reference pipeline", "back.safetensors");
    Deltas::of(&back).close_to(&Deltas::of(&original), 0.0);
    let comfy = bench.convert(&original, "--to comfyui", "c.safetensors");
    let path = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight";
    assert!(read(&comfy).contains_key(path));
    let back = bench.convert(&comfy, "--to diffusers --reference pipeline", "b2.safetensors");
    Deltas::of(&back).close_to(&Deltas::of(&original), 0.0);
    // The layouts of known models need no base; other names do.
    let back = bench.convert(&kohya, "--to diffusers", "b3.safetensors");
    Deltas::of(&back).close_to(&Deltas::of(&original), 0.0);
    let strange = Tensors::new()
        .f32("lora_unet_own_block_3_to_x.lora_down.weight", &[1, 2], &[1.0, 2.0])
        .f32("lora_unet_own_block_3_to_x.lora_up.weight", &[2, 1], &[1.0, 2.0])
        .save(&bench.path("strange.safetensors"));
    let said = bench.refuse(&strange, "--to diffusers", "none.safetensors");
    assert!(said.contains("its dots are flattened") && said.contains("own_block_3"), "{said}");
    let said = bench.refuse(&original, "--to peft", "none");
    assert!(said.contains("text_encoder, unet"), "{said}");
}

#[test]
fn other_families_are_carried_or_made_factors() {
    let bench = llama();
    let mut random = Random::new(5);
    let file = Tensors::new()
        .f32("diffusion_model.blocks.0.q.hada_w1_a", &[6, 2], &random.values(12, 1.0))
        .f32("diffusion_model.blocks.0.q.hada_w1_b", &[2, 4], &random.values(8, 1.0))
        .f32("diffusion_model.blocks.0.q.hada_w2_a", &[6, 2], &random.values(12, 1.0))
        .f32("diffusion_model.blocks.0.q.hada_w2_b", &[2, 4], &random.values(8, 1.0))
        .f32("diffusion_model.blocks.0.q.alpha", &[], &[3.0])
        .save(&bench.path("loha.safetensors"));
    let kohya = bench.convert(&file, "--to kohya", "k.safetensors");
    let (before, after) = (read(&file), read(&kohya));
    for part in ["hada_w1_a", "hada_w2_b", "alpha"] {
        let (from, to) = ("diffusion_model.blocks.0.q", "lora_unet_blocks_0_q");
        assert_eq!(before[&format!("{from}.{part}")], after[&format!("{to}.{part}")], "{part}");
    }
    let path = fixture("golden/merge_loha/input/adapter");
    let mlx = bench.convert(&path, "--to mlx", "mlx");
    Deltas::of(&mlx).close_to(&Deltas::of(&path), 1e-6);
}

/// PEFT's other types stay what they are, without what leaked into names and config.
#[test]
fn pefts_own_types_are_written_as_peft_has_them() {
    let bench = Bench::new();
    let mut peft = Peft::new(1, 1.0);
    peft.config = match json!({
        "peft_type": "IA3", "peft_version": "0.21.2", "modules_to_save": ["score"],
        "target_modules": "(q_proj|_orig_mod\\..*down_proj)", "feedforward_modules": ["down_proj"],
    }) {
        Value::Object(config) => config,
        _ => panic!("no object"),
    };
    let at = "_orig_mod.model.layers.0";
    let original = peft
        .tensor(&format!("{at}.self_attn.q_proj.ia3_l.default"), &[3, 1], &[1.0, 0.5, 2.0])
        .tensor(&format!("{at}.mlp.down_proj.ia3_l.default"), &[1, 2], &[0.25, 3.0])
        .tensor("score.modules_to_save.default.weight", &[1, 1], &[7.0])
        .save(&bench.path("ia3"));
    let again = bench.convert(&original, "--to peft", "again");
    let tensors = read(&again.join("adapter_model.safetensors"));
    let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    let (q, down) =
        ("model.layers.0.self_attn.q_proj".to_owned(), "model.layers.0.mlp.down_proj".to_owned());
    let keys = [format!("base_model.model.{down}.ia3_l"), format!("base_model.model.{q}.ia3_l")];
    assert_eq!(names, [&keys[0], &keys[1], "base_model.model.score.weight"]);
    assert_eq!(tensors[&keys[1]].values(), [1.0, 0.5, 2.0]);
    let config = std::fs::read(again.join("adapter_config.json")).expect("a config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!((&config["peft_type"], &config["peft_version"]), (&json!("IA3"), &json!("0.21.2")));
    assert_eq!(config["target_modules"], json!([down, q]));
    assert_eq!(config["feedforward_modules"], json!([down]));
    assert_eq!(config["modules_to_save"], json!(["score"]));
    // A config that finds its modules stays word for word; vLLM takes factors only.
    let loha = fixture("golden/merge_loha/input/adapter");
    let again = bench.convert(&loha, "--to peft", "loha");
    let config = |path: &std::path::Path| -> Value {
        let text = std::fs::read(path.join("adapter_config.json")).expect("a config");
        serde_json::from_slice(&text).expect("JSON")
    };
    assert_eq!(config(&again), config(&loha));
    let tensors = |path: &std::path::Path| read(&path.join("adapter_model.safetensors"));
    assert!(tensors(&again) == tensors(&loha));
    let factors = bench.convert(&loha, "--for vllm", "factors");
    assert_eq!(config(&factors)["peft_type"], json!("LORA"));
    Deltas::of(&factors).close_to(&Deltas::of(&loha), 1e-6);
}

/// ComfyUI keeps ‖B − Bᵀ‖ to alpha, LyCORIS to alpha · outputs, and in kohya's own OFT 0 is the most there
/// may be: what is left of the blocks is written, and that nothing keeps them.
#[test]
fn comfyui_gets_rotations_without_a_constraint() {
    let bench = Bench::new();
    let block = [0.0, 3.0, -1.0, 0.0];
    let file = Tensors::new()
        .f32("lora_unet_a_q.oft_blocks", &[1, 2, 2], &block)
        .f32("lora_unet_a_q.alpha", &[], &[0.5])
        .f32("lora_unet_b_q.oft_blocks", &[1, 2, 2], &block)
        .f32("lora_unet_b_q.alpha", &[], &[10.0])
        .f32("lora_unet_c_q.oft_blocks", &[1, 1, 2, 2], &block)
        .f32("oft_unet_d_q.oft_blocks", &[1, 2, 2], &block)
        .f32("oft_unet_d_q.alpha", &[], &[0.0])
        .save(&bench.path("blocks.safetensors"));
    let check = |path: &std::path::Path| {
        let mut tool = lora_tool();
        let done = tool.arg("check").arg(path).args(["--for", "comfyui"]).output();
        String::from_utf8_lossy(&done.expect("it runs").stdout).into_owned()
    };
    let said = check(&file);
    assert!(said.contains("another constraint") && said.contains("kohya's own OFT"), "{said}");
    let out = bench.convert(&file, "--to comfyui", "out.safetensors");
    let tensors = read(&out);
    // Q is [[0, 4], [−4, 0]].
    let norm = 32f64.sqrt();
    for (name, factor) in [("a", 1.0 / norm), ("b", 1.0), ("c", 1.0), ("d", 0.0)] {
        let at = format!("lora_unet_{name}_q");
        assert_eq!(tensors[&format!("{at}.alpha")].values(), [0.0], "{name}");
        let found = tensors[&format!("{at}.oft_blocks")].values();
        for (found, value) in found.iter().zip(block) {
            assert!((found - factor * f64::from(value)).abs() < 1e-6, "{name}: {found}");
        }
    }
    assert_eq!(tensors.len(), 8);
    assert!(!check(&out).contains("another constraint"));
}

#[test]
fn refusals_say_what_the_peers_have_otherwise() {
    let bench = Bench::new();
    let blocks = Tensors::new()
        .f32("lora_unet_blocks_0_q.oft_blocks", &[2, 2, 2], &[0.1; 8])
        .f32("lora_unet_blocks_1_q.hada_w1_a", &[2, 1], &[1.0, 2.0])
        .f32("lora_unet_blocks_1_q.hada_w1_b", &[1, 3], &[1.0, 2.0, 3.0])
        .f32("lora_unet_blocks_1_q.hada_w2_a", &[2, 1], &[1.0, 2.0])
        .f32("lora_unet_blocks_1_q.hada_w2_b", &[1, 3], &[1.0, 2.0, 3.0])
        .f32("lora_unet_blocks_1_q.dora_scale", &[1, 3], &[1.0; 3])
        .save(&bench.path("blocks.safetensors"));
    let base = Tensors::new()
        .f32("model.diffusion_model.blocks.0.q.weight", &[4, 4], &[0.5; 16])
        .f32("model.diffusion_model.blocks.1.q.weight", &[2, 3], &[0.5; 6])
        .save(&bench.path("blocks-base.safetensors"));
    let flags = format!("--to peft --reference {}", base.display());
    let said = bench.refuse(&blocks, &flags, "none");
    assert!(said.contains("rotate outputs, PEFT's inputs"), "{said}");
    assert!(said.contains("are of inputs, PEFT has them of outputs alone"), "{said}");
}

/// Experts' factors are not read from a header.
#[test]
fn a_header_with_target_parameters_is_refused_by_name() {
    let bench = Bench::new();
    let mut file = Tensors::new()
        .f32("transformer.blocks.0.experts.lora_A.weight", &[2, 2], &[1.0; 4])
        .f32("transformer.blocks.0.experts.lora_B.weight", &[2, 2], &[1.0; 4]);
    let entry = json!({"transformer.r": 1, "transformer.lora_alpha": 1,
        "transformer.target_parameters": ["experts.down_proj"]});
    let metadata = file.metadata.as_mut().expect("metadata");
    metadata.insert("lora_adapter_metadata".to_owned(), entry.to_string());
    let file = file.save(&bench.path("experts.safetensors"));
    let said = bench.refuse(&file, "--to kohya", "none.safetensors");
    assert!(said.contains("transformer.target_parameters"), "{said}");
}

#[test]
fn what_would_be_lost_is_refused_by_name() {
    let bench = llama();
    let dora = fixture("golden/merge_dora/input/adapter");
    let said = bench.refuse(&dora, "--for vllm", "none");
    assert!(said.contains("its magnitudes (DoRA)") && said.contains("--allow-loss"), "{said}");
    let saved = fixture("golden/merge_modules_to_save/input/adapter");
    let said = bench.refuse(&saved, "--to kohya", "none.safetensors");
    assert!(said.contains("which replaces the base's"), "{said}");
    bench.convert(&saved, "--to kohya --allow-loss", "some.safetensors");
    let peft = peft(&bench, Dtype::F32);
    let said = bench.refuse(&peft, "--to gguf", "none.gguf");
    assert!(said.contains("architecture"), "{said}");
    let said = bench.refuse(&peft, "--to klingon", "none");
    assert!(said.contains("peft, gguf, mlx, comfyui, diffusers, kohya"), "{said}");
    let said = bench.refuse(&peft, "--to gguf --reference base", "none.safetensors");
    assert!(said.contains(".gguf"), "{said}");
    let said = bench.refuse(&peft, "--for vllm --to mlx", "none");
    assert!(said.contains("loads peft"), "{said}");
    // A GGUF adapter of reordered rows is of no use without the base's heads.
    let gguf = bench.convert(&peft, "--to gguf --reference base", "a.gguf");
    let said = bench.refuse(&gguf, "--to peft", "none");
    assert!(said.contains("attn_k") && said.contains("--reference"), "{said}");
}

#[test]
fn dora_goes_where_it_can() {
    let bench = llama();
    let dora = fixture("golden/merge_dora/input/adapter");
    let mlx = bench.convert(&dora, "--to mlx", "mlx");
    let back = bench.convert(&mlx, "--to peft", "peft");
    let (before, after) = (
        read(&dora.join("adapter_model.safetensors")),
        read(&back.join("adapter_model.safetensors")),
    );
    for (name, tensor) in before.iter().filter(|(name, _)| name.contains("magnitude")) {
        let other = after.iter().find(|(other, _)| name.starts_with(other.as_str()));
        assert_eq!(other.expect("there").1.values(), tensor.values(), "{name}");
    }
    let kohya = bench.convert(&dora, "--to kohya", "k.safetensors");
    assert!(read(&kohya).keys().any(|key| key.ends_with(".dora_scale")));
}

/// One module of every kind that some convention cannot hold.
fn everything(bench: &Bench) -> PathBuf {
    let mut random = Random::new(8);
    let mut lora = |file: Tensors, name: &str| {
        file.f32(&format!("{name}.lora_down.weight"), &[2, 4], &random.values(8, 1.0))
            .f32(&format!("{name}.lora_up.weight"), &[6, 2], &random.values(12, 1.0))
            .f32(&format!("{name}.alpha"), &[], &[4.0])
    };
    let mut file = lora(Tensors::new(), "lora_unet_single_blocks_0_linear2");
    file = lora(file, "lora_unet_double_blocks_0_img_mlp_2").f32(
        "lora_unet_double_blocks_0_img_mlp_2.diff_b",
        &[6],
        &[0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    );
    file = lora(file, "lora_unet_double_blocks_0_img_attn_proj").f32(
        "lora_unet_double_blocks_0_img_attn_proj.dora_scale",
        &[6, 1],
        &[1.0; 6],
    );
    file = lora(file, "lora_unet_double_blocks_0_txt_attn_proj").f32(
        "lora_unet_double_blocks_0_txt_attn_proj.dora_scale",
        &[1, 4],
        &[1.0; 4],
    );
    file.f32("lora_unet_double_blocks_0_txt_mlp_0.diff", &[6, 4], &[0.25; 24])
        .f32("lora_unet_double_blocks_0_txt_mlp_0.diff_b", &[6], &[0.5; 6])
        .f32("lora_unet_double_blocks_0_txt_mlp_2.diff_b", &[6], &[0.75; 6])
        .f32("lora_unet_double_blocks_1_img_attn_qkv.diff", &[12, 4], &random.values(48, 1.0))
        .save(&bench.path("everything.safetensors"))
}

#[test]
fn each_convention_says_what_it_cannot_hold() {
    let bench = llama();
    let original = everything(&bench);
    let bias = "double_blocks_0_img_mlp_2: its bias";
    let outputs = "double_blocks_0_img_attn_proj: its magnitudes (DoRA)";
    let inputs = "double_blocks_0_txt_attn_proj: its magnitudes of inputs (DoRA)";
    let differences =
        ["txt_mlp_0: the whole of it", "txt_mlp_2: the whole of it", "qkv: the whole"];
    for (flags, lost) in [
        ("--to comfyui", vec![]),
        // Their configs say for all modules whether they have magnitudes.
        ("--to diffusers", [&[outputs, inputs], &differences[..]].concat()),
        ("--to peft", [&[outputs, inputs], &differences[..]].concat()),
        ("--to mlx", [&[bias, outputs, inputs], &differences[..]].concat()),
        ("--for vllm", [&[bias, outputs, inputs], &differences[..]].concat()),
    ] {
        let ending = if flags.ends_with("comfyui") || flags.ends_with("diffusers") {
            ".safetensors"
        } else {
            ""
        };
        let output = format!("out{}{ending}", flags.replace(' ', ""));
        if lost.is_empty() {
            bench.convert(&original, flags, &output);
            continue;
        }
        let said = bench.refuse(&original, flags, &output);
        for what in &lost {
            assert!(said.contains(what), "{flags}: {what}\n{said}");
        }
        // Nothing else is lost than what is said.
        let listed = said.lines().filter(|line| line.starts_with("  ")).count();
        // A difference in one piece is one for each of the modules that it would be.
        let pieces = usize::from(lost.len() >= differences.len()) * 2;
        assert_eq!(listed, lost.len() + pieces, "{flags}: {said}");
        bench.convert(&original, &format!("{flags} --allow-loss"), &output);
    }
    let back =
        bench.convert(&bench.path("out--tocomfyui.safetensors"), "--to kohya", "k.safetensors");
    let (before, after) = (read(&original), read(&back));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before.iter().all(|(name, tensor)| after[name] == *tensor));
    // A bias that has its scale in it gets it divided out, and multiplied in again.
    let diffusers = read(&bench.path("out--todiffusers.safetensors"));
    let bias = &diffusers["transformer.transformer_blocks.0.ff.net.2.lora_B.bias"];
    assert_eq!(bias.values(), [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]);
}
