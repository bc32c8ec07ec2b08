//! Every spelling of a layer's name and of its factors that files in circulation have: which convention it
//! is read in, where it lands, and what it is called in every other convention, there and back.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::deltas::Deltas;
use crate::common::{Random, Tensors, product, read};
use lora_tool::adapter::{Adapter, OpenOptions};
use lora_tool::format::Dtype;

const OUTPUTS: usize = 6;
const INPUTS: usize = 4;
const RANK: usize = 3;

/// A layer: the file of a base (a pipeline's after its directory and its model) that has it, its tensor there, and its names in [`TARGETS`]; `-` where
/// there is none.
struct Site {
    file: &'static str,
    tensor: &'static str,
    names: [&'static str; 4],
}

const TARGETS: [&str; 4] = ["kohya", "comfyui", "diffusers", "peft"];

const UNET: Site = Site {
    file: "sd/unet/diffusion_pytorch_model.safetensors",
    tensor: "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    names: [
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_out.0",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    ],
};

const CLIP: Site = Site {
    file: "sd/text_encoder/model.safetensors",
    tensor: "text_model.encoder.layers.0.self_attn.out_proj",
    names: [
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
        "text_model.encoder.layers.0.self_attn.out_proj",
    ],
};

/// The same, of a pipeline with several encoders.
const FIRST: Site = Site {
    file: "xl/text_encoder/model.safetensors",
    tensor: "text_model.encoder.layers.0.self_attn.out_proj",
    names: [
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
        "text_model.encoder.layers.0.self_attn.out_proj",
    ],
};

const SECOND: Site = Site {
    file: "xl/text_encoder_2/model.safetensors",
    tensor: "text_model.encoder.layers.0.self_attn.out_proj",
    names: [
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te2_text_model_encoder_layers_0_self_attn_out_proj",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj",
        "text_model.encoder.layers.0.self_attn.out_proj",
    ],
};

const T5: Site = Site {
    file: "sd3/text_encoder_3/model.safetensors",
    tensor: "encoder.block.0.layer.0.SelfAttention.q",
    names: [
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
        "encoder.block.0.layer.0.SelfAttention.q",
    ],
};

/// The text encoder of Stable Cascade, where a prefix says that it is this one.
const PRIOR_CLIP: Site = Site {
    names: [
        "lora_prior_te_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_prior_te_text_model_encoder_layers_0_self_attn_out_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
        "text_model.encoder.layers.0.self_attn.out_proj",
    ],
    ..CLIP
};

/// Stable Cascade's prior.
const PRIOR: Site = Site {
    file: "cascade/prior/diffusion_pytorch_model.safetensors",
    tensor: "down_blocks.0.2.attention.to_k",
    names: [
        "lora_prior_unet_down_blocks_0_2_attention_attn_to_k",
        "diffusion_model.down_blocks.0.2.attention.attn.to_k",
        "prior.down_blocks.0.2.attention.to_k",
        "down_blocks.0.2.attention.to_k",
    ],
};

const FLUX: Site = Site {
    file: "flux.safetensors",
    tensor: "single_blocks.0.linear2",
    names: [
        "lora_unet_single_blocks_0_linear2",
        "diffusion_model.single_blocks.0.linear2",
        "transformer.single_transformer_blocks.0.proj_out",
        "single_transformer_blocks.0.proj_out",
    ],
};

const WAN: Site = Site {
    file: "wan.safetensors",
    tensor: "blocks.0.self_attn.o",
    names: [
        "lora_unet_blocks_0_self_attn_o",
        "diffusion_model.blocks.0.self_attn.o",
        "transformer.blocks.0.attn1.to_out.0",
        "blocks.0.attn1.to_out.0",
    ],
};

const QWEN: Site = Site {
    file: "qwen.safetensors",
    tensor: "transformer_blocks.0.img_mlp.net.2",
    names: [
        "lora_unet_transformer_blocks_0_img_mlp_net_2",
        "diffusion_model.transformer_blocks.0.img_mlp.net.2",
        "transformer.transformer_blocks.0.img_mlp.net.2",
        "transformer_blocks.0.img_mlp.net.2",
    ],
};

/// Layers of the bases' files that tell their architectures.
const SIGNS: [(&str, &str); 4] = [
    (UNET.file, "down_blocks.0.resnets.0.conv1"),
    (FLUX.file, "double_blocks.0.img_attn.qkv"),
    (WAN.file, "blocks.0.self_attn.q"),
    (WAN.file, "time_projection.1"),
];

/// How a file calls a layer, and the convention it is then read in; alphas beside diffusers' names are
/// kohya's way to say scales.
const NAMES: [(&str, Site, &str); 38] = [
    ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", UNET, "kohya"),
    ("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0", UNET, "kohya"),
    ("lycoris_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", UNET, "kohya"),
    ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", UNET, "diffusers"),
    ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out", UNET, "diffusers"),
    ("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", UNET, "kohya"),
    ("diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_out.0", UNET, "comfyui"),
    ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_out.0", UNET, "kohya"),
    ("lora_te_text_model_encoder_layers_0_self_attn_out_proj", CLIP, "kohya"),
    ("lora_prior_te_text_model_encoder_layers_0_self_attn_out_proj", PRIOR_CLIP, "kohya"),
    ("lycoris_text_model_encoder_layers_0_self_attn_out_proj", CLIP, "kohya"),
    ("text_encoder.text_model.encoder.layers.0.self_attn.out_proj", CLIP, "diffusers"),
    ("text_encoder.text_model.encoder.layers.0.self_attn.to_out", CLIP, "diffusers"),
    (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.out_proj",
        CLIP,
        "comfyui",
    ),
    ("text_model.encoder.layers.0.self_attn.out_proj", CLIP, "kohya"),
    ("lora_te1_text_model_encoder_layers_0_self_attn_out_proj", FIRST, "kohya"),
    ("lora_te2_text_model_encoder_layers_0_self_attn_out_proj", SECOND, "kohya"),
    ("text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj", SECOND, "diffusers"),
    (
        "text_encoders.clip_g.transformer.text_model.encoder.layers.0.self_attn.out_proj",
        SECOND,
        "comfyui",
    ),
    ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", T5, "kohya"),
    ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", T5, "diffusers"),
    ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q", T5, "comfyui"),
    ("lora_prior_unet_down_blocks_0_2_attention_to_k", PRIOR, "kohya"),
    ("prior.down_blocks.0.2.attention.to_k", PRIOR, "diffusers"),
    ("lora_unet_single_blocks_0_linear2", FLUX, "kohya"),
    ("lora_transformer_single_transformer_blocks_0_proj_out", FLUX, "kohya"),
    ("lycoris_single_transformer_blocks_0_proj_out", FLUX, "kohya"),
    ("single_blocks.0.linear2", FLUX, "kohya"),
    ("diffusion_model.single_blocks.0.linear2", FLUX, "comfyui"),
    ("transformer.single_transformer_blocks.0.proj_out", FLUX, "diffusers"),
    ("single_transformer_blocks.0.proj_out", FLUX, "kohya"),
    ("lora_unet__blocks_0_self_attn_o", WAN, "kohya"),
    ("diffusion_model.blocks.0.self_attn.o", WAN, "comfyui"),
    ("transformer.blocks.0.attn1.to_out.0", WAN, "diffusers"),
    ("lora_unet_transformer_blocks_0_img_mlp_net_2", QWEN, "kohya"),
    ("lora_transformer_transformer_blocks_0_img_mlp_net_2", QWEN, "kohya"),
    ("transformer_blocks.0.img_mlp.net.2", QWEN, "kohya"),
    ("transformer.transformer_blocks.0.img_mlp.net.2", QWEN, "diffusers"),
];

/// How a file calls the two factors.
const ENDINGS: [(&str, &str); 10] = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down", ".lora_up"),
    (".lora_A", ".lora_B"),
    ("_lora.down", "_lora.up"),
    (".lora.down", ".lora.up"),
];

