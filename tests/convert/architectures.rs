//! Every module of every known architecture lands where it should, in both layouts.
//!
//! The truth is in `fixtures/keys`, which `fixtures/make_keys.py` takes from the published models' own
//! classes and from diffusers' own converters; shapes are those, scaled down.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::keys::{Line, Place, lines};
use crate::common::{Bench, Tensors};
use lora_tool::ops::{inspect, merge};
use serde_json::{Value, json};

/// An architecture: its key list, the root in a checkpoint, and prefixes of flattened and dotted names.
type Known = (&'static str, &'static str, &'static str, &'static str);

const KNOWN: [Known; 17] = [
    ("sd15", "model.diffusion_model.", "lora_unet_", "unet."),
    ("sd2", "model.diffusion_model.", "lora_unet_", "unet."),
    ("sdxl", "model.diffusion_model.", "lycoris_", "unet."),
    ("openclip", "conditioner.embedders.1.model.", "lora_te2_", "text_encoder_2."),
    ("openclip", "cond_stage_model.model.", "lora_te_", "text_encoder."),
    ("sd3", "model.diffusion_model.", "lora_transformer_", "transformer."),
    ("sd35_medium", "", "lora_unet_", "transformer."),
    ("flux", "model.diffusion_model.", "lora_transformer_", "transformer."),
    ("flux", "", "lora_unet_", "diffusion_model."),
    ("pixart", "", "lycoris_", "transformer."),
    ("wan_t2v", "diffusion_model.", "lora_unet_", "transformer."),
    ("wan_i2v", "", "lora_unet__", "diffusion_model."),
    ("lumina2", "", "lora_unet_", "transformer."),
    ("z_image", "", "lora_unet_", "transformer."),
    ("qwen_image", "model.diffusion_model.", "lora_unet_", "transformer."),
    ("qwen_image", "", "lycoris_", "diffusion_model."),
    ("hunyuan_video", "model.diffusion_model.", "lora_unet_", "transformer."),
];

/// A checkpoint of zeros.
fn checkpoint(path: &Path, tensors: &BTreeMap<String, [usize; 2]>) -> PathBuf {
    let add = |file: Tensors, (name, shape): (&String, &[usize; 2])| {
        file.f32(name, shape, &vec![0.0; shape[0] * shape[1]])
    };
    tensors.iter().fold(Tensors::new(), add).save(path)
}

/// An adapter of rank 1 with these modules.
fn adapter(path: &Path, modules: &[(String, (usize, usize))]) -> PathBuf {
    let add = |file: Tensors, (name, (outputs, inputs)): &(String, (usize, usize))| {
        file.f32(&format!("{name}.lora_down.weight"), &[1, *inputs], &vec![1.0; *inputs]).f32(
            &format!("{name}.lora_up.weight"),
            &[*outputs, 1],
            &vec![1.0; *outputs],
        )
    };
    modules.iter().fold(Tensors::new(), add).save(path)
}

/// Where `inspect` finds each module, by name; and the merge's plan must agree that all of it fits.
fn places(bench: &Bench, base: &Path, adapter: &Path) -> BTreeMap<String, (String, Value)> {
    let options = inspect::Options {
        paths: vec![adapter.to_path_buf()],
        against: Some(base.to_path_buf()),
        ..inspect::Options::default()
    };
    let report = inspect::run(&options).unwrap_or_else(|error| panic!("{error}"));
    let item = report.items.first().expect("an item");
    assert_eq!(item.warnings, Vec::<String>::new(), "{}", adapter.display());
    let input = merge::AdapterInput::new(adapter, 1.0);
    let options = merge::Options {
        base: base.to_path_buf(),
        adapters: vec![input],
        output: bench.path("merged.safetensors"),
        ..merge::Options::default()
    };
    merge::plan(&options).unwrap_or_else(|error| panic!("{}: {error}", adapter.display()));
    let modules = item.modules.as_ref().expect("modules");
    let place = |module: &inspect::ModuleItem| {
        let places = serde_json::to_value(&module.places).expect("JSON");
        (module.name.clone(), (module.base_tensor.clone().unwrap_or_default(), places))
    };
    modules.iter().map(place).collect()
}

fn rows(start: usize, end: usize) -> Value {
    json!({ "start": start, "end": end })
}

/// What `inspect` says of a module on one tensor.
fn expected(tensor: &str, line: &Line) -> (String, Value) {
    let half = line.rows / 2;
    let swapped = |own: Value, part: Value| json!({ "tensor": tensor, "rows": own, "part": { "rows": part, "of": line.rows } });
    let places = match line.place {
        Place::All => json!([]),
        Place::Rows(start, end) => json!([{ "tensor": tensor, "rows": rows(start, end) }]),
        Place::Swapped => json!([
            swapped(rows(0, half), rows(half, line.rows)),
            swapped(rows(half, line.rows), rows(0, half)),
        ]),
    };
    (tensor.to_owned(), places)
}

