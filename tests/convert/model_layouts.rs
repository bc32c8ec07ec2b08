//! An adapter of every module of each model whose layouts are known, in the model's real widths: told by
//! its own names, converted there and back byte for byte, and landing on exactly one tensor or range of
//! rows of a base of either layout.
//!
//! The truth is in `fixtures/layouts`: names and shapes are those of the models' classes, published and
//! diffusers', two blocks of each kind.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::bench::Bench;
use crate::common::hollow;
use crate::common::keys::{Line, Place, real};
use crate::common::{Random, Tensors, read};
use lora_tool::adapter::{Adapter, OpenOptions, layout};
use lora_tool::format::Dtype;
use lora_tool::ops::{inspect, merge};
use serde_json::{Value, json};

/// What a model's adapters are called where.
pub(super) struct Model {
    /// Its list in `fixtures/layouts`.
    pub(super) list: &'static str,
    /// The file of its rules.
    architecture: &'static str,
    /// Whose names kohya's scripts flatten: diffusers', or those it was published with.
    kohya: Kohya,
}

#[derive(Clone, Copy, PartialEq)]
enum Kohya {
    Published,
    Split,
}

const fn model(list: &'static str, architecture: &'static str) -> Model {
    Model { list, architecture, kohya: Kohya::Published }
}

const fn split(list: &'static str, architecture: &'static str) -> Model {
    Model { list, architecture, kohya: Kohya::Split }
}

pub(super) const MODELS: [Model; 54] = [
    model("flux1", "flux"),
    model("flux2_dev", "flux2"),
    model("flux2_klein_9b", "flux2"),
    model("flux2_klein_4b", "flux2"),
    model("chroma", "chroma"),
    model("flux3", "flux3"),
    model("ltx_video", "ltx"),
    model("ltx2", "ltx2"),
    model("krea2", "krea2"),
    model("ideogram4", "ideogram4"),
    model("cosmos_predict2_2b", "cosmos"),
    model("cosmos_predict1_7b", "cosmos1"),
    model("auraflow", "auraflow"),
    model("mochi", "mochi"),
    model("hunyuan_video_official", "hunyuan_video"),
    model("hunyuan_image_2_1", "hunyuan_image"),
    model("minimax_h3", "minimax_h3"),
    model("stable_audio_open", "stable_audio"),
    model("wan2_t2v_14b", "wan"),
    model("wan2_i2v_14b", "wan"),
    model("wan2_2_ti2v_5b", "wan"),
    model("wan_vace_14b", "wan"),
    // Made of Wan's blocks; nothing in an adapter tells them from it.
    model("skyreels_v2", "wan"),
    model("chronoedit", "wan"),
    model("helios", "wan"),
    model("wan_animate_14b", "wan"),
    model("anima", "cosmos"),
    model("z_image", "lumina"),
    model("ace_step_1_5", "ace_step"),
    model("ace_step_1_0", "ace_step_1"),
    model("hidream_i1", "hidream"),
    model("kandinsky5", "kandinsky"),
    model("kandinsky6", "kandinsky"),
    split("sana_1600m", "sana"),
    split("cogvideox_2b", "cogvideox"),
    split("cogvideox_5b", "cogvideox"),
    split("cogview4", "cogvideox"),
    model("qwen_image", "qwen_image"),
    model("ernie_image", "ernie_image"),
    model("stable_audio_3", "stable_audio_3"),
    model("ovis_image", "ovis_image"),
    model("longcat_image", "ovis_image"),
    model("bria_3_2", "ovis_image"),
    model("bria_fibo", "ovis_image"),
    model("bria_fibo2", "fibo2"),
    model("omnigen2", "omnigen2"),
    // ComfyUI's layouts of these are other ones, see below.
    model("hunyuan_video_1_5", "hunyuan_video_1_5"),
    model("qwen_image_2_1", "qwen_image_2_1"),
    model("hunyuan_video", "hunyuan_video"),
    split("sana_published", "sana"),
    model("prx", "prx"),
    model("glm_image", "glm_image"),
    model("omnigen1", "omnigen1"),
    model("hidream_o1", "hidream_o1"),
];

