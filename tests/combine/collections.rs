//! `collect`: directions that are as good as the best, errors that are what they say, files that are refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use lora_tool::format::Dtype;
use serde_json::Value;

use crate::common::alternating::{inputs_optimum, optimum, pca_of_factors};
use crate::common::dense::{Dense, deltas, relative_error};
use crate::common::{Peft, Random, Tensors, files, lora_tool};

const MODULE: &str = "model.layers.0.self_attn.q_proj";
const OUTPUTS: usize = 24;
const INPUTS: usize = 20;
const RANK: usize = 3;
/// Directions that all adapters share, but for noise.
const SHARED: usize = 5;

/// A directory with adapters of one module.
struct Scene {
    root: tempfile::TempDir,
    /// Factors as they were written.
    factors: Vec<(Dense, Dense)>,
}

/// Random values, as rows of a matrix.
fn random(random: &mut Random, rows: usize, columns: usize, size: f32) -> Dense {
    let values = random.values(rows * columns, size).into_iter().map(f64::from);
    Dense::new(rows, columns, values.collect())
}

fn f32s(matrix: &Dense) -> Vec<f32> {
    matrix.values.iter().map(|value| *value as f32).collect()
}

impl Scene {
    /// Adapters whose factors are combinations of shared directions, plus noise; every fiftieth in another gauge, one of
    /// its units louder on one side and quieter on the other.
    fn new(count: usize, noise: f32, gauge: f64) -> Self {
        Self::of_families(&[1], count, noise, gauge)
    }

    /// The same with directions of its own for every seed; the adapters of all families take turns.
    fn of_families(seeds: &[u64], count: usize, noise: f32, gauge: f64) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let shared: Vec<(Dense, Dense)> = seeds
            .iter()
            .map(|seed| {
                let mut source = Random::new(*seed);
                let up = random(&mut source, OUTPUTS, SHARED, 1.0);
                (up, random(&mut source, SHARED, INPUTS, 1.0))
            })
            .collect();
        let mut source = Random::new(99);
        let mut factors = Vec::new();
        for number in 0..count {
            let (outputs, inputs) = &shared[number % shared.len()];
            let own = random(&mut source, SHARED, RANK, 1.0);
            let mut up = outputs.times(&own).plus(&random(&mut source, OUTPUTS, RANK, noise));
            let own = random(&mut source, RANK, SHARED, 1.0);
            let mut down = own.times(inputs).plus(&random(&mut source, RANK, INPUTS, noise));
            let gauge = if number % 50 == 0 { gauge } else { 1.0 };
            for row in 0..OUTPUTS {
                up.values[row * RANK] *= gauge;
            }
            for column in 0..INPUTS {
                down.values[column] /= gauge;
            }
            let peft = Peft::new(RANK, RANK as f64).linear(MODULE, RANK, &f32s(&down), &f32s(&up));
            peft.save(&root.path().join(format!("loras/a{number:03}")));
            factors.push((up, down));
        }
        Self { root, factors }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn deltas(&self) -> Vec<Dense> {
        self.factors.iter().map(|(up, down)| up.times(down)).collect()
    }

