//! Methods while merging, against dense matrices in f64: base + combined deltas, one rounding.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Peft, Random, Tally, Tensors, fixture, lora_tool, product, read};

const ROWS: usize = 90;
const COLUMNS: usize = 110;
const COUNT: usize = ROWS * COLUMNS;
const NAME: &str = "layers.0.q_proj";

/// A base, an adapter, a tuned checkpoint, and the deltas of the two as f32 has them.
struct Scene {
    bench: Bench,
    base: PathBuf,
    inputs: [PathBuf; 2],
    before: Vec<f64>,
    deltas: [Vec<f64>; 2],
}

impl Scene {
    fn new() -> Self {
        let (bench, mut random) = (Bench::new(), Random::new(3));
        let weight = format!("{NAME}.weight");
        let model = |values: &[f32], path: &str| {
            let norm = Tensors::new().f32("norm.weight", &[4], &[1.0, -0.0, 2.0, 3.0]);
            norm.f32(&weight, &[ROWS, COLUMNS], values).save(&bench.path(path))
        };
        let values = random.values(COUNT, 1.0);
        let moved: Vec<f32> = values.iter().map(|value| value + random.value(0.2)).collect();
        let (base, tuned) =
            (model(&values, "base.safetensors"), model(&moved, "tuned.safetensors"));
        let (down, up) = (random.values(3 * COLUMNS, 0.3), random.values(ROWS * 3, 0.3));
        let adapter = Peft::new(3, 6.0).linear(NAME, 3, &down, &up).save(&bench.path("adapter"));
        let f32s = |values: Vec<f64>| values.iter().map(|value| f64::from(*value as f32)).collect();
        let own = f32s(product(&up, &down, 3).iter().map(|value| 2.0 * value).collect());
        let other = moved.iter().zip(&values).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let before = values.iter().map(|value| f64::from(*value)).collect();
        Self { bench, base, inputs: [adapter, tuned], before, deltas: [own, f32s(other)] }
    }

    fn merge(&self, options: &str) -> PathBuf {
        let inputs: Vec<&Path> = self.inputs.iter().map(PathBuf::as_path).collect();
        self.bench.merge(&self.base, &inputs, options)
    }

    fn refuse(&self, options: &str) -> String {
        let inputs: Vec<&Path> = self.inputs.iter().map(PathBuf::as_path).collect();
        self.bench.refuse(&self.base, &inputs, options)
    }

    /// Compares the merged weight with base + `delta`.
    fn holds(&self, options: &str, delta: impl Fn(usize) -> f64) {
        let exact: Vec<f64> =
            self.before.iter().enumerate().map(|(at, value)| value + delta(at)).collect();
        let merged = read(&self.merge(options));
        let mut tally = Tally::default();
        tally.add(NAME, &merged[&format!("{NAME}.weight")], &exact);
        tally.check(options);
        assert_eq!(merged["norm.weight"], read(&self.base)["norm.weight"], "{options}");
    }
}

/// Which elements are among the `count` largest but the `skip` largest.
fn largest(delta: &[f64], skip: usize, count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..delta.len()).collect();
    order.sort_by(|a, b| delta[*b].abs().total_cmp(&delta[*a].abs()));
    let mut kept = vec![false; delta.len()];
    for at in order.iter().skip(skip).take(count) {
        kept[*at] = true;
    }
    kept
}

fn masked(delta: &[f64], kept: &[bool]) -> Vec<f64> {
    delta.iter().zip(kept).map(|(value, kept)| if *kept { *value } else { 0.0 }).collect()
}

#[test]
fn trimmed_sums() {
    let scene = Scene::new();
    let [a, b] = &scene.deltas;
    let trim = |density: f64| (density * COUNT as f64).floor() as usize;
    let (x, y) = (masked(a, &largest(a, 0, trim(0.5))), masked(b, &largest(b, 0, trim(0.3))));
    scene.holds("--method magnitude-prune --density 0.5,0.3 -w 0.7 -0.4", |at| {
        0.7 * x[at] - 0.4 * y[at]
    });
    let skip = (0.02 * COUNT as f64).floor() as usize;
    let (x, y) = (masked(a, &largest(a, skip, trim(0.6))), masked(b, &largest(b, skip, trim(0.6))));
    scene.holds("--method breadcrumbs --density 0.6 --gamma 0.02", |at| x[at] + y[at]);
}

