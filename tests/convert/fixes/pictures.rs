//! Models of pictures in either layout, and adapters of them that some program wants otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{PAINTERS, World};
use crate::common::keys::{Line, proportional};
use crate::common::{Random, Tensors};

const RANK: usize = 2;

/// A base of some of a model's modules: in diffusers' layout with its class, or as it was published.
fn base(directory: &Path, lines: &[Line], class: Option<&str>) -> PathBuf {
    let mut weights: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in lines {
        match class {
            Some(_) => weights.insert(format!("{}.weight", line.module), line.shape()),
            None => weights.insert(line.tensor.clone(), (line.rows, line.columns)),
        };
    }
    let mut random = Random::new(1);
    let file = weights.iter().fold(Tensors::new(), |file, (name, (rows, columns))| {
        file.f32(name, &[*rows, *columns], &random.values(rows * columns, 0.1))
    });
    file.save(&directory.join("model.safetensors"));
    if let Some(class) = class {
        let text = json!({ "_class_name": class }).to_string();
        std::fs::write(directory.join("config.json"), text).expect("written");
    }
    directory.to_path_buf()
}

/// How an adapter spells modules and factors.
#[derive(Clone, Copy)]
struct Spelling {
    prefix: &'static str,
    published: bool,
    ends: [&'static str; 2],
    alpha: Option<f32>,
}

const NEW: [&str; 2] = ["lora_A", "lora_B"];
const OLD: [&str; 2] = ["lora_down", "lora_up"];
const OWN: Spelling = Spelling { prefix: "transformer.", published: false, ends: NEW, alpha: None };
const KOHYA: Spelling =
    Spelling { prefix: "lora_unet_", published: true, ends: OLD, alpha: Some(1.0) };
const DOTTED: Spelling =
    Spelling { prefix: "diffusion_model.", published: true, ends: NEW, alpha: None };

/// The modules of a spelling with their sizes.
fn modules(lines: &[Line], own: Spelling) -> BTreeMap<String, (usize, usize)> {
    let module = |line: &Line| {
        let (stem, size) = match own.published {
            true => (line.tensor.trim_end_matches(".weight"), (line.rows, line.columns)),
            false => (line.module.as_str(), line.shape()),
        };
        let flat = own.prefix.ends_with('_');
        let stem = if flat { stem.replace('.', "_") } else { stem.to_owned() };
        (format!("{}{stem}", own.prefix), size)
    };
    lines.iter().map(module).collect()
}

fn factors(lines: &[Line], own: Spelling) -> Tensors {
    let mut random = Random::new(7);
    let mut file = Tensors::new();
    for (name, (outputs, inputs)) in modules(lines, own) {
        let [down, up] = own.ends.map(|end| format!("{name}.{end}.weight"));
        file = file.f32(&down, &[RANK, inputs], &random.values(RANK * inputs, 0.1)).f32(
            &up,
            &[outputs, RANK],
            &random.values(outputs * RANK, 0.1),
        );
        if let Some(alpha) = own.alpha {
            file = file.f32(&format!("{name}.alpha"), &[], &[alpha]);
        }
    }
    file
}

/// The same with ranks and alphas in the header, as diffusers writes them.
fn headed(mut file: Tensors) -> Tensors {
    let said = json!({ "transformer.r": RANK, "transformer.lora_alpha": 1 }).to_string();
    let entries = [("lora_adapter_metadata".to_owned(), said)];
    file.metadata.get_or_insert_default().extend(entries);
    file
}

/// The same with magnitudes of the outputs.
fn decomposed(lines: &[Line], own: Spelling) -> Tensors {
    modules(lines, own).into_iter().fold(factors(lines, own), |file, (name, (outputs, _))| {
        let values: Vec<f32> = (0..outputs).map(|at| 0.5 + (at % 3) as f32).collect();
        file.f32(&format!("{name}.dora_scale"), &[outputs, 1], &values)
    })
}

fn blocks(list: &str, wanted: &[&str]) -> Vec<Line> {
    let all = proportional(list).into_iter();
    all.filter(|line| wanted.iter().any(|part| line.module.contains(part))).collect()
}

/// Bases of both layouts with adapters, and who is asked of which.
pub(super) fn worlds(scratch: &Path) -> Vec<World> {
    let mut worlds = Vec::new();
    for (list, class, wanted) in [
        ("flux", "FluxTransformer2DModel", &["transformer_blocks.0.", "x_embedder"][..]),
        ("wan_t2v", "WanTransformer3DModel", &["blocks.0."][..]),
        ("qwen_image", "QwenImageTransformer2DModel", &["transformer_blocks.0."][..]),
    ] {
        let lines = blocks(list, wanted);
        let path = |name: &str| scratch.join(format!("{list} {name}"));
        let save = |name: &str, file: Tensors| file.save(&path(&format!("{name}.safetensors")));
        let adapters = vec![
            ("diffusers' names", save("own", factors(&lines, OWN))),
            ("the header's alpha", save("header", headed(factors(&lines, OWN)))),
            (
                "an alpha beside them",
                save("alpha", factors(&lines, Spelling { alpha: Some(1.0), ..OWN })),
            ),
            ("kohya's", save("kohya", factors(&lines, KOHYA))),
            ("published names", save("dotted", factors(&lines, DOTTED))),
            ("DoRA", save("dora", decomposed(&lines, KOHYA))),
        ];
        let all = proportional(list);
        let own = base(&path("diffusers"), &all, Some(class));
        let published = base(&path("published"), &all, None);
        let is_own = |program: &str| program.starts_with("diffusers") || program == "nunchaku";
        let (theirs, others): (Vec<_>, Vec<_>) =
            PAINTERS.into_iter().partition(|name| is_own(name));
        worlds.push(World { base: own, adapters: adapters.clone(), programs: theirs });
        worlds.push(World { base: published, adapters, programs: others });
    }
    worlds
}

/// Rules of which some adapter here gets a fix, by program.
pub(super) const EXPECTED: [(&str, &[&str]); 7] = [
    ("comfyui", &["names", "scale"]),
    ("diffusers", &["alpha", "magnitudes", "names"]),
    ("diffusers@0.39", &["alpha", "magnitudes", "names"]),
    ("forge", &["scale"]),
    ("invokeai", &["scale"]),
    ("nunchaku", &["dora", "names"]),
    ("stable-diffusion.cpp", &["dora", "names", "scale"]),
];
