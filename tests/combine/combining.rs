//! What combining does around the mathematics: budgets, threads, names and conventions, selections,
//! biases, replaced tensors, the config and the header that are written.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::dense::{adapter, config, deltas, relative_error, weighted_sum};
use crate::common::made::{How, Workshop, made};
use crate::common::{Peft, Tensors, lora_tool, read};
use lora_tool::format::{Access, Checkpoint, Dtype};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const Q: &str = "model.layers.0.q_proj";
const UP: &str = "model.layers.1.mlp.up_proj";
const F32: f64 = 1e-6;

/// Runs the command with an output below the workshop; its path and JSON report.
fn run(
    workshop: &Workshop,
    verb: &str,
    inputs: &[&Path],
    flags: &str,
    out: &str,
) -> (PathBuf, Value) {
    let output = workshop.path(out);
    let mut command = lora_tool();
    command.arg(verb).args(inputs).arg("-o").arg(&output).args(["--force", "--json"]);
    let done = command.args(flags.split_whitespace()).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{verb} {flags}\n{said}");
    (output, serde_json::from_slice(&done.stdout).expect("JSON"))
}

fn tensors(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("adapter_model.safetensors") } else { path.to_path_buf() }
}

fn bytes(path: &Path) -> u64 {
    tensors(path).metadata().expect("a file").len()
}

/// Two adapters with three modules of different sizes and ranks, one of them not shared.
fn two(workshop: &Workshop) -> [PathBuf; 2] {
    let a = [(Q, 24, 40, 6), (UP, 64, 24, 6)];
    let b = [(Q, 24, 40, 4), (UP, 64, 24, 9), ("model.layers.1.o_proj", 30, 30, 4)];
    [
        workshop.peft("a", 1, &a, How::default()),
        workshop.peft("b", 2, &b, How { rslora: true, ..How::default() }),
    ]
}

#[test]
fn a_module_that_one_adapter_lacks_counts_as_zero() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let (out, report) = run(&workshop, "combine", &[&a, &b], "-w 0.7 -0.4", "out");
    let expected = weighted_sum(&[(0.7, deltas(&a)), (-0.4, deltas(&b))]);
    assert_eq!(expected.len(), 3);
    assert!(relative_error(&deltas(&out), &expected) < F32);
    assert_eq!(report["modules"].as_array().map(Vec::len), Some(3));
}

#[test]
fn weights_separated_by_commas_or_behind_the_path() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let (spaced, _) = run(&workshop, "combine", &[&a, &b], "-w 0.7 -0.4", "spaced");
    let (commas, _) = run(&workshop, "combine", &[&a, &b], "-w 0.7,-0.4", "commas");
    let own = |path: &Path, weight: &str| PathBuf::from(format!("{}:{weight}", path.display()));
    let (behind, _) = run(&workshop, "combine", &[&own(&a, "0.7"), &own(&b, "-0.4")], "", "behind");
    for other in [commas, behind] {
        assert_eq!(read(&tensors(&spaced)), read(&tensors(&other)));
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let workshop = Workshop::new();
    let modules: Vec<(String, usize, usize, usize)> =
        (0..12).map(|at| (format!("layers.{at}.q_proj"), 30 + at, 50 - at, 2 + at % 5)).collect();
    let shapes: Vec<_> = modules.iter().map(|m| (m.0.as_str(), m.1, m.2, m.3)).collect();
    let a = workshop.peft("a", 5, &shapes, How::default());
    let b = workshop.peft("b", 6, &shapes, How::default());
    for flags in ["--rank 3", "--rank energy:0.9", "--rank params:4k", "--rank error:0.3 --uniform"]
    {
        let mut all = Vec::new();
        for threads in [1, 2, 8] {
            let flags = format!("{flags} --threads {threads}");
            let (out, report) = run(&workshop, "combine", &[&a, &b], &flags, "out");
            let config = std::fs::read(out.join("adapter_config.json")).expect("a config");
            all.push((std::fs::read(tensors(&out)).expect("a file"), config, report.to_string()));
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{flags}");
    }
}

#[test]
fn parameter_budgets_are_filled_and_kept() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let largest = 24 + 64;
    for budget in [300, 700, 1111] {
        for (flags, slack) in [("", largest), ("--uniform", 64 + 88 + 60)] {
            let flags = format!("--rank params:{budget} {flags}");
            let (out, report) = run(&workshop, "combine", &[&a, &b], &flags, "out");
            let parts = adapter(&out);
            let used: usize = parts.values().map(|p| p.rank * (p.up.rows + p.down.columns)).sum();
            assert!(used <= budget && used + slack > budget, "{flags}: {used}");
            assert_eq!(report["parameters_after"], json!(used), "{flags}");
        }
    }
}