#[test]
fn elected_means() {
    let scene = Scene::new();
    let [a, b] = &scene.deltas;
    let count = (0.4 * COUNT as f64).floor() as usize;
    let (x, y) = (masked(a, &largest(a, 0, count)), masked(b, &largest(b, 0, count)));
    let elected = |at: usize| {
        let votes = [0.7 * x[at], 0.5 * y[at]];
        let sign = (votes[0] + votes[1]).signum();
        let (mut sum, mut share) = (0.0, 0.0);
        for (vote, weight) in votes.into_iter().zip([0.7, 0.5]) {
            if vote * sign > 0.0 {
                sum += vote;
                share += weight;
            }
        }
        if share > 0.0 { 1.5 * sum / share } else { 0.0 }
    };
    scene.holds("--method ties --density 0.4 -w 0.7 0.5 --lambda 1.5", elected);
}

#[test]
fn random_drops_scale_up_what_is_left() {
    let scene = Scene::new();
    let [a, b] = &scene.deltas;
    let merged = read(&scene.merge("--method dare-linear --density 0.25 --seed 7"));
    let values = merged[&format!("{NAME}.weight")].values();
    let mut kept = [0usize; 4];
    for at in 0..COUNT {
        let added = values[at] - scene.before[at];
        let choices = [0.0, 4.0 * a[at], 4.0 * b[at], 4.0 * (a[at] + b[at])];
        let near = choices.iter().position(|choice| (added - choice).abs() < 1e-5);
        kept[near.expect("one of four sums")] += 1;
    }
    for (count, share) in kept.into_iter().zip([0.5625, 0.1875, 0.1875, 0.0625]) {
        let found = count as f64 / COUNT as f64;
        assert!((found - share).abs() < 0.02, "{found} instead of {share}");
    }
    let again = scene.merge("--method dare-linear --density 0.25 --seed 8");
    assert_ne!(read(&again), merged);
}

#[test]
fn every_method_gives_the_same_bytes_for_any_threads_and_verifies() {
    let scene = Scene::new();
    let methods = "ties dare-linear dare-ties magnitude-prune breadcrumbs breadcrumbs-ties della della-linear sce";
    for method in methods.split(' ') {
        let options = format!("--method {method} -w 0.7 0.5");
        let once = read(&scene.merge(&format!("{options} --threads 1 --verify")));
        for threads in [2, 8] {
            let again = read(&scene.merge(&format!("{options} --threads {threads}")));
            assert_eq!(again, once, "{method} on {threads} threads");
        }
        // With all elements kept and one input, every method is the plain sum.
        let density = format!("--method {method} --density 1 --seed 0");
        let density = if ["dare-linear", "dare-ties", "della", "della-linear"].contains(&method) {
            density
        } else {
            density.replace(" --seed 0", "")
        };
        let one = scene.bench.merge(&scene.base, &[&scene.inputs[0]], &density);
        let sum = scene.bench.merge(&scene.base, &[&scene.inputs[0]], "");
        let weight = format!("{NAME}.weight");
        let (one, sum) = (read(&one)[&weight].values(), read(&sum)[&weight].values());
        let off = one.iter().zip(&sum).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-6, "{method}: {off}");
    }
}

#[test]
fn parameters_belong_to_methods() {
    let scene = Scene::new();
    let said = scene.refuse("--density 0.5");
    assert!(said.contains("`linear` does not take --density"), "{said}");
    let said = scene.refuse("--method ties --gamma 0.1");
    assert!(said.contains("`ties` does not take --gamma"), "{said}");
    let said = scene.refuse("--method tiess");
    assert!(said.contains("there is no method `tiess`"), "{said}");
    let said = scene.refuse("--method peft-linear");
    assert!(said.contains("lora-tool combine --method peft-linear"), "{said}");
    let dora = scene.bench.path("dora");
    Peft::new(1, 1.0)
        .field("use_dora", true)
        .linear(NAME, 1, &[0.1; COLUMNS], &[0.1; ROWS])
        .tensor(&format!("{NAME}.lora_magnitude_vector"), &[ROWS], &[1.0; ROWS])
        .save(&dora);
    let said = scene.bench.refuse(&scene.base, &[&scene.inputs[1], &dora], "--method ties");
    assert!(said.contains("depend on the weight they find"), "{said}");
}

