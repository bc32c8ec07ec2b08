//! What models' names have beside their two layouts: fused names of some trainers, ComfyUI's own modules,
//! a component of its own, roots of checkpoints; and what a peer's converter gets wrong.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::{Random, Tensors, product, read};

/// Random factors of modules of these names and sizes.
struct Made {
    path: PathBuf,
    deltas: BTreeMap<String, Vec<f64>>,
}

const RANK: usize = 2;

fn made(path: &Path, endings: [&str; 2], modules: &[(&str, usize, usize)]) -> Made {
    let mut random = Random::new(31);
    let (mut file, mut deltas) = (Tensors::new(), BTreeMap::new());
    for (name, outputs, inputs) in modules {
        let (a, b) = (random.values(RANK * inputs, 1.0), random.values(outputs * RANK, 1.0));
        file = file.f32(&format!("{name}.{}.weight", endings[0]), &[RANK, *inputs], &a).f32(
            &format!("{name}.{}.weight", endings[1]),
            &[*outputs, RANK],
            &b,
        );
        deltas.insert((*name).to_owned(), product(&b, &a, RANK));
    }
    Made { path: file.save(path), deltas }
}

/// The dense update of every module of a file without alphas, or with them.
fn deltas(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let file = read(path);
    let mut found = BTreeMap::new();
    for (name, tensor) in &file {
        for (down, up) in
            [(".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")]
        {
            let Some(module) = name.strip_suffix(down) else { continue };
            let f32s =
                |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
            let rank = tensor.shape[0];
            let (a, b) = (f32s(tensor.values()), f32s(file[&format!("{module}{up}")].values()));
            let alpha = file.get(&format!("{module}.alpha")).map(|alpha| alpha.values()[0]);
            let scale = alpha.map_or(1.0, |alpha| alpha / rank as f64);
            let dense = product(&b, &a, rank).into_iter().map(|value| value * scale).collect();
            found.insert(module.to_owned(), dense);
        }
    }
    found
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-5, "{what} is off by {off}");
}

/// A base of zeros.
fn zeros(path: &Path, tensors: &[(&str, usize, usize)]) -> PathBuf {
    let add = |file: Tensors, (name, rows, columns): &(&str, usize, usize)| {
        file.f32(&format!("{name}.weight"), &[*rows, *columns], &vec![0.0; rows * columns])
    };
    tensors.iter().fold(Tensors::new(), add).save(path)
}

/// What a merge into zeros leaves, by tensor.
fn merged(bench: &Bench, base: &Path, adapter: &Path) -> BTreeMap<String, Vec<f64>> {
    let (code, said) = bench.run("merge", &[base, adapter], "", "merged.safetensors");
    assert_eq!(code, Some(0), "{said}");
    let file = read(&bench.path("merged.safetensors"));
    file.into_iter().map(|(name, tensor)| (name, tensor.values())).collect()
}

