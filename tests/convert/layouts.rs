//! Adapters between the layouts of every known architecture: names, rows and bytes against the key lists
//! of the models themselves, there and back.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::keys::{Line, Place, proportional};
use crate::common::{Random, Tensors, read};
use lora_tool::adapter::{Adapter, OpenOptions};
use lora_tool::format::Dtype;

/// An architecture's key list, diffusers' component, and whether kohya's scripts use diffusers' names.
const DENOISERS: [(&str, &str, bool); 12] = [
    ("sd15", "unet", true),
    ("sd2", "unet", true),
    ("sdxl", "unet", false),
    ("sd3", "transformer", false),
    ("sd35_medium", "transformer", false),
    ("flux", "transformer", false),
    ("pixart", "transformer", false),
    ("wan_t2v", "transformer", false),
    ("wan_i2v", "transformer", false),
    ("lumina2", "transformer", false),
    ("z_image", "transformer", false),
    ("hunyuan_video", "transformer", false),
];

/// Rows of a dense delta, by module.
type Deltas = BTreeMap<String, Vec<Vec<f64>>>;

/// Modules of an adapter in the making: name, outputs, inputs.
type Modules = Vec<(String, usize, usize)>;

/// An adapter with random factors of this rank, an alpha beside each module; in kohya's endings.
fn adapter(path: &Path, modules: &Modules, rank: usize, dtype: Dtype) -> PathBuf {
    let mut random = Random::new(11);
    let mut file = Tensors::new();
    for (at, (name, outputs, inputs)) in modules.iter().enumerate() {
        let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 1.0));
        let (d, u) = (format!("{name}.lora_down.weight"), format!("{name}.lora_up.weight"));
        file = file
            .float(&d, dtype, &[rank, *inputs], &down)
            .float(&u, dtype, &[*outputs, rank], &up)
            .f32(&format!("{name}.alpha"), &[], &[1.0 + (at % 5) as f32]);
    }
    file.save(path)
}

/// The same in diffusers' endings, all of one scale, which the header's config says.
fn diffusers(path: &Path, component: &str, modules: &Modules, rank: usize) -> PathBuf {
    let mut random = Random::new(12);
    let mut file = Tensors::new();
    for (name, outputs, inputs) in modules {
        let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 1.0));
        file = file.f32(&format!("{component}.{name}.lora_A.weight"), &[rank, *inputs], &down).f32(
            &format!("{component}.{name}.lora_B.weight"),
            &[*outputs, rank],
            &up,
        );
    }
    let entry = format!(r#"{{"{component}.r": {rank}, "{component}.lora_alpha": 3}}"#);
    let metadata = file.metadata.as_mut().expect("metadata");
    metadata.insert("lora_adapter_metadata".to_owned(), entry);
    file.save(path)
}

fn deltas(path: &Path) -> Deltas {
    let adapter = Adapter::open(path, &OpenOptions::default()).expect("opens");
    assert!(adapter.faults.is_empty(), "{:?}", adapter.faults);
    let of = |module: &lora_tool::adapter::module::Module| {
        let dense = adapter.factors(module).expect("factors").dense() * module.scale.value;
        let row = |at: usize| dense.row(at).iter().copied().collect();
        (module.name.clone(), (0..dense.nrows()).map(row).collect())
    };
    adapter.modules.iter().map(of).collect()
}

/// Rows of the published tensor that a module in diffusers' layout has.
fn published_rows(line: &Line, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let half = line.rows / 2;
    match line.place {
        Place::All => rows.to_vec(),
        Place::Rows(start, end) => rows[start..end].to_vec(),
        Place::Swapped => [&rows[half..], &rows[..half]].concat(),
    }
}

/// The largest distance of any element, relative to the largest of all.
fn off(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let flat = |rows: &[Vec<f64>]| rows.concat();
    let (found, expected) = (flat(found), flat(expected));
    let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / largest
}

fn stem(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

/// Bytes of all tensors by name, and nothing of the header beside them.
fn same_tensors(found: &Path, expected: &Path, what: &str) {
    let (found, expected) = (read(found), read(expected));
    let names = |file: &BTreeMap<String, _>| file.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "{what}");
    for (name, tensor) in &expected {
        assert_eq!(found.get(name), Some(tensor), "{what}: {name}");
    }
}

fn split_modules(lines: &[Line]) -> Modules {
    lines.iter().map(|line| (line.module.clone(), line.shape().0, line.shape().1)).collect()
}

fn published_modules(lines: &[Line], root: &str) -> Modules {
    let of = |line: &Line| (format!("{root}{}", stem(&line.tensor)), line.rows, line.columns);
    let mut modules: Modules = lines.iter().map(of).collect();
    modules.sort();
    modules.dedup();
    modules
}

