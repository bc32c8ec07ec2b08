//! What programs would refuse or get wrong.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::{Peft, Random, Tensors, fixture, lora_tool};
use serde_json::{Value, json};

fn check(adapter: &Path, program: &str, code: i32) -> Value {
    let mut command = lora_tool();
    let done = command.arg("check").arg(adapter).args(["--for", program, "--json"]).assert();
    serde_json::from_slice(&done.code(code).get_output().stdout).expect("JSON")
}

#[test]
fn every_program_has_its_say() {
    let patterns = fixture("golden/merge_rank_alpha_pattern/input/adapter");
    assert_eq!(check(&patterns, "vllm", 0)["findings"], serde_json::json!([]));
    let report = check(&patterns, "vllm@0.31", 1);
    assert_eq!(report["findings"][0]["severity"], "changes");
    let fix = report["findings"][0]["fix"].as_str().expect("a fix");
    assert!(fix.ends_with("--for vllm -o OUT"), "{fix}");
    assert_eq!(check(&patterns, "peft", 0)["findings"], serde_json::json!([]));
    for (program, says) in
        [("llama.cpp", "gguf"), ("comfyui", "peft"), ("diffusers", "peft"), ("mlx", "peft")]
    {
        let report = check(&patterns, program, 1);
        assert_eq!(report["findings"][0]["severity"], "breaks", "{says}");
    }
    let dora = fixture("golden/merge_dora/input/adapter");
    let said = check(&dora, "vllm", 1).to_string();
    assert!(said.contains("refuses DoRA"), "{said}");
    let kohya = fixture("golden/resize_kohya_fixed/input/lora.safetensors");
    assert_eq!(check(&kohya, "comfyui", 0)["ok"], true);
    let mut command = lora_tool();
    command.arg("check").arg(&kohya).args(["--for", "nobody"]).assert().code(2);
}

#[test]
fn what_is_converted_for_a_program_passes_its_check() {
    let scratch = tempfile::tempdir().expect("a directory");
    let adapter = fixture("golden/merge_rank_alpha_pattern/input/adapter");
    for program in ["vllm", "mlx"] {
        let out = scratch.path().join(program);
        let mut command = lora_tool();
        command.arg("convert").arg(&adapter).args(["--for", program, "-o"]).arg(&out);
        command.assert().success();
        assert_eq!(check(&out, program, 0)["ok"], true, "{program}");
    }
}

/// A file of factors of rank 1 for a layer of 8 outputs and 4 inputs, and what else it has.
fn factors(module: &str, (down, up): (&str, &str), also: &[(&str, &[usize])]) -> Tensors {
    let mut tensors = Tensors::new().f32(&format!("{module}{down}"), &[1, 4], &[0.5; 4]).f32(
        &format!("{module}{up}"),
        &[8, 1],
        &[0.25; 8],
    );
    for (name, shape) in also {
        let count = shape.iter().product();
        tensors = tensors.f32(&format!("{module}{name}"), shape, &vec![1.0; count]);
    }
    tensors
}

#[test]
fn comfyui_passes_over_names_of_diffusers() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("lora.safetensors");
    let (new, old) =
        ((".lora_A.weight", ".lora_B.weight"), ("_lora.down.weight", "_lora.up.weight"));
    let block = "unet.mid_block.attentions.0.transformer_blocks.0";
    for (module, ends, taken) in [
        (format!("{block}.attn1.to_q"), new, false),
        (format!("{block}.attn1.to_out.0"), new, false),
        (format!("{block}.attn1.processor.to_q"), old, true),
        (format!("{block}.ff.net.2"), new, true),
        ("transformer.single_transformer_blocks.0.attn.to_q".into(), new, true),
        // HunyuanVideo has two more single blocks than Flux.
        ("transformer.single_transformer_blocks.39.attn.to_q".into(), new, false),
        ("transformer.blocks.0.attn1.to_q".into(), new, false),
        ("transformer.layers.0.attn.to_q".into(), new, false),
        ("transformer.layers.0.attention.to_q".into(), new, true),
        ("transformer_2.blocks.0.attn1.to_q".into(), new, false),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj".into(), new, true),
        ("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q".into(), new, false),
    ] {
        factors(&module, ends, &[]).save(&path);
        let report = check(&path, "comfyui", i32::from(!taken));
        let says = report["findings"][0]["says"].as_str().unwrap_or_default();
        assert_eq!(says.contains("names of diffusers"), !taken, "{module}: {report}");
    }
}