#[test]
fn names_of_diffusers_land_in_published_checkpoints() {
    let bench = Bench::new();
    for (name, root, flat, dotted) in KNOWN {
        let lines = lines(name);
        let tensors: BTreeMap<String, [usize; 2]> = lines
            .iter()
            .map(|line| (format!("{root}{}", line.tensor), [line.rows, line.columns]))
            .collect();
        let base = checkpoint(&bench.path("base.safetensors"), &tensors);
        let flattened = |line: &Line| format!("{flat}{}", line.module.replace('.', "_"));
        let spelled = |line: &Line| format!("{dotted}{}", line.module);
        for spell in [&flattened as &dyn Fn(&Line) -> String, &spelled] {
            let modules: Vec<_> = lines.iter().map(|line| (spell(line), line.shape())).collect();
            let found = places(&bench, &base, &adapter(&bench.path("a.safetensors"), &modules));
            assert_eq!(found.len(), lines.len(), "{name}");
            for line in &lines {
                let tensor = format!("{root}{}", line.tensor);
                let own = spell(line);
                assert_eq!(found.get(&own), Some(&expected(&tensor, line)), "{name}: {own}");
            }
        }
    }
}

#[test]
fn published_names_land_in_the_layout_of_diffusers() {
    let bench = Bench::new();
    for (name, _, flat, _) in KNOWN.into_iter().filter(|(name, ..)| *name != "openclip") {
        let lines = lines(name);
        let tensors: BTreeMap<String, [usize; 2]> = lines
            .iter()
            .map(|line| (format!("{}.weight", line.module), [line.shape().0, line.shape().1]))
            .collect();
        let base = checkpoint(&bench.path("base.safetensors"), &tensors);
        let mut parts: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        for line in &lines {
            parts.entry(&line.tensor).or_default().push(line);
        }
        let mut modules = Vec::new();
        let mut wanted = BTreeMap::new();
        for (tensor, mut parts) in parts {
            parts.sort_by_key(|line| match line.place {
                Place::Rows(start, _) => start,
                _ => 0,
            });
            let bare = tensor.strip_suffix(".weight").expect("a weight");
            let (own, of) = (format!("{flat}{}", bare.replace('.', "_")), parts[0].rows);
            modules.push((own.clone(), (of, parts[0].columns)));
            let first = format!("{}.weight", parts[0].module);
            let place = |line: &&Line| match line.place {
                Place::Rows(start, end) => json!({
                    "tensor": format!("{}.weight", line.module),
                    "part": { "rows": rows(start, end), "of": of },
                }),
                _ => Value::Null,
            };
            let places = if parts[0].place == Place::All || parts[0].place == Place::Swapped {
                assert_eq!(parts.len(), 1, "{name}: {tensor}");
                expected(&first, parts[0])
            } else {
                let covered: usize = parts.iter().map(|line| line.shape().0).sum();
                assert_eq!(covered, of, "{name}: {tensor}");
                (first, parts.iter().map(place).collect())
            };
            wanted.insert(own, places);
        }
        let found = places(&bench, &base, &adapter(&bench.path("a.safetensors"), &modules));
        for (own, places) in wanted {
            assert_eq!(found.get(&own), Some(&places), "{name}: {own}");
        }
    }
}

/// Names of every layout on a base of that layout: each lands on its own tensor, all of it.
#[test]
fn names_of_a_layout_land_in_it() {
    let bench = Bench::new();
    for (name, root, flat, dotted) in KNOWN {
        let lines = lines(name);
        let published = |line: &Line| {
            let module = line.tensor.strip_suffix(".weight")?;
            Some((module.to_owned(), [line.rows, line.columns]))
        };
        let split = |line: &Line| {
            let shape = line.shape();
            Some((line.module.clone(), [shape.0, shape.1]))
        };
        // diffusers keeps a part of a model in files of its own, without a root.
        for (root, own) in
            [(root, &published as &dyn Fn(&Line) -> Option<(String, [usize; 2])>), ("", &split)]
        {
            let tensors: BTreeMap<String, [usize; 2]> = lines.iter().filter_map(own).collect();
            let stored = tensors.iter().map(|(n, shape)| (format!("{root}{n}.weight"), *shape));
            let base = checkpoint(&bench.path("base.safetensors"), &stored.collect());
            let dotted =
                if dotted.starts_with("text_encoder") || root.is_empty() { "" } else { dotted };
            for (prefix, separator) in [(flat, "_"), (dotted, ".")] {
                let spell = |module: &str| format!("{prefix}{}", module.replace('.', separator));
                let shape = |shape: &[usize; 2]| (shape[0], shape[1]);
                let modules: Vec<_> =
                    tensors.iter().map(|(module, own)| (spell(module), shape(own))).collect();
                let found = places(&bench, &base, &adapter(&bench.path("a.safetensors"), &modules));
                for module in tensors.keys() {
                    let whole = (format!("{root}{module}.weight"), json!([]));
                    let own = spell(module);
                    assert_eq!(found.get(&own), Some(&whole), "{name}: {own}");
                }
            }
        }
    }
}