#[test]
fn size_budgets_are_filled_and_kept() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let shapes = [("lora_unet_q", 24, 40, 6), ("lora_unet_up", 64, 24, 7), ("lora_te_o", 9, 9, 4)];
    let kohya = workshop.kohya("k.safetensors", 3, &shapes, 3.0);
    // One more rank of the largest module, and what its header entry may grow by.
    let step = (24 + 64) * 4 + 64;
    for (inputs, out) in [(vec![&*a, &*b], "out"), (vec![&*kohya], "out.safetensors")] {
        for budget in [3_000u64, 3_333, 4_096, 5_001] {
            for uniform in [false, true] {
                let flags = if uniform { " --uniform" } else { "" };
                let flags = format!("--rank size:{budget}{flags}");
                let (written, report) = run(&workshop, "combine", &inputs, &flags, out);
                let size = bytes(&written);
                assert!(size <= budget, "{flags} of {out}: {size}");
                assert!(uniform || size + step > budget, "{flags} of {out}: {size}");
                assert_eq!(report["bytes"], json!(size), "{flags} of {out}");
            }
        }
    }
}

#[test]
fn a_size_budget_counts_biases_and_replaced_tensors() {
    let workshop = Workshop::new();
    let mut peft = made(4, &[(Q, 200, 10, 6)], How::default());
    peft = peft.field("lora_bias", true).field("modules_to_save", json!(["score"]));
    peft = peft.tensor(&format!("{Q}.lora_B.bias"), &[200], &[0.5; 200]);
    peft = peft.tensor("score.weight", &[4, 10], &[1.0; 40]);
    let a = peft.save(&workshop.path("a"));
    for budget in [3_000u64, 4_000, 5_000] {
        let (out, _) = run(&workshop, "resize", &[&a], &format!("--rank size:{budget}"), "out");
        assert!(bytes(&out) <= budget && bytes(&out) + 210 * 4 + 64 > budget, "{}", bytes(&out));
    }
}

#[test]
fn weights_of_single_modules_and_selections() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let inputs = [&*a, &*b];
    // The last match wins.
    let flags = "--module-weight .=0.5 --module-weight layers\\.0=2";
    let (out, _) = run(&workshop, "combine", &inputs, flags, "out");
    let mut expected = weighted_sum(&[(0.5, deltas(&a)), (0.5, deltas(&b))]);
    let first = expected.get_mut(Q).expect("both have it");
    *first = first.scaled(4.0);
    assert!(relative_error(&deltas(&out), &expected) < F32);

    let sum = weighted_sum(&[(1.0, deltas(&a)), (1.0, deltas(&b))]);
    for (flags, kept) in [
        ("--include layers\\.1", vec![UP, "model.layers.1.o_proj"]),
        ("--exclude o_proj", vec![Q, UP]),
        ("--include layers\\.1 --exclude up_", vec!["model.layers.1.o_proj"]),
    ] {
        let (out, _) = run(&workshop, "combine", &inputs, flags, "out");
        let mut expected = sum.clone();
        expected.retain(|name, _| kept.contains(&name.as_str()));
        assert!(relative_error(&deltas(&out), &expected) < F32, "{flags}");
        // Nothing that has no factors is a target.
        assert_eq!(config(&out)["target_modules"].as_array().map(Vec::len), Some(kept.len()));
    }
}

#[test]
fn kohya_block_weights() {
    let workshop = Workshop::new();
    let names = [
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_down_blocks_0_attentions_1_proj_in",
        "lora_unet_mid_block_attentions_0_proj_in",
    ];
    let shapes = names.map(|name| (name, 12, 10, 3));
    let a = workshop.kohya("a.safetensors", 7, &shapes, 2.0);
    let b = workshop.kohya("b.safetensors", 8, &shapes, 1.0);
    // BASE, IN01, IN02, …, MID at 7 of 17: IN02 is the second of down block 0.
    let lbw = "0.5,1,0.25,1,1,1,1,-2,1,1,1,1,1,1,1,1,1";
    let flags = format!("-w 2 1 --lbw {lbw} --lbw {}1", "1,".repeat(16));
    let (out, _) = run(&workshop, "combine", &[&a, &b], &flags, "out.safetensors");
    let mut first = deltas(&a);
    for (name, weight) in names.iter().zip([0.5, 0.25, -2.0]) {
        let delta = first.get_mut(*name).expect("written");
        *delta = delta.scaled(weight);
    }
    let expected = weighted_sum(&[(2.0, first), (1.0, deltas(&b))]);
    assert!(relative_error(&deltas(&out), &expected) < F32);
}

