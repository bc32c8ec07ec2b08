//! An adapter of every module of each model in the names of every trainer and program that writes them: whatever
//! stands before the path, whichever layout the path is of, however the factors are called, and whether there is an
//! alpha, each module comes to diffusers' place with its own factors.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Random;
use crate::common::Tensors;
use crate::common::bench::Bench;
use crate::common::keys::{Line, Place, real};

use super::model_layouts::{MODELS, factors, pair, rows_of};

/// How a writer spells a module.
struct Writer {
    prefix: &'static str,
    /// Whether paths have underscores for dots.
    flat: bool,
    published: bool,
    factors: [&'static str; 2],
    beside: Beside,
}

/// What tells the scale.
#[derive(PartialEq)]
enum Beside {
    Nothing,
    Alpha,
    Config,
}

const A_B: [&str; 2] = ["lora_A", "lora_B"];
const DOWN_UP: [&str; 2] = ["lora_down", "lora_up"];
const DEFAULT: [&str; 2] = ["lora_A.default", "lora_B.default"];

const fn dotted(prefix: &'static str, published: bool, factors: [&'static str; 2]) -> Writer {
    Writer { prefix, flat: false, published, factors, beside: Beside::Nothing }
}

const fn flat(prefix: &'static str) -> Writer {
    Writer { prefix, flat: true, published: false, factors: DOWN_UP, beside: Beside::Alpha }
}

const fn peft(published: bool) -> Writer {
    Writer { beside: Beside::Config, ..dotted("base_model.model.", published, A_B) }
}

/// `diffusion_model.` with alphas, and kohya's published names, are in `model_layouts.rs`.
const WRITERS: [Writer; 11] = [
    // ai-toolkit, diffusion-pipe, musubi-tuner's `convert_lora.py`; with diffusers' paths, too.
    dotted("diffusion_model.", true, A_B),
    dotted("diffusion_model.", false, A_B),
    // PEFT's own scripts, with a config.
    peft(true),
    peft(false),
    // Scripts of models' authors, and DiffSynth.
    dotted("", true, A_B),
    dotted("", false, A_B),
    dotted("", true, DEFAULT),
    Writer { beside: Beside::Alpha, ..dotted("transformer.", false, DOWN_UP) },
    // kohya's names of diffusers' paths, SimpleTuner's LyCORIS, OneTrainer.
    flat("lora_unet_"),
    flat("lycoris_"),
    flat("lora_transformer_"),
];

impl Writer {
    fn spell(&self, line: &Line) -> String {
        let path = match self.published {
            // ACE-Step's checkpoints have its transformer below `decoder`, its adapters do not.
            true => line.tensor.trim_end_matches(".weight").trim_start_matches("decoder."),
            false => &line.module,
        };
        let path = if self.flat { path.replace('.', "_") } else { path.to_owned() };
        format!("{}{path}", self.prefix)
    }

    fn place(&self, line: &Line) -> Place {
        if self.published { line.place.clone() } else { Place::All }
    }

    fn write(&self, bench: &Bench, lines: &[Line]) -> PathBuf {
        let mut random = Random::new(23);
        let shape = |line: &Line| match self.place(line) {
            Place::All => line.shape(),
            _ => (line.rows, line.columns),
        };
        let modules: BTreeMap<String, (usize, usize)> =
            lines.iter().map(|line| (self.spell(line), shape(line))).collect();
        let mut file = Tensors::new();
        for (name, shape) in modules {
            file = pair(file, &mut random, &name, shape, self.factors);
            if self.beside == Beside::Alpha {
                file = file.f32(&format!("{name}.alpha"), &[], &[1.0]);
            }
        }
        if self.beside != Beside::Config {
            return file.save(&bench.path("a.safetensors"));
        }
        let directory = bench.path("peft");
        fs::create_dir_all(&directory).expect("a directory");
        let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": []}"#;
        fs::write(directory.join("adapter_config.json"), config).expect("a config");
        file.save(&directory.join("adapter_model.safetensors"));
        directory
    }

    fn file(&self, written: &Path) -> PathBuf {
        match self.beside {
            Beside::Config => written.join("adapter_model.safetensors"),
            _ => written.to_path_buf(),
        }
    }
}