/// Models whose list is not how both conventions spell them.
const OTHERWISE: [(&str, &[&str]); 4] = [
    ("hunyuan_video_1_5", &["comfyui"]),
    ("qwen_image_2_1", &["comfyui"]),
    // Understood, and written with its authors' names.
    ("hunyuan_video", &["comfyui", "kohya"]),
    ("sana_1600m", &["comfyui"]),
];

impl Model {
    pub(super) fn lines(&self) -> Vec<Line> {
        real(self.list)
    }

    /// Whether a convention spells its modules as its list does.
    fn spelled_in(&self, convention: &str) -> bool {
        let other = OTHERWISE.iter().find(|(list, _)| *list == self.list);
        other.is_none_or(|(_, conventions)| !conventions.contains(&convention))
    }

    /// What a module of diffusers is part of, or all of, in a convention's names.
    fn spell(&self, line: &Line, convention: &str) -> String {
        let stem = line.tensor.strip_suffix(".weight").expect("a weight");
        match convention {
            "comfyui" => format!("diffusion_model.{stem}"),
            _ if self.kohya == Kohya::Split => {
                format!("lora_unet_{}", line.module.replace('.', "_"))
            }
            _ => format!("lora_unet_{}", stem.replace('.', "_")),
        }
    }

    /// What of that it is.
    fn place(&self, line: &Line, convention: &str) -> Place {
        let whole = convention == "kohya" && self.kohya == Kohya::Split;
        if whole { Place::All } else { line.place.clone() }
    }
}

/// Rank of all adapters here.
const RANK: usize = 1;

/// An adapter in diffusers' names.
fn diffusers(path: &Path, lines: &[Line]) -> PathBuf {
    let mut random = Random::new(21);
    let mut file = Tensors::new();
    for line in lines {
        let (outputs, inputs) = line.shape();
        let name = format!("transformer.{}", line.module);
        file = pair(file, &mut random, &name, (outputs, inputs), ["lora_A", "lora_B"]);
    }
    file.save(path)
}

/// An adapter in published names, an alpha beside each module.
fn published(path: &Path, model: &Model, lines: &[Line], convention: &str) -> PathBuf {
    let mut random = Random::new(22);
    let mut file = Tensors::new();
    let modules: BTreeMap<String, (usize, usize)> = lines
        .iter()
        .map(|line| {
            let whole = model.place(line, convention) == Place::All;
            let shape = if whole { line.shape() } else { (line.rows, line.columns) };
            (model.spell(line, convention), shape)
        })
        .collect();
    for (at, (name, shape)) in modules.into_iter().enumerate() {
        file = pair(file, &mut random, &name, shape, ["lora_down", "lora_up"]);
        file = file.f32(&format!("{name}.alpha"), &[], &[1.0 + (at % 3) as f32]);
    }
    file.save(path)
}

pub(super) fn pair(
    file: Tensors,
    random: &mut Random,
    name: &str,
    (outputs, inputs): (usize, usize),
    [down, up]: [&str; 2],
) -> Tensors {
    // No value is zero, so that what is empty is told from what is not.
    let mut values = |count: usize| -> Vec<f32> {
        random.values(count, 1.0).into_iter().map(|value| value.abs() + 0.25).collect()
    };
    let (a, b) = (values(RANK * inputs), values(outputs * RANK));
    file.float(&format!("{name}.{down}.weight"), Dtype::BF16, &[RANK, inputs], &a).float(
        &format!("{name}.{up}.weight"),
        Dtype::BF16,
        &[outputs, RANK],
        &b,
    )
}

/// A, B and alpha of every module of a file.
pub(super) struct Factors {
    pub(super) down: Vec<f64>,
    pub(super) up: Vec<f64>,
    rank: usize,
}

pub(super) fn factors(path: &Path) -> BTreeMap<String, Factors> {
    const ENDINGS: [(&str, &str); 2] =
        [(".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")];
    let file = read(path);
    let mut found = BTreeMap::new();
    for (name, tensor) in &file {
        for (down, up) in ENDINGS {
            if let Some(module) = name.strip_suffix(down) {
                let other = &file[&format!("{module}{up}")];
                let rank = tensor.shape[0];
                let factors = Factors { down: tensor.values(), up: other.values(), rank };
                found.insert(module.to_owned(), factors);
            }
        }
    }
    found
}