/// Names that have endings of their own: the name of A, that of B, and what was said above.
const WHOLE: [(&str, &str, Site, &str); 3] = [
    (
        "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
        UNET,
        "diffusers",
    ),
    (
        "single_blocks.0.processor.proj_lora.down.weight",
        "single_blocks.0.processor.proj_lora.up.weight",
        FLUX,
        "xlabs",
    ),
    (
        "diffusion_model.single_blocks.0.processor.proj_lora.down.weight",
        "diffusion_model.single_blocks.0.processor.proj_lora.up.weight",
        FLUX,
        "xlabs",
    ),
];

/// A directory with bases that have all layers.
struct World {
    bench: Bench,
    down: Vec<f32>,
    up: Vec<f32>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let mut random = Random::new(3);
        for Site { file, tensor, .. } in [UNET, CLIP, FIRST, SECOND, T5, PRIOR, FLUX, WAN, QWEN] {
            let mut made = Tensors::new();
            let signs = SIGNS.iter().filter(|(own, _)| *own == file).map(|(_, sign)| *sign);
            for name in signs.chain([tensor]) {
                let values = random.values(OUTPUTS * INPUTS, 0.5);
                let name = format!("{name}.weight");
                made = made.float(&name, Dtype::F64, &[OUTPUTS, INPUTS], &values);
            }
            made.save(&bench.path(file));
        }
        let (down, up) = (random.values(RANK * INPUTS, 0.5), random.values(OUTPUTS * RANK, 0.5));
        Self { bench, down, up }
    }

    /// An adapter of one module. An alpha stands beside it where a number is given.
    fn adapter(&self, down: &str, up: &str, alpha: Option<(&str, f32)>) -> PathBuf {
        let mut file = Tensors::new().f32(down, &[RANK, INPUTS], &self.down).f32(
            up,
            &[OUTPUTS, RANK],
            &self.up,
        );
        if let Some((module, alpha)) = alpha {
            file = file.f32(&format!("{module}.alpha"), &[], &[alpha]);
        }
        file.save(&self.bench.path("adapter.safetensors"))
    }

    /// The base, all of a pipeline; of a PEFT adapter, which is for one model, that model.
    fn base(&self, site: &Site, convention: &str) -> PathBuf {
        self.bench.path(match site.file.rsplit_once('/') {
            Some((model, _)) if convention == "peft" => model,
            Some((model, _)) => model.split('/').next().expect("a directory"),
            None => site.file,
        })
    }

    /// What is wrong with a merge, element by element against scale · B · A in f64.
    fn lands(&self, site: &Site, adapter: &Path, scale: f64, convention: &str) -> Option<String> {
        let base = self.base(site, convention);
        let to = if base.is_dir() { "merged" } else { "merged.safetensors" };
        let (code, said) = self.bench.run("merge", &[&base, adapter], "", to);
        if code != Some(0) {
            return Some(said);
        }
        let (before, after) = (read(&base), read(&self.bench.path(to)));
        let delta = product(&self.up, &self.down, RANK);
        let own = match site.file.split('/').nth(1) {
            Some(model) if convention != "peft" => format!("{model}/{}.weight", site.tensor),
            _ => format!("{}.weight", site.tensor),
        };
        for (name, tensor) in &before {
            let found = after[name].values();
            for ((after, before), delta) in found.iter().zip(tensor.values()).zip(&delta) {
                let expected = if *name == own { before + scale * delta } else { before };
                if (after - expected).abs() > 1e-6 {
                    return Some(format!("{name} is {after} where it should be {expected}"));
                }
            }
        }
        None
    }

    /// Opens, merges, converts to every convention and back. What is wrong, a line each.
    fn check(&self, site: &Site, adapter: &Path, convention: &str, scale: f64) -> Vec<String> {
        let opened = Adapter::open(adapter, &OpenOptions::default()).expect("opens");
        let mut faults = Vec::new();
        if opened.convention.name != convention {
            faults.push(format!("read as {}", opened.convention.name));
        }
        faults.extend(self.lands(site, adapter, scale, convention));
        let original = Deltas::of(adapter);
        let flags = |to: &str, base: &Path| format!("--to {to} --reference {}", base.display());
        for (to, name) in TARGETS.into_iter().zip(site.names) {
            let out = if to == "peft" { "there" } else { "there.safetensors" };
            let base = self.base(site, convention);
            let (code, said) = self.bench.run("convert", &[adapter], &flags(to, &base), out);
            if code != Some(0) {
                faults.push(format!("to {to}: {said}"));
                continue;
            }
            let there = self.bench.path(out);
            let names: Vec<String> = Deltas::of(&there).0.into_keys().collect();
            if to != convention && names != [name] {
                faults.push(format!("to {to}: {names:?} instead of {name}"));
            }
            let landed = self.lands(site, &there, scale, to);
            faults.extend(landed.map(|what| format!("to {to}: {what}")));
            // PEFT's names do not say which of two encoders they are of.
            let own = TARGETS.into_iter().find(|own| *own == convention).unwrap_or("comfyui");
            if to == "peft" && site.file.contains("_2/") {
                continue;
            }
            let flags = flags(own, &self.base(site, to));
            let (code, said) = self.bench.run("convert", &[&there], &flags, "back.safetensors");
            if code != Some(0) {
                faults.push(format!("back from {to}: {said}"));
                continue;
            }
            let back = self.bench.path("back.safetensors");
            let (before, after) =
                (original.0.values().next(), Deltas::of(&back).0.into_values().next());
            let dense = |delta: &lora_tool::math::LowRank| &delta.up * &delta.down;
            let same = before.zip(after).is_some_and(|(a, b)| (dense(a) - dense(&b)).norm() < 1e-6);
            if !same {
                faults.push(format!("back from {to}: another delta"));
            }
            let landed = self.lands(site, &back, scale, own);
            faults.extend(landed.map(|what| format!("back from {to}: {what}")));
        }
        faults
    }
}

