//! What stands before a layer's name and what stands behind it are two grammars: any prefix goes with any
//! suffix, and every command that puts names together understands the pair.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::{Random, Tensors, lora_tool, product, read};
use serde_json::Value;

const OUTPUTS: usize = 6;
const INPUTS: usize = 4;
const RANK: usize = 2;

/// A layer by its path, and what stands before paths and before flattened names.
struct Model {
    file: &'static str,
    path: &'static str,
    root: &'static str,
    prefixes: &'static [&'static str],
    flat: &'static [&'static str],
    /// What stands before the flattened name in the adapter that the others are compared with.
    reference: &'static str,
}

const MODELS: [Model; 6] = [
    Model {
        file: "unet/diffusion_pytorch_model.safetensors",
        path: "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        root: "",
        prefixes: &["", "unet.", "base_model.model.", "diffusion_model."],
        flat: &["lora_unet_", "oft_unet_", "lycoris_"],
        reference: "lora_unet_",
    },
    Model {
        file: "model.safetensors",
        path: "layers.0.self_attn.q_proj",
        root: "model.",
        prefixes: &[
            "",
            "model.",
            "base_model.model.",
            "base_model.model.model.",
            "module.base_model.model.model.",
            "base_model.model.model._orig_mod.",
            "model.language_model.",
        ],
        flat: &["lora_unet_model_", "lycoris_model_"],
        reference: "lora_unet_model_",
    },
    Model {
        file: "transformer/diffusion_pytorch_model.safetensors",
        path: "transformer_blocks.0.attn.to_v",
        root: "",
        prefixes: &["", "transformer.", "base_model.model.", "diffusion_model."],
        flat: &["lora_unet_", "lora_transformer_", "lycoris_"],
        reference: "lora_unet_",
    },
    Model {
        file: "prior/diffusion_pytorch_model.safetensors",
        path: "down_blocks.0.2.attention.to_k",
        root: "",
        prefixes: &["prior."],
        flat: &["lora_prior_unet_"],
        reference: "lora_prior_unet_",
    },
    Model {
        file: "text_encoder/model.safetensors",
        path: "text_model.encoder.layers.0.self_attn.q_proj",
        root: "",
        prefixes: &["", "text_encoder."],
        flat: &["lora_te_", "lora_te1_", "lycoris_"],
        reference: "lora_te_",
    },
    Model {
        file: "text_encoder_2/model.safetensors",
        path: "text_model.encoder.layers.0.self_attn.q_proj",
        root: "",
        prefixes: &["text_encoder_2."],
        flat: &["lora_te2_"],
        reference: "lora_te2_",
    },
];

/// Endings of the factors' names: down and up.
const SUFFIXES: [(&str, &str); 9] = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_down", ".lora_up"),
    (".lora_A", ".lora_B"),
    (".lora.down", ".lora.up"),
];

struct Table {
    bench: Bench,
    down: Vec<f32>,
    up: Vec<f32>,
    faults: Vec<String>,
}

impl Table {
    fn new() -> Self {
        let mut random = Random::new(9);
        let (down, up) = (random.values(RANK * INPUTS, 1.0), random.values(OUTPUTS * RANK, 1.0));
        Self { bench: Bench::new(), down, up, faults: Vec::new() }
    }

    fn adapter(&self, module: &str, suffix: (&str, &str), name: &str) -> PathBuf {
        Tensors::new()
            .f32(&format!("{module}{}", suffix.0), &[RANK, INPUTS], &self.down)
            .f32(&format!("{module}{}", suffix.1), &[OUTPUTS, RANK], &self.up)
            .save(&self.bench.path(name))
    }