/// The rows of B that a module of diffusers has in the published one, in diffusers' order.
pub(super) fn rows_of(up: &[f64], rank: usize, place: &Place) -> Vec<f64> {
    let half = up.len() / rank / 2 * rank;
    match place {
        Place::All => up.to_vec(),
        Place::Rows(start, end) => up[start * rank..end * rank].to_vec(),
        Place::Swapped => [&up[half..], &up[..half]].concat(),
    }
}

/// Whether a module has this one's update in the given rows: in one direction of its, and no other.
fn holds(joined: &Factors, place: &Place, own: &Factors) -> bool {
    let rows = rows_of(&joined.up, joined.rank, place);
    let inputs = own.down.len();
    let used: Vec<usize> =
        (0..joined.rank).filter(|at| rows.chunks(joined.rank).any(|row| row[*at] != 0.0)).collect();
    let [column] = used.as_slice() else { return false };
    let up: Vec<f64> = rows.chunks(joined.rank).map(|row| row[*column]).collect();
    up == own.up && joined.down[column * inputs..(column + 1) * inputs] == own.down
}

fn same_tensors(found: &Path, expected: &Path, what: &str) {
    let (found, expected) = (read(found), read(expected));
    let names = |file: &BTreeMap<String, _>| file.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "{what}");
    for (name, tensor) in &expected {
        assert!(found.get(name) == Some(tensor), "{what}: {name}");
    }
}

fn told(path: &Path) -> Vec<&'static str> {
    let adapter = Adapter::open(path, &OpenOptions::default()).expect("opens");
    layout::architectures(&adapter).into_iter().collect()
}

#[test]
fn diffusers_goes_to_every_model_s_published_names_and_back() {
    let bench = Bench::new();
    for model in &MODELS {
        let lines = model.lines();
        let original = diffusers(&bench.path("d.safetensors"), &lines);
        assert_eq!(told(&original), [model.architecture], "{}", model.list);
        let before = factors(&original);
        for to in ["comfyui", "kohya"] {
            let what = format!("{} to {to}", model.list);
            let there = bench.convert(&original, &format!("--to {to}"), "there.safetensors");
            if model.spelled_in(to) {
                let after = factors(&there);
                let spelled: BTreeSet<String> =
                    lines.iter().map(|line| model.spell(line, to)).collect();
                assert!(after.keys().eq(spelled.iter()), "{what}: {:?}", after.keys());
                for line in &lines {
                    let own = &before[&format!("transformer.{}", line.module)];
                    let place = model.place(line, to);
                    assert!(holds(&after[&model.spell(line, to)], &place, own), "{what}: {line:?}");
                }
            }
            assert_eq!(told(&there), [model.architecture], "{what}");
            let back = bench.convert(&there, "--to diffusers", "back.safetensors");
            same_tensors(&back, &original, &what);
        }
    }
}

#[test]
fn published_names_of_every_model_go_to_diffusers_and_back() {
    let bench = Bench::new();
    for model in &MODELS {
        let lines = model.lines();
        for from in ["comfyui", "kohya"] {
            let what = format!("{} from {from}", model.list);
            let original = published(&bench.path("p.safetensors"), model, &lines, from);
            assert_eq!(told(&original), [model.architecture], "{what}");
            let before = factors(&original);
            let there = bench.convert(&original, "--to diffusers", "there.safetensors");
            // Alphas beside lora_A are what diffusers passes over.
            assert!(!read(&there).keys().any(|name| name.ends_with(".alpha")), "{what}");
            let after = factors(&there);
            assert_eq!(after.len(), lines.len(), "{what}");
            for line in &lines {
                let name = format!("transformer.{}", line.module);
                let own = after.get(&name).unwrap_or_else(|| panic!("{what}: no {name}"));
                let whole = &before[&model.spell(line, from)];
                let rows = rows_of(&whole.up, whole.rank, &model.place(line, from));
                assert!(own.up == rows && own.down == whole.down, "{what}: {name}");
            }
            if model.spelled_in(from) {
                let back = bench.convert(&there, &format!("--to {from}"), "back.safetensors");
                same_tensors(&back, &original, &what);
            }
        }
    }
}