/// FLUX.2's last modulation has shift before scale as published, and after it in diffusers; the converter
/// of adapters in diffusers 0.42 leaves the halves where they are.
#[test]
fn flux2_s_last_modulation_has_its_halves_exchanged() {
    let bench = Bench::new();
    let name = "diffusion_model.final_layer.adaLN_modulation.1";
    let block = "diffusion_model.single_blocks.0.linear1";
    let modules = [(name, 8, 4), (block, 36, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let there = deltas(&bench.convert(&own.path, "--to diffusers", "d.safetensors"));
    let half = 4 * 4;
    let swapped = [&own.deltas[name][half..], &own.deltas[name][..half]].concat();
    close(&there["transformer.norm_out.linear"], &swapped, name);
    close(
        &there["transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"],
        &own.deltas[block],
        block,
    );
    let base = zeros(
        &bench.path("base.safetensors"),
        &[("norm_out.linear", 8, 4), ("single_transformer_blocks.0.attn.to_qkv_mlp_proj", 36, 4)],
    );
    close(&merged(&bench, &base, &own.path)["norm_out.linear.weight"], &swapped, "merged");
}

/// diffusers has one class for both releases of Cosmos, and a width that is not the first one's 7B model's does not tell
/// them apart.
#[test]
fn a_cosmos_in_diffusers_names_takes_adapters_of_either_release() {
    let bench = Bench::new();
    let base = [
        ("transformer_blocks.2.attn1.to_q", 8, 8),
        ("transformer_blocks.2.norm1.linear_1", 4, 8),
        ("norm_out.linear_1", 4, 8),
    ];
    let base = zeros(&bench.path("base.safetensors"), &base);
    for published in [
        ["blocks.2.self_attn.q_proj", "blocks.2.adaln_modulation_self_attn.1"],
        ["blocks.block2.blocks.0.block.attn.to_q.0", "blocks.block2.blocks.0.adaLN_modulation.1"],
    ] {
        let [q, norm] = published.map(|name| format!("diffusion_model.{name}"));
        let path = bench.path("own.safetensors");
        let own = made(&path, ["lora_A", "lora_B"], &[(q.as_str(), 8, 8), (norm.as_str(), 4, 8)]);
        let merged = merged(&bench, &base, &own.path);
        close(&merged["transformer_blocks.2.attn1.to_q.weight"], &own.deltas[&q], &q);
        close(&merged["transformer_blocks.2.norm1.linear_1.weight"], &own.deltas[&norm], &norm);
    }
}

/// A trainer's fused projections are parts of the model's, whichever layout has them.
#[test]
fn projections_that_a_trainer_fused_are_rows_of_the_model_s() {
    let bench = Bench::new();
    let name = "transformer.transformer_blocks.0.attn.to_qkv";
    let beside = "transformer.transformer_blocks.0.attn.to_gate";
    // Few keys: 6 queries, 2 keys and values.
    let modules = [(name, 10, 6), (beside, 6, 6)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let rows = |start: usize, end: usize| &own.deltas[name][start * 6..end * 6];
    let there = deltas(&bench.convert(&own.path, "--to comfyui", "c.safetensors"));
    for (part, start, end) in [("wq", 0, 6), ("wk", 6, 8), ("wv", 8, 10)] {
        let name = format!("diffusion_model.blocks.0.attn.{part}");
        close(&there[&name], rows(start, end), &name);
    }
    for (prefix, names) in [
        ("blocks.0.attn", ["wq", "wk", "wv", "gate"]),
        ("transformer_blocks.0.attn", ["to_q", "to_k", "to_v", "to_gate"]),
    ] {
        let names = names.map(|name| format!("{prefix}.{name}"));
        let sizes = [6, 2, 2, 6];
        let tensors: Vec<(&str, usize, usize)> =
            names.iter().zip(sizes).map(|(name, rows)| (name.as_str(), rows, 6)).collect();
        let base = zeros(&bench.path("base.safetensors"), &tensors);
        let found = merged(&bench, &base, &own.path);
        for (name, (start, end)) in names.iter().zip([(0, 6), (6, 8), (8, 10)]) {
            close(&found[&format!("{name}.weight")], rows(start, end), name);
        }
    }
    // FLUX.2's are as many of each, and fused as published.
    let name = "transformer.transformer_blocks.0.attn.to_qkv";
    let modules = [(name, 12, 4), ("transformer.transformer_blocks.0.ff.linear_in", 24, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let base = zeros(
        &bench.path("base.safetensors"),
        &[
            ("double_blocks.0.img_attn.qkv", 12, 4),
            ("double_blocks.0.img_mlp.0", 24, 4),
            ("double_stream_modulation_img.lin", 24, 4),
        ],
    );
    let found = merged(&bench, &base, &own.path);
    close(&found["double_blocks.0.img_attn.qkv.weight"], &own.deltas[name], name);
}

/// Where ComfyUI's own model has other modules than the published one, its names are written.
#[test]
fn comfyui_gets_the_modules_that_its_models_have() {
    let bench = Bench::new();
    let [q, k, v] =
        ["q", "k", "v"].map(|part| format!("lora_unet_double_blocks_0_img_attn_{part}"));
    let mlp = "lora_unet_double_blocks_0_img_mlp_fc1";
    // What FLUX.1 does not have.
    let sign = "lora_unet_vision_in_proj_1";
    let modules =
        [(q.as_str(), 4, 4), (k.as_str(), 4, 4), (v.as_str(), 4, 4), (mlp, 16, 4), (sign, 4, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_down", "lora_up"], &modules);
    let there = bench.convert(&own.path, "--to comfyui", "c.safetensors");
    let found = deltas(&there);
    let joined = [&q, &k, &v].map(|name| own.deltas[name].clone()).concat();
    close(&found["diffusion_model.double_blocks.0.img_attn.qkv"], &joined, "qkv");
    close(&found["diffusion_model.double_blocks.0.img_mlp.0"], &own.deltas[mlp], "mlp");
    assert_eq!(found.len(), 3);
    // Back again it has the names of those who published it.
    let back = bench.convert(&there, "--to kohya", "k.safetensors");
    let found = deltas(&back);
    for (name, delta) in &own.deltas {
        close(&found[name], delta, name);
    }
    // A base of either spelling takes both.
    let base = zeros(
        &bench.path("base.safetensors"),
        &[
            ("double_blocks.0.img_attn.qkv", 12, 4),
            ("double_blocks.0.img_mlp.0", 16, 4),
            ("vision_in.proj.1", 4, 4),
        ],
    );
    for adapter in [&own.path, &there] {
        let found = merged(&bench, &base, adapter);
        close(&found["double_blocks.0.img_attn.qkv.weight"], &joined, "merged");
    }
    let gate = "transformer.transformer_blocks.0.img_mlp.gate_layer";
    let up = "transformer.transformer_blocks.0.img_mlp.proj";
    let modules = [(gate, 6, 4), (up, 6, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let found = deltas(&bench.convert(&own.path, "--to comfyui", "c.safetensors"));
    let joined = [own.deltas[gate].clone(), own.deltas[up].clone()].concat();
    close(&found["diffusion_model.transformer_blocks.0.img_mlp.gate_up"], &joined, "gate_up");
}

#[test]
fn ltx2_s_connectors_are_a_component_of_their_own() {
    let bench = Bench::new();
    let (connector, block) =
        ("text_embedding_projection.aggregate_embed", "diffusion_model.audio_patchify_proj");
    let modules = [(connector, 6, 4), (block, 8, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let there = bench.convert(&own.path, "--to diffusers", "d.safetensors");
    let found = deltas(&there);
    close(&found["connectors.text_proj_in"], &own.deltas[connector], connector);
    close(&found["transformer.audio_proj_in"], &own.deltas[block], block);
    let back = deltas(&bench.convert(&there, "--to comfyui", "c.safetensors"));
    for (name, delta) in &own.deltas {
        close(&back[name], delta, name);
    }
    let base = zeros(
        &bench.path("base.safetensors"),
        &[(connector, 6, 4), ("model.diffusion_model.audio_patchify_proj", 8, 4)],
    );
    let found = merged(&bench, &base, &there);
    close(&found[&format!("{connector}.weight")], &own.deltas[connector], connector);
    let flat = bench.convert(&there, "--to kohya", "k.safetensors");
    let found = deltas(&flat);
    let name = "lora_unet_text_embedding_projection_aggregate_embed";
    close(&found[name], &own.deltas[connector], name);
    close(&found["lora_unet_audio_patchify_proj"], &own.deltas[block], block);
    let found = merged(&bench, &base, &flat);
    close(&found[&format!("{connector}.weight")], &own.deltas[connector], connector);
    let back = deltas(&bench.convert(&flat, "--to diffusers", "d2.safetensors"));
    close(&back["connectors.text_proj_in"], &own.deltas[connector], connector);
}

/// No pipeline of diffusers has it: its names are the same everywhere.
#[test]
fn what_hears_speech_in_wan_has_one_name() {
    let bench = Bench::new();
    let injector = "audio_injector.injector.0.q";
    let others = [
        "audio_injector.injector_adain_layers.0.linear",
        "casual_audio_encoder.encoder.conv1_local.conv",
        "casual_audio_encoder.encoder.final_linear",
        "frame_packer.proj_2x",
        "cond_encoder",
    ];
    let flat = |name: &str| format!("lora_unet_{}", name.replace('.', "_"));
    let names: Vec<String> = [injector].into_iter().chain(others).map(flat).collect();
    let modules: Vec<(&str, usize, usize)> = names.iter().map(|n| (n.as_str(), 6, 4)).collect();
    let own = made(&bench.path("a.safetensors"), ["lora_down", "lora_up"], &modules);
    let there = bench.convert(&own.path, "--to comfyui", "c.safetensors");
    let found = deltas(&there);
    for name in [injector].into_iter().chain(others) {
        close(&found[&format!("diffusion_model.{name}")], &own.deltas[&flat(name)], name);
    }
    let back = deltas(&bench.convert(&there, "--to kohya", "k.safetensors"));
    for (name, delta) in &own.deltas {
        close(&back[name], delta, name);
    }
}

#[test]
fn anima_s_text_conditioner_is_a_component_of_its_own() {
    let bench = Bench::new();
    let (body, adapter) = ("blocks.0.adaln_modulation_mlp.1", "blocks.0.cross_attn.o_proj");
    let [dotted, flat] = [
        [format!("diffusion_model.{body}"), format!("diffusion_model.llm_adapter.{adapter}")],
        [body, adapter].map(|path| {
            let adapter = if path == body { "" } else { "llm_adapter_" };
            format!("lora_unet_{adapter}{}", path.replace('.', "_"))
        }),
    ];
    let component = [
        "transformer.transformer_blocks.0.norm3.linear_1",
        "text_conditioner.blocks.0.cross_attn.o_proj",
    ];
    let modules = [(dotted[0].as_str(), 6, 4), (dotted[1].as_str(), 8, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let there = bench.convert(&own.path, "--to diffusers", "d.safetensors");
    let found = deltas(&there);
    for (component, name) in component.iter().zip(&dotted) {
        close(&found[*component], &own.deltas[name], name);
    }
    for (to, names) in [("comfyui", &dotted), ("kohya", &flat)] {
        let out = bench.convert(&there, &format!("--to {to}"), "o.safetensors");
        let back = deltas(&out);
        for (name, first) in names.iter().zip(&dotted) {
            close(&back[name], &own.deltas[first], name);
        }
        let again = deltas(&bench.convert(&out, "--to diffusers", "e.safetensors"));
        assert_eq!(again, found, "{to}");
        for root in ["net.", "model.diffusion_model."] {
            let tensors = [format!("{root}{body}"), format!("{root}llm_adapter.{adapter}")];
            let base =
                zeros(&bench.path("base.safetensors"), &[(&tensors[0], 6, 4), (&tensors[1], 8, 4)]);
            let found = merged(&bench, &base, &out);
            for (tensor, first) in tensors.iter().zip(&dotted) {
                close(&found[&format!("{tensor}.weight")], &own.deltas[first], tensor);
            }
        }
    }
}

/// Cosmos' checkpoints have a root of their own, which adapters do not have.
#[test]
fn cosmos_lands_below_its_root() {
    let bench = Bench::new();
    let name = "transformer.transformer_blocks.0.attn1.to_out.0";
    let modules = [(name, 4, 4), ("transformer.transformer_blocks.0.norm1.linear_1", 4, 4)];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let base = zeros(
        &bench.path("base.safetensors"),
        &[
            ("net.blocks.0.self_attn.output_proj", 4, 4),
            ("net.blocks.0.adaln_modulation_self_attn.1", 4, 4),
        ],
    );
    let found = merged(&bench, &base, &own.path);
    close(&found["net.blocks.0.self_attn.output_proj.weight"], &own.deltas[name], name);
}

/// Names that several models share are no model's: there is nothing to be told, and nothing is claimed.
#[test]
fn what_no_table_knows_is_refused() {
    let bench = Bench::new();
    let modules = [
        ("diffusion_model.brand_new.blocks.0.mlp.0", 4, 4),
        ("diffusion_model.blocks.0.self_attn.q_proj", 4, 4),
    ];
    let own = made(&bench.path("a.safetensors"), ["lora_A", "lora_B"], &modules);
    let said = bench.refuse(&own.path, "--to diffusers", "d.safetensors");
    assert!(said.contains("brand_new.blocks.0.mlp.0"), "{said}");
}

/// ai-toolkit has the lengths of DoRA in a tensor of a name of its own.
#[test]
fn ai_toolkit_s_magnitudes_are_dora_s() {
    let bench = Bench::new();
    let (a, b): (Vec<f32>, Vec<f32>) = (vec![0.5, -0.25], vec![1.0, 2.0]);
    let name = "diffusion_model.blocks.0.attn.wq";
    let add = |ending: &str| {
        Tensors::new()
            .f32(&format!("{name}.lora_A.weight"), &[1, 2], &a)
            .f32(&format!("{name}.lora_B.weight"), &[2, 1], &b)
            .f32(&format!("{name}.{ending}"), &[2], &[3.0, 4.0])
    };
    let base = Tensors::new()
        .f32("blocks.0.attn.wq.weight", &[2, 2], &[1.0, 0.5, -1.0, 2.0])
        .save(&bench.path("base.safetensors"));
    let adapter = |ending: &str| add(ending).save(&bench.path("a.safetensors"));
    let found = merged(&bench, &base, &adapter("magnitude"));
    // Row r is m · (w + b·a) / ‖w + b·a‖.
    let rows = [[1.5, 0.25, 3.0], [0.0, 1.5, 4.0]];
    let expected = rows.map(|[x, y, m]| {
        let length = f64::hypot(x, y);
        [m * x / length, m * y / length]
    });
    close(&found["blocks.0.attn.wq.weight"], &expected.concat(), name);
    assert_eq!(found, merged(&bench, &base, &adapter("lora_magnitude_vector")));
}

/// Names that a trainer shortened, flattened without a prefix, or gave a second time step.
#[test]
fn names_of_single_trainers_have_places() {
    let bench = Bench::new();
    let convert = |modules: &[(&str, usize, usize)], endings: [&str; 2], to: &str| {
        let own = made(&bench.path("a.safetensors"), endings, modules);
        (own.deltas, deltas(&bench.convert(&own.path, &format!("--to {to}"), "o.safetensors")))
    };
    let modules = [
        ("transformer.sformer_blocks.0.attn.to_k", 4, 4),
        ("transformer.sformer_blocks.0.ff.linear_in", 24, 4),
    ];
    let (own, found) = convert(&modules, ["lora_A", "lora_B"], "comfyui");
    let feed = "diffusion_model.double_blocks.0.img_mlp.0";
    close(&found[feed], &own["transformer.sformer_blocks.0.ff.linear_in"], feed);
    let fused = &found["diffusion_model.double_blocks.0.img_attn.qkv"][4 * 4..8 * 4];
    close(fused, &own["transformer.sformer_blocks.0.attn.to_k"], "the keys");
    let modules = [
        ("lycoris_transformer_blocks_0_attn_to_qkv", 10, 6),
        ("lycoris_transformer_blocks_0_attn_to_gate", 6, 6),
    ];
    let (own, found) = convert(&modules, ["lora_down", "lora_up"], "diffusers");
    let gate = "transformer.transformer_blocks.0.attn.to_gate";
    close(&found[gate], &own["lycoris_transformer_blocks_0_attn_to_gate"], gate);
    let fused = &own["lycoris_transformer_blocks_0_attn_to_qkv"];
    for (part, start, end) in [("to_q", 0, 6), ("to_k", 6, 8), ("to_v", 8, 10)] {
        let name = format!("transformer.transformer_blocks.0.attn.{part}");
        close(&found[&name], &fused[start * 6..end * 6], &name);
    }
    let time = "diffusion_model.t_embedder_2.mlp.0";
    let modules = [("diffusion_model.layers.0.attention.to_q", 6, 6), (time, 6, 4)];
    let (own, found) = convert(&modules, ["lora_A", "lora_B"], "diffusers");
    close(&found["transformer.t_embedder_2.mlp.0"], &own[time], time);
}