#[test]
fn comfyui_computes_another_dora_and_oft() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("lora.safetensors");
    let module = "lora_unet_double_blocks_0_img_mlp_0";
    let ends = (".lora_down.weight", ".lora_up.weight");
    for (lengths, right) in [(&[8, 1], false), (&[1, 4], true)] {
        factors(module, ends, &[(".dora_scale", lengths)]).save(&path);
        let report = check(&path, "comfyui", i32::from(!right));
        assert_eq!(report.to_string().contains("magnitudes of outputs"), !right, "{report}");
        // Converting again would change nothing.
        assert_eq!(report["findings"][0].get("fix"), None);
    }
    for (blocks, right) in [(&[2, 4, 4][..], false), (&[1, 2, 4, 4][..], true)] {
        let oft = Tensors::new()
            .f32(&format!("{module}.oft_blocks"), blocks, &[0.0; 32])
            .f32(&format!("{module}.alpha"), &[], &[0.0])
            .f32(&format!("{module}.rescale"), &[8, 1], &[2.0; 8]);
        oft.save(&path);
        let report = check(&path, "comfyui", i32::from(!right));
        assert_eq!(report.to_string().contains("rescale"), !right, "{report}");
    }
}

/// An adapter of every projection of a layer, of values without a pattern, and what else is wrong with it.
fn sound(rank: usize) -> Peft {
    let mut random = Random::new(3);
    let targets = json!(["q_proj", "k_proj", "v_proj", "gate_proj"]);
    let mut adapter = Peft::new(rank, 16.0).field("target_modules", targets);
    for (name, inputs, outputs) in [
        ("self_attn.q_proj", 64, 64),
        ("self_attn.k_proj", 64, 32),
        ("self_attn.v_proj", 64, 32),
        ("mlp.gate_proj", 64, 96),
    ] {
        let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 1.0));
        adapter = adapter.linear(&format!("model.layers.0.{name}"), rank, &down, &up);
    }
    adapter
}