/// Where each module lies, as `inspect` says it; and a merge's plan must agree that all of it fits.
fn places(bench: &Bench, base: &Path, adapter: &Path, what: &str) -> BTreeMap<String, Value> {
    let options = inspect::Options {
        paths: vec![adapter.to_path_buf()],
        against: Some(base.to_path_buf()),
        ..inspect::Options::default()
    };
    let report = inspect::run(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
    let item = report.items.first().expect("an item");
    let options = merge::Options {
        base: base.to_path_buf(),
        adapters: vec![merge::AdapterInput::new(adapter, 1.0)],
        output: bench.path("merged.safetensors"),
        ..merge::Options::default()
    };
    merge::plan(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
    let modules = item.modules.as_ref().expect("modules");
    let place = |module: &inspect::ModuleItem| {
        let places = serde_json::to_value(&module.places).expect("JSON");
        let whole = json!([{ "tensor": module.base_tensor }]);
        (module.name.clone(), if places == json!([]) { whole } else { places })
    };
    modules.iter().map(place).collect()
}

fn range(start: usize, end: usize) -> Value {
    json!({ "start": start, "end": end })
}

/// Both halves of a tensor in the other order.
fn swapped(tensor: &str, rows: usize) -> Value {
    let half = rows / 2;
    let place = |own: Value, part: Value| json!({ "tensor": tensor, "rows": own, "part": { "rows": part, "of": rows } });
    json!([place(range(0, half), range(half, rows)), place(range(half, rows), range(0, half)),])
}

#[test]
fn adapters_land_on_bases_of_the_other_layout() {
    let bench = Bench::new();
    for model in &MODELS {
        let lines = model.lines();
        for root in ["", "model.diffusion_model."] {
            let what = format!("{} on {root:?}", model.list);
            let name = |line: &Line| format!("{root}{}", line.tensor);
            let tensors = lines.iter().map(|line| (name(line), (line.rows, line.columns)));
            let base = hollow(&bench.path("base.safetensors"), &tensors.collect());
            let adapter = diffusers(&bench.path("d.safetensors"), &lines);
            let found = places(&bench, &base, &adapter, &what);
            for line in &lines {
                let expected = match line.place {
                    Place::All => json!([{ "tensor": name(line) }]),
                    Place::Rows(start, end) => {
                        json!([{ "tensor": name(line), "rows": range(start, end) }])
                    }
                    Place::Swapped => swapped(&name(line), line.rows),
                };
                let own = format!("transformer.{}", line.module);
                assert_eq!(found.get(&own), Some(&expected), "{what}: {own}");
            }
        }
        let tensors = lines.iter().map(|line| (format!("{}.weight", line.module), line.shape()));
        let base = hollow(&bench.path("base.safetensors"), &tensors.collect());
        let adapter = published(&bench.path("p.safetensors"), model, &lines, "comfyui");
        let found = places(&bench, &base, &adapter, model.list);
        let mut parts: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
        for line in &lines {
            parts.entry(model.spell(line, "comfyui")).or_default().push(line);
        }
        for (own, mut parts) in parts {
            parts.sort_by_key(|line| match line.place {
                Place::Rows(start, _) => start,
                _ => 0,
            });
            let tensor = |line: &Line| format!("{}.weight", line.module);
            let expected = match parts.as_slice() {
                [line] if line.place == Place::Swapped => swapped(&tensor(line), line.rows),
                [line] => json!([{ "tensor": tensor(line) }]),
                _ => {
                    let part = |line: &&Line| match line.place {
                        Place::Rows(start, end) => json!({
                            "tensor": tensor(line),
                            "part": { "rows": range(start, end), "of": line.rows },
                        }),
                        _ => panic!("{own}: {line:?}"),
                    };
                    parts.iter().map(part).collect()
                }
            };
            assert_eq!(found.get(&own), Some(&expected), "{}: {own}", model.list);
        }
    }
}

/// Models that are known in diffusers' layout alone, and what others have there beside their blocks.
const OF_ONE_LAYOUT: [&str; 4] =
    ["pixart_sigma", "sd3_5_large", "lumina2", "wan_animate_14b_diffusers"];

#[test]
fn adapters_land_on_the_names_that_they_share_with_the_base() {
    let bench = Bench::new();
    for list in OF_ONE_LAYOUT {
        let lines = real(list);
        let tensors = lines.iter().map(|line| (line.tensor.clone(), line.shape()));
        let base = hollow(&bench.path("base.safetensors"), &tensors.collect());
        let adapter = diffusers(&bench.path("d.safetensors"), &lines);
        let found = places(&bench, &base, &adapter, list);
        let expected: BTreeMap<String, Value> = lines
            .iter()
            .map(|line| {
                let place = json!([{ "tensor": line.tensor }]);
                (format!("transformer.{}", line.module), place)
            })
            .collect();
        assert_eq!(found, expected, "{list}");
    }
}

/// Whether a part of a model's modules is enough to tell it: attention alone, feed-forward layers alone.
#[test]
fn a_few_modules_tell_a_model() {
    let bench = Bench::new();
    for (list, kept, names, expected) in [
        ("flux2_dev", "attn", "d", Some("flux2")),
        ("flux2_klein_9b", "attn", "p", Some("flux2")),
        ("flux2_klein_4b", "ff.", "d", Some("flux2")),
        ("flux2_klein_4b", "ff.", "p", Some("flux2")),
        // The same names and widths as FLUX.1's, and the same places.
        ("flux2_klein_4b", ".attn.to_k", "p", Some("flux")),
        ("chroma", "single_", "d", Some("flux")),
        ("ltx2", ".attn1.", "d", Some("ltx2")),
        ("ltx_video", ".attn1.", "p", Some("ltx")),
        ("cosmos_predict2_2b", ".attn2.", "d", Some("cosmos")),
        ("cosmos_predict2_2b", ".attn1.", "p", Some("cosmos")),
        ("cosmos_predict1_7b", ".attn1.", "p", Some("cosmos1")),
        ("krea2", "transformer_blocks.0.attn.to_k", "d", Some("krea2")),
        ("krea2", ".attn.", "p", Some("krea2")),
        ("ideogram4", ".attention.", "d", Some("ideogram4")),
        ("ideogram4", ".attention.", "p", Some("ideogram4")),
        ("z_image", ".attention.", "p", Some("lumina")),
        ("bria_fibo2", "layers.0.attention.", "d", Some("fibo2")),
        ("omnigen2", "layers.0.attn.", "d", Some("omnigen2")),
        ("auraflow", "single_transformer_blocks.0.ff", "d", Some("auraflow")),
        ("mochi", ".attn1.", "p", Some("mochi")),
        ("hunyuan_video_1_5", "transformer_blocks.0.attn.", "d", Some("hunyuan_video_1_5")),
        ("hunyuan_image_2_1", "single_transformer_blocks.0.", "p", Some("hunyuan_image")),
        ("hunyuan_image_2_1", "transformer_blocks.0.attn.", "d", Some("hunyuan_image")),
        ("minimax_h3", "transformer_blocks.0.attn.", "p", Some("minimax_h3")),
        ("ace_step_1_5", ".cross_attn.", "p", Some("ace_step")),
        // A language model's names.
        ("ace_step_1_5", ".self_attn.", "p", None),
        ("stable_audio_open", ".attn1.", "d", Some("stable_audio")),
        ("stable_audio_open", ".attn1.", "p", Some("stable_audio")),
        ("sana_1600m", ".attn1.", "d", Some("sana")),
        ("cogvideox_5b", ".attn1.", "d", Some("cogvideox")),
        ("ovis_image", ".ff.net.0.", "d", Some("ovis_image")),
        ("wan2_2_ti2v_5b", ".attn1.", "p", Some("wan")),
        ("wan_vace_14b", "vace_blocks", "d", Some("wan")),
    ] {
        let lines: Vec<Line> =
            real(list).into_iter().filter(|line| line.module.contains(kept)).collect();
        assert!(!lines.is_empty(), "{list} {kept}");
        let path = bench.path("a.safetensors");
        let found = match names {
            "d" => vec![told(&diffusers(&path, &lines))],
            _ => ["comfyui", "kohya"]
                .map(|convention| told(&published(&path, &model(list, ""), &lines, convention)))
                .to_vec(),
        };
        for found in found {
            assert_eq!(found.first().copied(), expected, "{list} {kept} {names}");
        }
    }
}