    /// Runs a command; its report, or what it said.
    fn json(&self, verb: &str, paths: &[&Path], flags: &str) -> Result<Value, String> {
        let mut command = lora_tool();
        command.arg(verb).args(paths).args(flags.split_whitespace()).arg("--json");
        let done = command.output().expect("it runs");
        serde_json::from_slice(&done.stdout)
            .map_err(|_| String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn check(&mut self, model: &Model, module: &str, suffix: (&str, &str)) {
        let adapter = self.adapter(module, suffix, "adapter.safetensors");
        let base = self.bench.path(model.root.trim_end_matches('.')).join("base");
        let tensor = format!("{}{}.weight", model.root, model.path);
        let mut values = vec![0.0; OUTPUTS * INPUTS];
        values[0] = 1.0;
        Tensors::new().f32(&tensor, &[OUTPUTS, INPUTS], &values).save(&base.join(model.file));
        let reference = format!("{}{}", model.reference, model.path.replace('.', "_"));
        let reference = self.adapter(&reference, SUFFIXES[0], "reference.safetensors");
        let full = match model.file.rsplit_once('/') {
            Some((component, _)) => format!("{component}/{tensor}"),
            None => tensor,
        };
        let found = [
            self.merges(&base, &adapter, &full),
            self.inspects(&base, &adapter, &full),
            self.checks(&base, &adapter),
            self.compares(&reference, &adapter),
        ];
        for (verb, found) in ["merge", "inspect", "check", "compare"].iter().zip(found) {
            if let Err(what) = found {
                self.faults.push(format!("{verb} {module}{}: {what}", suffix.0));
            }
        }
        std::fs::remove_dir_all(&base).expect("removed");
    }

    fn merges(&self, base: &Path, adapter: &Path, tensor: &str) -> Result<(), String> {
        let (code, said) = self.bench.run("merge", &[base, adapter], "--scale 1", "merged");
        if code != Some(0) {
            return Err(said);
        }
        let merged = read(&self.bench.path("merged"))[tensor].values();
        let exact = product(&self.up, &self.down, RANK);
        let off = |(at, (value, delta)): (usize, (&f64, &f64))| {
            (value - delta - if at == 0 { 1.0 } else { 0.0 }).abs() > 1e-6
        };
        let wrong = merged.iter().zip(&exact).enumerate().any(off);
        if wrong { Err(format!("{merged:?}, not {exact:?}")) } else { Ok(()) }
    }

    fn inspects(&self, base: &Path, adapter: &Path, tensor: &str) -> Result<(), String> {
        let flags = format!("--scale 1 --against {}", base.display());
        let report = self.json("inspect", &[adapter], &flags)?;
        let module = &report["items"][0]["modules"][0];
        let lands = module["base_tensor"] == tensor && module["misfit"].is_null();
        if lands { Ok(()) } else { Err(report["items"][0].to_string()) }
    }

    /// Other programs may not read the names; that they fit nothing they must not say.
    fn checks(&self, base: &Path, adapter: &Path) -> Result<(), String> {
        let flags = format!("--for comfyui --against {}", base.display());
        let report = self.json("check", &[adapter], &flags)?;
        let text = report.to_string();
        let misfit = text.contains("fit nothing") || text.contains("do not fit");
        if misfit { Err(text) } else { Ok(()) }
    }

    fn compares(&self, reference: &Path, adapter: &Path) -> Result<(), String> {
        let report = self.json("compare", &[reference, adapter], "--scale 1")?;
        let pair = &report["pairs"][0];
        let cosine = pair["cosine"].as_f64().unwrap_or_default();
        let same = pair["shared_modules"] == 1 && (cosine - 1.0).abs() < 1e-9;
        if same { Ok(()) } else { Err(pair.to_string()) }
    }
}

#[test]
fn every_prefix_goes_with_every_suffix() {
    let mut table = Table::new();
    let mut count = 0;
    for model in &MODELS {
        let dotted = model.prefixes.iter().map(|prefix| format!("{prefix}{}", model.path));
        let flat =
            model.flat.iter().map(|prefix| format!("{prefix}{}", model.path.replace('.', "_")));
        for module in dotted.chain(flat) {
            for suffix in SUFFIXES {
                table.check(model, &module, suffix);
                count += 1;
            }
        }
    }
    let faults = &table.faults;
    let text = faults.iter().map(|fault| fault.chars().take(300).collect::<String>());
    let text = text.collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} of {count} pairs:\n{text}", faults.len());
}