#[test]
fn every_writer_s_names_of_every_model_come_to_diffusers_places() {
    let bench = Bench::new();
    for model in &MODELS {
        // One block of each kind: the second is as the first.
        let second = |line: &Line| line.module.contains("s.1.");
        let lines: Vec<Line> = model.lines().into_iter().filter(|line| !second(line)).collect();
        let one_layout = lines.iter().all(|line| line.tensor == format!("{}.weight", line.module));
        for writer in WRITERS.iter().filter(|writer| !(writer.published && one_layout)) {
            let written = writer.write(&bench, &lines);
            if model.list == "minimax_h3" && writer.published && writer.factors == DEFAULT {
                // DiffSynth-Studio's rows are in an order of their own, which nothing but this name tells.
                let said = bench.refuse(&written, "--to diffusers", "refused.safetensors");
                assert!(said.contains("of one head after another"), "{said}");
                continue;
            }
            let what = format!("{}: {}", model.list, writer.spell(&lines[0]));
            let before = read(&writer.file(&written), writer.factors);
            let there = bench.convert(&written, "--to diffusers", "there.safetensors");
            let after = factors(&there);
            assert_eq!(after.len(), lines.len(), "{what}");
            for line in &lines {
                let name = format!("transformer.{}", line.module);
                let own = after.get(&name).unwrap_or_else(|| panic!("{what}: no {name}"));
                let whole = &before[&writer.spell(line)];
                let rows = rows_of(&whole.1, 1, &writer.place(line));
                assert!(own.up == rows && own.down == whole.0, "{what}: {name}");
            }
        }
    }
}

/// Both factors of every module of a file.
fn read(path: &Path, [down, up]: [&str; 2]) -> BTreeMap<String, (Vec<f64>, Vec<f64>)> {
    let file = crate::common::read(path);
    let ends = [format!(".{down}.weight"), format!(".{up}.weight")];
    let module = |name: &String| {
        let module = name.strip_suffix(&ends[0])?;
        let up = &file[&format!("{module}{}", ends[1])];
        Some((module.to_owned(), (file[name].values(), up.values())))
    };
    file.keys().filter_map(module).collect()
}

/// Stable Cascade's prior, whose prefixes are its own: as kohya's scripts and ComfyUI have them, and back; with the text
/// encoder beside it.
#[test]
fn stable_cascade_s_prior_has_prefixes_of_its_own() {
    let bench = Bench::new();
    let mut random = Random::new(24);
    let lines = real("stable_cascade");
    let encoder = "text_model.encoder.layers.0.mlp.fc1";
    let mut file = Tensors::new();
    for line in &lines {
        let name = format!("lora_prior_unet_{}", line.tensor.trim_end_matches(".weight"));
        let name = name.replace('.', "_");
        file = pair(file, &mut random, &name, (line.rows, line.columns), DOWN_UP).f32(
            &format!("{name}.alpha"),
            &[],
            &[1.0],
        );
    }
    let name = format!("lora_prior_te_{}", encoder.replace('.', "_"));
    file =
        pair(file, &mut random, &name, (8, 4), DOWN_UP).f32(&format!("{name}.alpha"), &[], &[1.0]);
    let own = file.save(&bench.path("a.safetensors"));
    let before = factors(&own);
    let there = bench.convert(&own, "--to diffusers", "d.safetensors");
    let after = factors(&there);
    assert_eq!(after.len(), lines.len() + 1);
    for line in &lines {
        let path = line.tensor.trim_end_matches(".weight").replace('.', "_");
        let first = &before[&format!("lora_prior_unet_{path}")];
        let found = &after[&format!("prior.{}", line.module)];
        assert!(first.up == found.up && first.down == found.down, "{}", line.module);
    }
    assert!(after.contains_key(&format!("text_encoder.{encoder}")));
    let back = bench.convert(&there, "--to kohya", "k.safetensors");
    let names = |path: &Path| crate::common::read(path).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&back), names(&own));
    for (name, found) in factors(&back) {
        assert!(found.up == before[&name].up && found.down == before[&name].down, "{name}");
    }
    let rooted = bench.convert(&own, "--to comfyui", "c.safetensors");
    let name = "diffusion_model.down_blocks.0.2.attention.attn.out_proj.lora_up.weight";
    assert!(names(&rooted).iter().any(|own| own == name), "{:?}", names(&rooted));
}