#[test]
fn peft_and_flattened_names_meet() {
    let workshop = Workshop::new();
    let flat = |name: &str| format!("lora_unet_{}", name.replace('.', "_"));
    let a = workshop.peft("a", 1, &[(Q, 24, 40, 6), (UP, 64, 24, 6)], How::default());
    let b =
        workshop.kohya("b.safetensors", 2, &[(&flat(Q), 24, 40, 4), (&flat(UP), 64, 24, 2)], 3.0);
    let own = |path: &Path| {
        let deltas = deltas(path).into_iter();
        deltas.map(|(name, delta)| (if name.contains('.') { flat(&name) } else { name }, delta))
    };
    let expected = weighted_sum(&[(0.3, own(&a).collect()), (0.9, own(&b).collect())]);
    for (inputs, weights) in [([&*a, &*b], "-w 0.3 0.9"), ([&*b, &*a], "-w 0.9 0.3")] {
        let (out, report) = run(&workshop, "combine", &inputs, weights, "out");
        assert_eq!(report["convention"], "peft");
        assert!(deltas(&out).keys().all(|name| name.contains('.')));
        assert!(relative_error(&own(&out).collect(), &expected) < F32);
        let flags = format!("{weights} --to kohya");
        let (out, report) = run(&workshop, "combine", &inputs, &flags, "out.safetensors");
        assert_eq!(report["convention"], "kohya");
        assert!(relative_error(&deltas(&out), &expected) < F32);
    }
}

#[test]
fn convolutions_and_embeddings() {
    let workshop = Workshop::new();
    let make = |seed: u64, rank: usize| {
        let mut random = crate::common::Random::new(seed);
        let mut values = |count: usize| random.values(count, 1.0);
        Peft::new(rank, 4.0)
            .field("target_modules", json!(["conv", "embed"]))
            .tensor("conv.lora_A.weight", &[rank, 3, 2, 2], &values(rank * 12))
            .tensor("conv.lora_B.weight", &[7, rank, 1, 1], &values(7 * rank))
            .tensor("embed.lora_embedding_A", &[rank, 11], &values(rank * 11))
            .tensor("embed.lora_embedding_B", &[5, rank], &values(5 * rank))
            .save(&workshop.path(&format!("adapter-{seed}")))
    };
    let (a, b) = (make(1, 2), make(2, 3));
    let expected = weighted_sum(&[(1.0, deltas(&a)), (-2.0, deltas(&b))]);
    let (out, _) = run(&workshop, "combine", &[&a, &b], "-w 1 -2", "out");
    assert!(relative_error(&deltas(&out), &expected) < F32);
    let written = read(&tensors(&out));
    let shape = |name: &str| written[&format!("base_model.model.{name}")].shape.clone();
    assert_eq!(shape("conv.lora_A.weight"), [5, 3, 2, 2]);
    assert_eq!(shape("conv.lora_B.weight"), [7, 5, 1, 1]);
    assert_eq!(shape("embed.lora_embedding_A"), [5, 11]);
}

#[test]
fn alphas_of_narrow_files_are_not_rounded() {
    let workshop = Workshop::new();
    // 0.1 · rank is no bf16 number for most ranks; the factors here are, exactly.
    let a = workshop.kohya("a.safetensors", 1, &[("lora_unet_q", 16, 16, 7)], 0.7);
    let (out, _) = run(&workshop, "resize", &[&a], "--rank 3 --dtype bf16", "out.safetensors");
    let part = &adapter(&out)["lora_unet_q"];
    assert!((part.scale - 0.1).abs() < 1e-7, "{}", part.scale);
    assert_eq!(read(&out)["lora_unet_q.lora_up.weight"].dtype, Dtype::BF16);
}

#[test]
fn the_header_says_what_it_was_made_of() {
    let workshop = Workshop::new();
    let [a, b] = two(&workshop);
    let (out, _) = run(&workshop, "combine", &[&a, &b], "-w 0.7 0.3 --rank 5", "out");
    let file = Checkpoint::open(&tensors(&out), Access::Map).expect("readable");
    let metadata = file.shards[0].header.metadata.clone().expect("metadata");
    let made: Value = serde_json::from_str(&metadata["lora_tool"]).expect("JSON");
    let hash = |path: &Path| {
        let one = |file: &str| {
            let bytes = std::fs::read(path.join(file)).expect("readable");
            (file.to_owned(), Value::from(format!("{:x}", Sha256::digest(bytes))))
        };
        let files = ["adapter_model.safetensors", "adapter_config.json"].map(one);
        Value::Object(files.into_iter().collect())
    };
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "method": "linear",
        "rank": "5",
        "inputs": [
            {"name": "a", "weight": 0.7, "files": hash(&a)},
            {"name": "b", "weight": 0.3, "files": hash(&b)},
        ],
    });
    assert_eq!(made, expected);
}

