//! Names that say which part of a model they mean: components of pipelines, roots of single files,
//! vision models whose stacks moved between releases; and names that could mean two tensors.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{Bench, Peft, Tensors};
use lora_tool::error::Result;
use lora_tool::ops::inspect;
use serde_json::{Value, json};

/// A tensor or module: name, rows (outputs), columns (inputs).
type Shape<'a> = (&'a str, usize, usize);

/// A safetensors file of zeros; a name `component/path` goes to a directory of a pipeline.
fn store(path: &Path, tensors: &[Shape<'_>]) {
    let mut files: BTreeMap<&str, Tensors> = BTreeMap::new();
    for (name, rows, columns) in tensors {
        let (component, name) = name.split_once('/').unwrap_or(("", name));
        let file = files.remove(component).unwrap_or_default();
        files.insert(component, file.f32(name, &[*rows, *columns], &vec![0.0; rows * columns]));
    }
    for (component, file) in files {
        if component.is_empty() {
            file.save(path);
            continue;
        }
        let directory = path.join(component);
        std::fs::create_dir_all(&directory).expect("a directory");
        let name = if component.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        file.save(&directory.join(format!("{name}.safetensors")));
    }
    if path.is_dir() {
        std::fs::write(path.join("model_index.json"), "{}").expect("written");
    }
}

/// Where modules of rank 1 land: the first tensor, and the places if they are parts.
fn landing(base: &[Shape<'_>], modules: &[Shape<'_>]) -> Result<BTreeMap<String, (String, Value)>> {
    let bench = Bench::new();
    let pipeline = base.iter().any(|(name, ..)| name.contains('/'));
    let path = bench.path(if pipeline { "base" } else { "base.safetensors" });
    store(&path, base);
    let adapter = bench.path("adapter.safetensors");
    let add = |file: Tensors, (name, outputs, inputs): &Shape<'_>| {
        file.f32(&format!("{name}.lora_down.weight"), &[1, *inputs], &vec![1.0; *inputs])
            .f32(&format!("{name}.lora_up.weight"), &[*outputs, 1], &vec![1.0; *outputs])
            .f32(&format!("{name}.alpha"), &[], &[1.0])
    };
    modules.iter().fold(Tensors::new(), add).save(&adapter);
    let options = inspect::Options {
        paths: vec![adapter],
        against: Some(path),
        ..inspect::Options::default()
    };
    let report = inspect::run(&options)?;
    let item = report.items.first().expect("an item");
    let place = |module: &inspect::ModuleItem| {
        let places = serde_json::to_value(&module.places).expect("JSON");
        (module.name.clone(), (module.base_tensor.clone().unwrap_or_default(), places))
    };
    Ok(item.modules.as_ref().expect("modules").iter().map(place).collect())
}

/// Holds every module to one tensor, and to the rows of it where some are said.
fn check(label: &str, base: &[Shape<'_>], modules: &[(Shape<'_>, &str, Option<[usize; 2]>)]) {
    let shapes: Vec<Shape<'_>> = modules.iter().map(|(shape, ..)| *shape).collect();
    let found = landing(base, &shapes).map_err(|error| error.to_string());
    let found = found.expect(label);
    for ((name, ..), tensor, rows) in modules {
        let places = rows.map_or(
            json!([]),
            |[start, end]| json!([{ "tensor": tensor, "rows": { "start": start, "end": end } }]),
        );
        assert_eq!(found.get(*name), Some(&((*tensor).to_owned(), places)), "{label}: {name}");
    }
}

const UNET: &str = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
const CLIP: &str = "text_model.encoder.layers.0.self_attn.q_proj";

#[test]
fn a_pipelines_components_are_told_apart() {
    let (unet, first, second) = (
        format!("unet/{UNET}.weight"),
        format!("text_encoder/{CLIP}.weight"),
        format!("text_encoder_2/{CLIP}.weight"),
    );
    let base = [(unet.as_str(), 4, 4), (&first, 4, 4), (&second, 6, 6)];
    let flat = |prefix: &str, name: &str| format!("{prefix}{}", name.replace('.', "_"));
    for [in_unet, in_first, in_second] in [
        [format!("unet.{UNET}"), format!("text_encoder.{CLIP}"), format!("text_encoder_2.{CLIP}")],
        [flat("lora_unet_", UNET), flat("lora_te1_", CLIP), flat("lora_te2_", CLIP)],
    ] {
        check(
            "a pipeline",
            &base,
            &[
                ((&in_unet, 4, 4), &unet, None),
                ((&in_first, 4, 4), &first, None),
                ((&in_second, 6, 6), &second, None),
            ],
        );
    }
    // Stable Diffusion 3 and Flux have a transformer, and T5 by another number each.
    let t5 = "encoder.block.0.layer.0.SelfAttention.q";
    for number in ["2", "3"] {
        let (transformer, first, last) = (
            "transformer/transformer_blocks.0.attn.to_q.weight",
            format!("text_encoder/{CLIP}.weight"),
            format!("text_encoder_{number}/{t5}.weight"),
        );
        let base = [(transformer, 4, 4), (first.as_str(), 4, 4), (&last, 6, 6)];
        let flat_t5 = t5.replace('.', "_");
        for spelled in [format!("lora_te{number}_{flat_t5}"), format!("lora_te3_{flat_t5}")] {
            check(
                "T5",
                &base,
                &[
                    (("lora_unet_transformer_blocks_0_attn_to_q", 4, 4), transformer, None),
                    ((&flat("lora_te1_", CLIP), 4, 4), &first, None),
                    ((&spelled, 6, 6), &last, None),
                ],
            );
        }
    }
}