fn read_as(convention: &'static str, alpha: bool) -> &'static str {
    if alpha && convention == "diffusers" { "kohya" } else { convention }
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_name_lands_and_goes_to_every_convention_and_back() {
    let world = World::new();
    let mut faults = Vec::new();
    for (at, (module, site, convention)) in NAMES.iter().enumerate() {
        // Each name has another two of the endings, one without an alpha.
        for (ending, alpha) in [(at, Some(2.0)), (at + 5, None)] {
            let (down, up) = ENDINGS[ending % ENDINGS.len()];
            let names = (format!("{module}{down}"), format!("{module}{up}"));
            let beside = alpha.map(|alpha| (*module, alpha));
            let adapter = world.adapter(&names.0, &names.1, beside);
            let scale = alpha.map_or(1.0, |alpha| f64::from(alpha) / RANK as f64);
            let read_as = read_as(convention, alpha.is_some());
            let wrong = world.check(site, &adapter, read_as, scale);
            faults.extend(wrong.into_iter().map(|what| format!("{}: {what}", names.0)));
        }
    }
    for (down, up, site, convention) in &WHOLE {
        let adapter = world.adapter(down, up, None);
        let wrong = world.check(site, &adapter, convention, 1.0);
        faults.extend(wrong.into_iter().map(|what| format!("{down}: {what}")));
    }
    report(&faults);
}

#[test]
fn every_ending_is_understood_behind_every_kind_of_name() {
    let world = World::new();
    let mut faults = Vec::new();
    for (module, site, convention) in NAMES.iter().step_by(3) {
        for (number, (down, up)) in ENDINGS.iter().enumerate() {
            let alpha = (number % 2 == 0).then_some((*module, 1.5));
            let adapter =
                world.adapter(&format!("{module}{down}"), &format!("{module}{up}"), alpha);
            let opened = Adapter::open(&adapter, &OpenOptions::default()).expect("opens");
            let scale = opened.modules.first().map(|module| module.scale.value);
            let expected = if alpha.is_some() { 0.5 } else { 1.0 };
            let read_as = read_as(convention, alpha.is_some());
            if opened.convention.name != read_as || scale != Some(expected) {
                let what = (opened.convention.name, scale);
                faults.push(format!("{module}{down}: {what:?}"));
            }
            let landed = world.lands(site, &adapter, expected, convention);
            faults.extend(landed.map(|what| format!("{module}{down}: {what}")));
        }
    }
    report(&faults);
}