/// A kohya file with what its trainer says of it.
fn titled(workshop: &Workshop, name: &str, entries: &[(&str, &str)]) -> PathBuf {
    let module = "lora_unet_mid_block_attentions_0_proj_in";
    let mut tensors = Tensors::new()
        .f32(&format!("{module}.lora_down.weight"), &[1, 4], &[0.5, 1.0, -1.0, 2.0])
        .f32(&format!("{module}.lora_up.weight"), &[4, 1], &[1.0, 2.0, 3.0, 4.0])
        .f32(&format!("{module}.alpha"), &[], &[1.0]);
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    tensors.metadata = Some(entries.collect());
    tensors.save(&workshop.path(&format!("{name}.safetensors")))
}

fn header(path: &Path) -> lora_tool::format::Metadata {
    let file = Checkpoint::open(path, Access::Read).expect("opens");
    file.shards[0].header.metadata.clone().expect("metadata")
}

#[test]
fn a_combination_does_not_claim_to_be_its_first_input() {
    let workshop = Workshop::new();
    let ink = titled(
        &workshop,
        "ink",
        &[
            ("modelspec.title", "Ink"),
            ("modelspec.trigger_phrase", "ink style"),
            ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
            ("ss_output_name", "ink"),
            ("ss_steps", "2400"),
            ("ss_network_module", "networks.lora"),
            ("ss_tag_frequency", r#"{"10_ink": {"ink style": 30, "cat": 2}}"#),
        ],
    );
    let oil = titled(
        &workshop,
        "oil",
        &[
            ("modelspec.trigger_phrase", "oil paint"),
            ("ss_output_name", "oil"),
            ("ss_tag_frequency", r#"{"10_oil": {"oil paint": 20, "cat": 3}}"#),
        ],
    );
    let (mix, _) = run(&workshop, "combine", &[&ink, &oil], "", "mix.safetensors");
    let mixed = header(&mix);
    let entry = |key: &str| mixed.get(key).map(String::as_str);
    assert_eq!(entry("modelspec.title"), Some("mix"));
    assert_eq!(entry("ss_output_name"), Some("mix"));
    assert_eq!(entry("modelspec.merged_from"), Some("Ink, oil"));
    assert_eq!(entry("modelspec.trigger_phrase"), Some("ink style, oil paint"));
    assert_eq!(entry("modelspec.architecture"), Some("stable-diffusion-xl-v1-base/lora"));
    assert_eq!(entry("ss_network_module"), Some("networks.lora"));
    assert_eq!(entry("ss_steps"), None);
    let tags: Value = serde_json::from_str(entry("ss_tag_frequency").expect("tags")).expect("JSON");
    let expected =
        json!({"10_ink": {"ink style": 30, "cat": 2}, "10_oil": {"oil paint": 20, "cat": 3}});
    assert_eq!(tags, expected);

    let flags = "--title Both --trigger inkoil";
    let (called, _) = run(&workshop, "combine", &[&ink, &oil], flags, "called.safetensors");
    let called = header(&called);
    assert_eq!(called["modelspec.title"], "Both");
    assert_eq!(called["modelspec.trigger_phrase"], "inkoil");

    let recipe = "adapters: [ink.safetensors, oil.safetensors]\noutput: x.safetensors\n\
                  title: By recipe\n";
    std::fs::write(workshop.path("r.yaml"), recipe).expect("written");
    let path = workshop.path("r.yaml");
    let (made, _) = run(&workshop, "run", &[&path], "", "recipe.safetensors");
    assert_eq!(header(&made)["modelspec.title"], "By recipe");
    assert_eq!(header(&made)["modelspec.trigger_phrase"], "ink style, oil paint");

    let (resized, _) = run(&workshop, "resize", &[&ink], "--rank 1", "small.safetensors");
    let resized = header(&resized);
    assert_eq!(resized["modelspec.title"], "Ink", "a resized file is still what it was");
    assert_eq!(resized["ss_steps"], "2400");
    assert!(!resized.contains_key("modelspec.merged_from"));
}