#[test]
fn a_single_files_roots_are_told_apart() {
    let published = "input_blocks.4.1.transformer_blocks.0.attn1.to_q";
    let flat = |prefix: &str, name: &str| format!("{prefix}{}", name.replace('.', "_"));
    // (root of the denoiser, of the first text encoder, of the second, which is open_clip's)
    for (denoiser, first, second) in [
        (
            "model.diffusion_model.",
            "conditioner.embedders.0.transformer.",
            "conditioner.embedders.1.model.",
        ),
        (
            "diffusion_model.",
            "text_encoders.clip_l.transformer.",
            "text_encoders.clip_g.transformer.",
        ),
    ] {
        let unet = format!("{denoiser}{published}.weight");
        let te1 = format!("{first}{CLIP}.weight");
        let open_clip = second.ends_with(".model.");
        let te2 = match open_clip {
            true => format!("{second}transformer.resblocks.0.attn.in_proj_weight"),
            false => format!("{second}{CLIP}.weight"),
        };
        let rows = open_clip.then_some([0, 6]);
        let base = [(unet.as_str(), 4, 4), (&te1, 4, 4), (&te2, if open_clip { 18 } else { 6 }, 6)];
        check(
            denoiser,
            &base,
            &[
                ((&flat("lora_unet_", published), 4, 4), &unet, None),
                ((&flat("lora_te1_", CLIP), 4, 4), &te1, None),
                ((&flat("lora_te2_", CLIP), 6, 6), &te2, rows),
            ],
        );
    }
    // Stable Diffusion 1 has one, which kohya does not number; so has 2, fused.
    let te = format!("cond_stage_model.transformer.{CLIP}.weight");
    check("1", &[(&te, 4, 4)], &[((&flat("lora_te_", CLIP), 4, 4), &te, None)]);
    let te = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight";
    check("2", &[(te, 12, 4)], &[((&flat("lora_te_", CLIP), 4, 4), te, Some([0, 4]))]);
}

#[test]
fn names_that_flatten_alike_are_an_error() {
    let base = [("block.a_b.weight", 4, 4), ("block_a.b.weight", 4, 4), ("block.c.weight", 4, 4)];
    let error = landing(&base, &[("lora_unet_block_a_b", 4, 4)]).expect_err("two tensors");
    let said = error.to_string();
    assert!(said.contains("block.a_b.weight") && said.contains("block_a.b.weight"), "{said}");
    // Only who means them is in the way.
    check("another", &base, &[(("lora_unet_block_c", 4, 4), "block.c.weight", None)]);
}

#[test]
fn parts_of_vision_models_move_together_with_their_layouts() {
    // Phi-3's attention in a vision model: queries 6, keys and values 3 each.
    for (stored, asked) in [
        ("language_model.model.", "model.language_model."),
        ("model.language_model.", "language_model.model."),
        ("model.language_model.", "model."),
        ("language_model.model.", "model."),
        ("model.", "base_model_prefix.model."),
    ] {
        let name = |prefix: &str, rest: &str| format!("{prefix}layers.0.{rest}");
        let (qkv, o) =
            (name(stored, "self_attn.qkv_proj.weight"), name(stored, "self_attn.o_proj.weight"));
        let both = name(stored, "mlp.gate_up_proj.weight");
        let base = [(qkv.as_str(), 12, 5), (&o, 5, 6), (&both, 8, 5)];
        let asked = |rest: &str| name(asked, rest);
        check(
            stored,
            &base,
            &[
                ((&asked("self_attn.q_proj"), 6, 5), &qkv, Some([0, 6])),
                ((&asked("self_attn.k_proj"), 3, 5), &qkv, Some([6, 9])),
                ((&asked("self_attn.v_proj"), 3, 5), &qkv, Some([9, 12])),
                ((&asked("self_attn.o_proj"), 5, 6), &o, None),
                ((&asked("mlp.up_proj"), 4, 5), &both, Some([4, 8])),
            ],
        );
    }
    // A vision tower beside the language model: one move for both.
    check(
        "two towers",
        &[
            ("model.language_model.layers.0.self_attn.qkv_proj.weight", 12, 5),
            ("model.visual.blocks.0.attn.qkv.weight", 12, 4),
        ],
        &[
            (
                ("language_model.model.layers.0.self_attn.k_proj", 3, 5),
                "model.language_model.layers.0.self_attn.qkv_proj.weight",
                Some([6, 9]),
            ),
            (("visual.blocks.0.attn.qkv", 12, 4), "model.visual.blocks.0.attn.qkv.weight", None),
        ],
    );
}

#[test]
fn fused_attention_is_divided_where_the_base_says() {
    let base = [
        ("model.layers.0.self_attn.qkv_proj.weight", 12, 5),
        ("model.layers.0.self_attn.o_proj.weight", 5, 6),
    ];
    // By its own size alone this query would fit: 4 rows, and two times 4 behind them.
    for module in ["q_proj", "k_proj", "v_proj"] {
        let name = format!("model.layers.0.self_attn.{module}");
        let error = landing(&base, &[(&name, 4, 5)]).expect_err(module).to_string();
        assert!(error.contains("qkv_proj"), "{error}");
    }
}

#[test]
fn a_replaced_part_of_a_tensor_is_refused_by_name() {
    let bench = Bench::new();
    let base = bench.path("base.safetensors");
    store(&base, &[("model.layers.0.self_attn.qkv_proj.weight", 12, 5)]);
    let adapter = Peft::new(1, 1.0)
        .linear("model.layers.0.self_attn.q_proj", 1, &[1.0; 5], &[1.0; 6])
        .tensor("model.layers.0.self_attn.v_proj.weight", &[3, 5], &[1.0; 15])
        .save(&bench.path("adapter"));
    let said = bench.refuse(&base, &[&adapter], "");
    assert!(said.contains("self_attn.v_proj.weight") && said.contains("part"), "{said}");
}