#[test]
fn diffusers_goes_to_kohya_and_comfyui_and_back() {
    let bench = Bench::new();
    for (name, component, split) in DENOISERS {
        let lines = proportional(name);
        let modules = split_modules(&lines);
        let original = diffusers(&bench.path("d.safetensors"), component, &modules, 2);
        let before = deltas(&original);
        for to in ["kohya", "comfyui"] {
            let there = bench.convert(&original, &format!("--to {to}"), "there.safetensors");
            let after = deltas(&there);
            let spell = |line: &Line| match (to, split) {
                ("kohya", true) => format!("lora_unet_{}", line.module.replace('.', "_")),
                ("kohya", false) => format!("lora_unet_{}", stem(&line.tensor).replace('.', "_")),
                _ => format!("diffusion_model.{}", stem(&line.tensor)),
            };
            for line in &lines {
                let own = spell(line);
                let rows = after.get(&own).unwrap_or_else(|| panic!("{name}: no {own}"));
                let whole = to == "kohya" && split;
                let rows = if whole { rows.clone() } else { published_rows(line, rows) };
                let expected = &before[&format!("{component}.{}", line.module)];
                assert!(off(&rows, expected) < 1e-6, "{name}: {own}");
            }
            let spelled: std::collections::BTreeSet<String> = lines.iter().map(spell).collect();
            assert_eq!(after.len(), spelled.len(), "{name} {to}");
            let back = bench.convert(&there, "--to diffusers", "back.safetensors");
            same_tensors(&back, &original, &format!("{name} {to}"));
            let scales = |path: &Path| {
                let adapter = Adapter::open(path, &OpenOptions::default()).expect("opens");
                adapter.modules.iter().map(|module| module.scale.value).collect::<Vec<_>>()
            };
            assert_eq!(scales(&back), scales(&original), "{name} {to}");
        }
    }
}

#[test]
fn published_names_go_to_diffusers_and_back() {
    let bench = Bench::new();
    for (name, component, split) in DENOISERS {
        let lines = proportional(name);
        for (root, convention, dtype) in
            [("diffusion_model.", "comfyui", Dtype::BF16), ("lora_unet_", "kohya", Dtype::F32)]
        {
            let mut modules = published_modules(&lines, root);
            if convention == "kohya" {
                for (module, ..) in &mut modules {
                    *module = module.replace('.', "_");
                }
            }
            let original = adapter(&bench.path("p.safetensors"), &modules, 3, dtype);
            let before = deltas(&original);
            let there = bench.convert(&original, "--to diffusers", "there.safetensors");
            let after = deltas(&there);
            assert_eq!(after.len(), lines.len(), "{name}");
            for line in &lines {
                let own = format!("{component}.{}", line.module);
                let rows = after.get(&own).unwrap_or_else(|| panic!("{name}: no {own}"));
                let from = format!("{root}{}", stem(&line.tensor));
                let from = if convention == "kohya" { from.replace('.', "_") } else { from };
                assert_eq!(off(rows, &published_rows(line, &before[&from])), 0.0, "{own}");
            }
            // Stable Diffusion's published names are none of kohya's.
            if convention == "comfyui" || !split {
                let to = format!("--to {convention}");
                let back = bench.convert(&there, &to, "back.safetensors");
                same_tensors(&back, &original, &format!("{name} {convention}"));
            }
        }
    }
}

#[test]
fn text_encoders_get_transformers_names() {
    let bench = Bench::new();
    let lines: Vec<Line> =
        proportional("openclip").into_iter().filter(|line| !line.turned).collect();
    let mut modules = published_modules(&lines, "lora_te2_");
    for (module, ..) in &mut modules {
        *module = module.replace('.', "_");
    }
    let original = adapter(&bench.path("p.safetensors"), &modules, 3, Dtype::F32);
    let before = deltas(&original);
    let diffusers = bench.convert(&original, "--to diffusers", "d.safetensors");
    let after = deltas(&diffusers);
    for line in &lines {
        let own = format!("text_encoder_2.{}", line.module);
        let from = format!("lora_te2_{}", stem(&line.tensor).replace('.', "_"));
        let rows = after.get(&own).unwrap_or_else(|| panic!("no {own}"));
        assert_eq!(off(rows, &published_rows(line, &before[&from])), 0.0, "{own}");
    }
    let kohya = bench.convert(&diffusers, "--to kohya", "k.safetensors");
    let q = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj";
    assert!(deltas(&kohya).contains_key(q));
    same_tensors(
        &bench.convert(&kohya, "--to diffusers", "b.safetensors"),
        &diffusers,
        "open_clip",
    );
}

/// Flux's T5 is its second text encoder in diffusers, and kohya's third.
#[test]
fn encoders_are_numbered_as_each_convention_does() {
    let bench = Bench::new();
    for (flat, dotted) in [
        (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        ),
        (
            "lora_te3_encoder_block_11_layer_1_DenseReluDense_wi_0",
            "text_encoder_2.encoder.block.11.layer.1.DenseReluDense.wi_0",
        ),
        ("lora_unet_single_blocks_3_linear2", "transformer.single_transformer_blocks.3.proj_out"),
    ] {
        let mut modules = vec![("lora_unet_single_blocks_0_linear2".to_owned(), 4, 20)];
        if flat != modules[0].0 {
            modules.push((flat.to_owned(), 8, 4));
        }
        let original = adapter(&bench.path("k.safetensors"), &modules, 2, Dtype::F16);
        let there = bench.convert(&original, "--to diffusers", "d.safetensors");
        assert!(deltas(&there).contains_key(dotted), "{dotted}");
        same_tensors(&bench.convert(&there, "--to kohya", "b.safetensors"), &original, flat);
    }
}