/// Names of the rules that found something wrong.
fn rules(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let wrong = findings.filter(|finding| finding["severity"] != "note");
    wrong.map(|finding| finding["rule"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn nothing_is_found_in_what_is_right() {
    let scratch = tempfile::tempdir().expect("a directory");
    let own = sound(8).save(&scratch.path().join("sound"));
    let (style, task) = (fixture("llama/style"), fixture("llama/task"));
    let kohya = fixture("golden/resize_kohya_fixed/input/lora.safetensors");
    for (adapter, program) in [
        (&own, "vllm"),
        (&own, "sglang"),
        (&own, "peft"),
        (&style, "vllm"),
        (&style, "sglang"),
        (&style, "tensorrt-llm"),
        (&style, "lmdeploy"),
        (&style, "tgi"),
        (&style, "lorax"),
        (&task, "vllm"),
        (&kohya, "comfyui"),
        (&kohya, "diffusers"),
        (&kohya, "invokeai"),
    ] {
        let report = check(adapter, program, 0);
        assert_eq!((rules(&report), &report["answer"]), (vec![], &json!("yes")), "{program}");
    }
    let base = fixture("llama/base");
    for program in ["vllm", "peft", "tgi", "lmdeploy"] {
        let mut command = lora_tool();
        command.arg("check").arg(&style).args(["--for", program, "--against"]).arg(&base);
        command.assert().success();
    }
}

#[test]
fn every_seeded_fault_is_found() {
    let scratch = tempfile::tempdir().expect("a directory");
    let module = "model.layers.0.mlp.up_proj";
    let ones = |count: usize| vec![1.0_f32; count];
    let changed = |at: usize, value: f32| {
        let mut up = ones(96 * 8);
        up[at] = value;
        sound(8).linear(module, 8, &ones(8 * 64), &up)
    };
    let dead = Peft::new(8, 16.0).linear(module, 8, &ones(8 * 64), &vec![0.0; 96 * 8]);
    let query =
        Peft::new(4, 4.0).linear("model.layers.0.self_attn.q_proj", 4, &ones(64), &ones(64));
    let wide = Peft::new(4, 4.0).linear(
        "model.layers.0.self_attn.q_proj",
        4,
        &ones(4 * 128),
        &ones(4 * 128),
    );
    let lost =
        Peft::new(4, 4.0).linear("model.layers.9.self_attn.q_proj", 4, &ones(256), &ones(256));
    let dora = {
        let names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj"];
        let sizes = [64, 32, 32, 96];
        let adapter = sound(8).field("use_dora", true);
        names.iter().zip(sizes).fold(adapter, |adapter, (name, size)| {
            let key = format!("model.layers.0.{name}.lora_magnitude_vector");
            adapter.tensor(&key, &[size], &ones(size))
        })
    };
    let ranked = sound(8).field("rank_pattern", json!({"up_proj": 4})).linear(
        module,
        4,
        &ones(4 * 64),
        &ones(96 * 4),
    );
    let embedding = sound(8)
        .tensor("model.embed_tokens.lora_embedding_A", &[8, 48], &ones(8 * 48))
        .tensor("model.embed_tokens.lora_embedding_B", &[64, 8], &ones(64 * 8));
    for (number, (adapter, program, rule)) in [
        (changed(5, f32::NAN), "vllm", "not-finite"),
        (dead, "peft", "dead-adapter"),
        (changed(7, 1000.0), "peft", "outlier-row"),
        (dora, "vllm", "dora"),
        (sound(8).field("use_rslora", true), "sglang", "scale"),
        (sound(8).field("alpha_pattern", json!({"q_proj": 64})), "llama.cpp", "scale"),
        (ranked, "sglang", "ranks"),
        (sound(8).field("init_lora_weights", "pissa"), "vllm", "initialisation"),
        (sound(8).field("target_modules", ".*_proj"), "sglang", "targets"),
        (embedding, "lmdeploy", "embeddings"),
        (query, "sglang", "query-without-value"),
        (wide, "peft", "shapes"),
        (lost, "peft", "names"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = adapter.save(&scratch.path().join(number.to_string()));
        let mut command = lora_tool();
        command.arg("check").arg(path).args(["--for", program, "--json"]);
        if ["shapes", "names"].contains(&rule) {
            command.arg("--against").arg(fixture("llama/base"));
        }
        let done = command.assert().code(1);
        let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
        assert!(rules(&report).iter().any(|found| found == rule), "{rule}: {:?}", rules(&report));
    }
}

#[test]
fn what_nobody_knows_is_never_right() {
    let scratch = tempfile::tempdir().expect("a directory");
    let strange = Tensors::new().f32("layer.brand_new_a", &[2, 2], &[1.0; 4]);
    let strange = strange.save(&scratch.path().join("strange.safetensors"));
    assert_eq!(check(&strange, "vllm", 2)["answer"], "unknown");
    let module = "transformer.brand_new_blocks.0.mixer.to_z";
    let path = scratch.path().join("lora.safetensors");
    factors(module, (".lora_A.weight", ".lora_B.weight"), &[]).save(&path);
    for program in ["comfyui", "diffusers", "invokeai"] {
        assert_eq!(check(&path, program, 2)["answer"], "unknown", "{program}");
    }
    let out = scratch.path().join("out.safetensors");
    let mut command = lora_tool();
    command.arg("convert").arg(&path).args(["--for", "comfyui", "-o"]).arg(&out);
    command.assert().code(2);
    assert!(!out.exists());
}

#[test]
fn one_call_answers_for_every_program() {
    let adapter = fixture("llama/style");
    let mut command = lora_tool();
    let done = command.arg("check").arg(&adapter).arg("--json").assert().success();
    let report: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
    let programs = report["programs"].as_array().expect("programs");
    let verdict = |name: &str| {
        let found = programs.iter().find(|program| program["program"] == name);
        found.expect(name)["verdict"].as_str().expect("a verdict").to_owned()
    };
    let known = ::lora_tool::ops::check::programs();
    let named = programs.iter().map(|one| one["program"].as_str().expect("a name"));
    assert!(named.eq(known));
    assert_eq!(verdict("vllm"), "loads");
    assert_eq!(verdict("comfyui"), "refused");
    assert_eq!(verdict("openvino"), "scaled wrongly");
    let mut command = lora_tool();
    let done = command.arg("check").arg(&adapter).assert().success();
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(programs.iter().all(|one| text.contains(one["program"].as_str().expect("a name"))));
}

/// The properties that SARIF 2.1.0's schema requires, and the values it allows, of what is written.
#[test]
fn sarif_is_what_its_schema_requires() {
    let adapter = fixture("serving/06_sglang_rslora/adapter");
    let mut command = lora_tool();
    command.arg("check").arg(adapter).args(["--for", "sglang", "--format", "sarif"]);
    let done = command.assert().code(1);
    let log: Value = serde_json::from_slice(&done.get_output().stdout).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().expect("a schema").ends_with("sarif-2.1.0.json"));
    let run = &log["runs"].as_array().expect("runs")[0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "lora-tool");
    let rules = driver["rules"].as_array().expect("rules");
    let ids: std::collections::BTreeSet<_> =
        rules.iter().map(|rule| rule["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), rules.len());
    assert!(rules.iter().all(|rule| rule["shortDescription"]["text"].is_string()));
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    for result in results {
        assert!(!result["message"]["text"].as_str().expect("a text").is_empty());
        let level = result["level"].as_str().expect("a level");
        assert!(["none", "note", "warning", "error"].contains(&level));
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let location = &result["locations"].as_array().expect("locations")[0];
        let uri = location["physicalLocation"]["artifactLocation"]["uri"].as_str().expect("a URI");
        assert!(!uri.contains(' '));
    }
    let scale = results.iter().find(|result| result["ruleId"] == "sglang/scale").expect("it");
    assert_eq!(scale["locations"][0]["logicalLocations"].as_array().expect("modules").len(), 7);
    assert_eq!(scale["properties"]["factors"]["model.layers.0.mlp.up_proj"], 0.25);
}