#[test]
fn mergekit_merges_whole_models_alike() {
    for (case, options) in [
        ("linear", "--compat mergekit -w 0.7 0.5"),
        ("ties", "--compat mergekit --method ties --density 0.5,0.4 -w 0.7 0.5"),
    ] {
        let directory = fixture("golden").join(format!("modelmerge_mergekit_{case}"));
        let (bench, input) = (Bench::new(), directory.join("input"));
        let models = [input.join("model1"), input.join("model2")];
        let out = bench.merge(&input.join("base"), &[&models[0], &models[1]], options);
        let (ours, theirs) = (read(&out), read(&directory.join("expected/model.safetensors")));
        assert_eq!(ours.len(), theirs.len(), "tensors of {case}");
        for (name, theirs) in &theirs {
            let pairs = ours[name].values().into_iter().zip(theirs.values());
            for (at, (ours, theirs)) in pairs.enumerate() {
                let allowed = 2e-6 + 2e-5 * theirs.abs();
                assert!((ours - theirs).abs() <= allowed, "{case}: {name}[{at}]: {ours}, {theirs}");
            }
        }
    }
}

/// What mergekit itself made of three models, by `scripts/interop/mergekit_vs_merge.py`.
#[test]
fn mergekits_methods() {
    let golden = fixture("mergekit");
    let mut cases = 0;
    for entry in std::fs::read_dir(&golden).expect("a readable directory") {
        let recipe = entry.expect("an entry").path();
        if recipe.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let bench = Bench::new();
        let out = bench.path("out");
        let mut command = lora_tool();
        command.arg("run").arg(&recipe).arg("-o").arg(&out).arg("-q");
        command.assert().success();
        let (ours, theirs) =
            (read(&out.join("model.safetensors")), read(&recipe.with_extension("safetensors")));
        assert!(ours.keys().eq(theirs.keys()), "{}", recipe.display());
        for (name, theirs) in &theirs {
            let pairs = ours[name].values().into_iter().zip(theirs.values());
            for (at, (ours, theirs)) in pairs.enumerate() {
                // f32 in another order.
                let allowed = 1e-6 + 1e-6 * theirs.abs();
                let case = recipe.display();
                assert!((ours - theirs).abs() <= allowed, "{case}: {name}[{at}]: {ours}, {theirs}");
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 33);
}

/// Of positive weights the exact TIES is mergekit's, but for sums of 0; its `linear` is a mean of whole
/// models, where ours adds the weighted deltas.
#[test]
fn where_exact_merges_of_whole_models_are_another() {
    for (case, options, alike) in [
        ("linear", "-w 0.7 0.5", false),
        ("ties", "--method ties --density 0.5,0.4 -w 0.7 0.5", true),
    ] {
        let directory = fixture("golden").join(format!("modelmerge_mergekit_{case}"));
        let (bench, input) = (Bench::new(), directory.join("input"));
        let models = [input.join("model1"), input.join("model2")];
        let out = bench.merge(&input.join("base"), &[&models[0], &models[1]], options);
        let (ours, theirs) = (read(&out), read(&directory.join("expected/model.safetensors")));
        let base = read(&input.join("base/model.safetensors"));
        let tuned = models.map(|model| read(&model.join("model.safetensors")));
        let mut apart = 0f64;
        for (name, theirs) in &theirs {
            let (ours, theirs, base) = (ours[name].values(), theirs.values(), base[name].values());
            let [x, y] = [&tuned[0], &tuned[1]].map(|model| model[name].values());
            for at in 0..ours.len() {
                apart = apart.max((ours[at] - theirs[at]).abs());
                let sum = base[at] + 0.7 * (x[at] - base[at]) + 0.5 * (y[at] - base[at]);
                assert!(alike || (ours[at] - sum).abs() <= 2e-6 + 2e-6 * sum.abs(), "{name}[{at}]");
            }
        }
        assert_eq!(apart < 1e-5, alike, "{case}: {apart}");
    }
}

#[test]
fn verify_sees_another_density() {
    let scene = Scene::new();
    let out = scene.merge("--method ties --density 0.4");
    let verify = |density: &str| {
        let mut command = lora_tool();
        command.arg("verify").arg(&out).arg("--base").arg(&scene.base);
        command.arg("--adapter").args(&scene.inputs).args([
            "--method",
            "ties",
            "--density",
            density,
        ]);
        command.output().expect("it runs").status.code()
    };
    assert_eq!((verify("0.4"), verify("0.5")), (Some(0), Some(1)));
}