    fn run(&self, line: &str) -> (Option<i32>, String, String) {
        let mut command = lora_tool();
        let done = command.current_dir(self.root.path()).arg("collect").args(line.split(' '));
        let done = done.output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    fn report(&self, line: &str) -> Value {
        let (code, printed, said) = self.run(&format!("{line} --json"));
        assert_eq!(code, Some(0), "{line}: {said}");
        serde_json::from_str(&printed).expect("one JSON object")
    }

    #[track_caller]
    fn refuse(&self, line: &str) -> String {
        let (code, _, said) = self.run(line);
        assert_eq!(code, Some(2), "{line}: {said}");
        said
    }

    /// How far an exported adapter is from its own.
    fn distance(&self, store: &str, name: &str) -> f64 {
        let out = format!("out-{store}-{name}");
        self.report(&format!("export {store} {name} -o {out}"));
        relative_error(&deltas(&self.path(&out)), &deltas(&self.path(&format!("loras/{name}"))))
    }
}

fn error_of(report: &Value) -> f64 {
    report["relative_error"].as_f64().expect("a number")
}

fn stated(report: &Value, at: usize) -> f64 {
    report["adapters"][at]["relative_error"].as_f64().expect("a number")
}

#[test]
fn directions_are_as_good_as_the_alternation_s_whatever_the_gauge() {
    let plain = Scene::new(200, 0.3, 1.0);
    let turned = Scene::new(200, 0.3, 256.0);
    for rank in [3, SHARED, 9] {
        let best = optimum(&plain.deltas(), rank);
        let found = [&plain, &turned].map(|scene| {
            let line = format!("build loras -o store{rank} --rank {rank} --dtype f32");
            error_of(&scene.report(&line))
        });
        assert!(found[0] <= best * 1.01, "rank {rank}: {} against {best}", found[0]);
        assert!((found[0] - found[1]).abs() < 1e-5, "rank {rank}: {found:?}");
    }
    // What looks at the factors themselves sees the gauge.
    let pca = [&plain, &turned].map(|scene| pca_of_factors(&scene.factors, SHARED));
    let best = optimum(&plain.deltas(), SHARED);
    assert!(pca[1] > 1.03 * best && pca[1] > 1.02 * pca[0], "{pca:?} beside {best}");
}

#[test]
fn enough_directions_lose_nothing_and_errors_are_what_they_say() {
    let scene = Scene::new(6, 0.0, 1.0);
    let exact = scene.report(&format!("build loras -o exact --rank {SHARED}"));
    assert!(error_of(&exact) < 1e-6, "{exact}");
    assert!(scene.distance("exact", "a001") < 2e-6);
    // Cores are stored whole where K is less than twice the rank, and as factors where it is more.
    for (name, flags) in [
        ("whole", "--rank 4"),
        ("factored", "--rank 12"),
        ("codes", "--rank 12 --dtype int8"),
        ("half", "--rank 4 --dtype bf16"),
    ] {
        let noisy = Scene::new(6, 0.4, 1.0);
        let report = noisy.report(&format!("build loras -o {name} {flags}"));
        for (at, adapter) in ["a000", "a005"].into_iter().zip([0, 5]).map(|(a, n)| (n, a)) {
            let (said, found) = (stated(&report, at), noisy.distance(name, adapter));
            let rounding = if name == "half" { 4e-3 } else { 1e-5 };
            assert!((said - found).abs() < rounding, "{name} {adapter}: {said} {found}");
        }
        if name == "codes" {
            let before = report["unrounded_error"].as_f64().expect("a number");
            assert!(before < error_of(&report) && error_of(&report) < before + 0.01, "{report}");
        }
        let info = noisy.report(&format!("info {name}"));
        assert_eq!(info["adapters"], report["adapters"], "{name}");
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let scene = Scene::of_families(&[1, 2], 12, 0.2, 1.0);
    for (name, flags) in [("plain", "--rank 4"), ("groups", "--rank 4 --clusters 3 --seed 7")] {
        for threads in [1, 4] {
            scene.report(&format!("build loras -o {name}{threads} {flags} --threads {threads}"));
        }
        let [one, four] = [1, 4].map(|threads| files(&scene.path(&format!("{name}{threads}"))));
        assert!(one == four, "{name}");
    }
}

#[test]
fn groups_of_adapters_have_directions_of_their_own() {
    let scene = Scene::of_families(&[1, 2, 3], 30, 0.05, 1.0);
    let line = format!("build loras -o together --rank {SHARED}");
    let together = error_of(&scene.report(&line));
    let apart = scene.report(&format!("build loras -o apart --rank {SHARED} --clusters 3"));
    let group = |at: usize| apart["adapters"][at]["cluster"].as_u64().expect("a group");
    for at in 3..30 {
        assert_eq!(group(at), group(at % 3), "{apart}");
    }
    assert!(error_of(&apart) < 0.15 && together > 0.4, "{} {together}", error_of(&apart));
    assert!((stated(&apart, 4) - scene.distance("apart", "a004")).abs() < 1e-5);
    // One that is added goes where it is held best.
    std::fs::rename(scene.path("loras/a004"), scene.path("a004")).expect("moved");
    scene.report(&format!("build loras -o fewer --rank {SHARED} --clusters 3"));
    let added = scene.report("add fewer a004");
    assert!(stated(&added, 0) < 0.2, "{added}");
}

#[test]
fn what_is_added_leaves_the_rest_as_it_was() {
    let scene = Scene::new(5, 0.1, 1.0);
    std::fs::create_dir(scene.path("later")).expect("made");
    std::fs::rename(scene.path("loras/a004"), scene.path("later/a004")).expect("moved");
    scene.report("build loras -o store --rank 6");
    let before = files(&scene.path("store"));
    let own = scene.distance("store", "a002");
    let added = scene.report("add store later");
    assert_eq!(added["adapters"].as_array().map(Vec::len), Some(1));
    let after = files(&scene.path("store"));
    let bases = Path::new("bases.safetensors");
    assert_eq!(before[bases], after[bases]);
    let info = scene.report("info store");
    assert_eq!(info["adapters"].as_array().map(Vec::len), Some(5));
    scene.report("export store a002 -o again");
    let again = relative_error(&deltas(&scene.path("again")), &deltas(&scene.path("loras/a002")));
    assert!((again - own).abs() < 1e-12);
    scene.report("export store a004 -o new");
    let new = relative_error(&deltas(&scene.path("new")), &deltas(&scene.path("later/a004")));
    assert!((new - stated(&added, 0)).abs() < 1e-6);
    let said = scene.refuse("add store later");
    assert!(said.contains("two adapters are called `a004`"), "{said}");
}

/// The bytes of a file before and after the end of its tensors that are A's.
fn parts(path: &Path, shared: usize) -> (Vec<u8>, usize) {
    let bytes = std::fs::read(path).expect("a file");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    (bytes[start..start + shared].to_vec(), start)
}

#[test]
fn plain_adapters_share_one_a_byte_for_byte() {
    let scene = Scene::new(40, 0.3, 1.0);
    let rank = 6;
    let report = scene.report(&format!("build loras -o served --rank {rank} --common-a"));
    let best = inputs_optimum(&scene.deltas(), rank);
    assert!(error_of(&report) <= best * 1.01 && error_of(&report) >= best * 0.999, "{best}");
    let file = |name: &str| scene.path(&format!("served/{name}/adapter_model.safetensors"));
    let shared = rank * INPUTS * 4;
    let (first, start) = parts(&file("a000"), shared);
    assert_eq!(start % 4096, 0);
    for (at, name) in [(7, "a007"), (39, "a039")] {
        assert_eq!(parts(&file(name), shared), (first.clone(), start));
        let found = relative_error(
            &deltas(&scene.path(&format!("served/{name}"))),
            &deltas(&scene.path(&format!("loras/{name}"))),
        );
        assert!((found - stated(&report, at)).abs() < 1e-5, "{name}");
    }
}

#[test]
fn what_no_collection_holds_is_refused() {
    let scene = Scene::new(3, 0.1, 1.0);
    let peft = |module: &str, size: usize| {
        let values = Random::new(3).values(size, 1.0);
        Peft::new(1, 1.0).linear(module, 1, &values, &values)
    };
    let ones = vec![1.0; OUTPUTS];
    peft(MODULE, OUTPUTS).save(&scene.path("odd/shape"));
    let saved = peft(MODULE, INPUTS).tensor("score.weight", &[2, 12], &ones);
    saved.field("modules_to_save", vec!["score"]).save(&scene.path("whole/one"));
    for (line, words) in [
        ("build loras odd -o store --rank 2", "as in another adapter"),
        ("build whole -o store --rank 2", "it holds a whole tensor, score.weight"),
        ("build loras -o store --rank 0", "--rank 0"),
        ("build loras -o store --rank 2 --clusters 0", "--clusters 0"),
        ("build loras -o store --rank 2 --common-a --dtype int8", "int8"),
        ("build loras loras -o store --rank 2", "two adapters are called `a000`"),
        ("build loras -o loras/store --rank 2", "loras"),
        ("info loras", "no collection"),
    ] {
        let said = scene.refuse(line);
        assert!(said.contains(words), "{line}: {said}");
        assert!(!scene.path("store").exists(), "{line}");
    }
    scene.report("build loras -o store --rank 2");
    let said = scene.refuse("export store a01 -o out");
    assert!(said.contains("no adapter `a01`; is it `a001`?"), "{said}");
    assert!(!scene.path("out").exists());
    peft("model.layers.1.self_attn.q_proj", INPUTS).save(&scene.path("more/b"));
    let said = scene.refuse("add store more");
    assert!(said.contains("no directions for this module"), "{said}");
    assert!(scene.refuse("build loras -o store --rank 2").contains("exists"));
}

#[test]
fn damaged_and_unknown_stores_are_refused() {
    let scene = Scene::new(3, 0.1, 1.0);
    scene.report("build loras -o store --rank 2");
    scene.report("build loras -o other --rank 3");
    let at = |store: &str, file: &str| scene.path(&format!("{store}/{file}.safetensors"));
    let adapters = std::fs::read(at("store", "adapters")).expect("a file");
    std::fs::copy(at("other", "adapters"), at("store", "adapters")).expect("copied");
    assert!(scene.refuse("info store").contains("for other directions"));
    let text = String::from_utf8_lossy(&adapters).into_owned();
    assert!(text.contains(r#"\"version\":1"#));
    let newer = |bytes: &[u8]| {
        let old = br#"{\"version\":1"#;
        let at = bytes.windows(old.len()).position(|w| w == old).expect("there");
        let mut bytes = bytes.to_vec();
        bytes[at + old.len() - 1] = b'2';
        bytes
    };
    std::fs::write(at("store", "adapters"), newer(&adapters)).expect("written");
    let said = scene.refuse("export store a000 -o out");
    assert!(said.contains("version 2") && said.contains("reads version 1"), "{said}");
    std::fs::remove_file(at("store", "adapters")).expect("removed");
    assert!(scene.refuse("info store").contains("no adapters.safetensors"));
    Tensors::new().float("x", Dtype::F32, &[1], &[1.0]).save(&at("store", "bases"));
    assert!(scene.refuse("info store").contains("no `lora_tool.collection` in its header"));
}
