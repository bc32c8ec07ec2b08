//! Laws that every merge obeys, over random checkpoints and adapters.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::{Bench, Random, Read, Tensors, lora_tool, read, ulp};
use lora_tool::format::Dtype;
use proptest::prelude::*;
use serde_json::{Value, json};

type Stored = BTreeMap<String, Read>;

/// Sizes and numbers of a random base and its adapters.
#[derive(Debug, Clone, Copy)]
struct Scene {
    dtype: Dtype,
    rows: usize,
    columns: usize,
    rank: usize,
    seed: u64,
}

fn scenes() -> impl Strategy<Value = Scene> {
    let dtype = prop::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32]);
    let sizes = (dtype, 1usize..40, 1usize..90, 1usize..9, any::<u64>());
    sizes.prop_map(|(dtype, rows, columns, rank, seed)| Scene { dtype, rows, columns, rank, seed })
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

/// The factors of one module, rank × columns and rows × rank.
type Factors = (Vec<f32>, Vec<f32>);

impl Scene {
    /// Two adapted weights among others.
    fn base(self) -> Tensors {
        let mut random = Random::new(self.seed);
        let matrix = self.rows * self.columns;
        Tensors::new()
            .float("z.weight", self.dtype, &[self.rows, self.columns], &random.values(matrix, 0.05))
            .raw("steps", Dtype::I64, &[1], &random.value(1.0).to_bits().to_le_bytes().repeat(2))
            .float("norm.weight", self.dtype, &[self.columns], &random.values(self.columns, 2.0))
            .float("a.weight", self.dtype, &[self.rows, self.columns], &random.values(matrix, 0.05))
    }

    /// Factors for `a` and `z`.
    fn factors(self, number: u64) -> [Factors; 2] {
        let mut random = Random::new(self.seed ^ (number << 32));
        [(); 2].map(|()| {
            let down = random.values(self.rank * self.columns, 0.1);
            (down, random.values(self.rows * self.rank, 0.1))
        })
    }

    /// A file of these factors, whose scale is 1.
    fn adapter(self, bench: &Bench, name: &str, factors: &[Factors; 2]) -> PathBuf {
        let mut file = Tensors::new();
        for (module, (down, up)) in ["a", "z"].into_iter().zip(factors) {
            let rank = up.len() / self.rows;
            file = file
                .f32(&format!("{module}.lora_down.weight"), &[rank, self.columns], down)
                .f32(&format!("{module}.lora_up.weight"), &[self.rows, rank], up);
        }
        file.save(&bench.path(&format!("{name}.safetensors")))
    }

    /// Writes the base and so many adapters.
    fn build(self, bench: &Bench, adapters: u64) -> (PathBuf, Vec<PathBuf>) {
        let base = self.base().save(&bench.path("base/model.safetensors"));
        let save = |at| self.adapter(bench, &format!("adapter{at}"), &self.factors(at));
        (base, (0..adapters).map(save).collect())
    }
}

fn paths(paths: &[PathBuf]) -> Vec<&Path> {
    paths.iter().map(PathBuf::as_path).collect()
}

/// Fails unless all elements are within one last place, as it is at the largest of the two and of
/// what they went `through`; in f32, where sums round too, within 1e-6 of it. Values of these bases
/// are about 0.05: below that, cancelled terms leave the noise of sums in f32.
fn within_an_ulp(got: &Stored, want: &Stored, through: &Stored) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, want) in want {
        let got = &got[name];
        prop_assert_eq!((got.dtype, &got.shape), (want.dtype, &want.shape));
        if want.dtype == Dtype::I64 {
            prop_assert_eq!(got, want);
            continue;
        }
        let pairs = got.values().into_iter().zip(want.values());
        for (at, ((x, y), via)) in pairs.zip(through[name].values()).enumerate() {
            let largest = x.abs().max(y.abs()).max(via.abs());
            let noise = 1e-6 * largest.max(0.05);
            let allowed = match got.dtype {
                Dtype::F32 => noise,
                dtype => noise.max(ulp(dtype, largest)),
            };
            prop_assert!((x - y).abs() <= allowed, "{}[{}] is {}, not {}", name, at, x, y);
        }
    }
    Ok(())
}

/// Copies a one-file base into shards of some of its tensors each; returns their directory.
fn shard(base: &Tensors, directory: &Path, assignment: &[usize], with_index: bool) -> PathBuf {
    let mut shards: BTreeMap<usize, Tensors> = BTreeMap::new();
    for (entry, shard) in base.entries.iter().zip(assignment.iter().cycle()) {
        let shard = shards.entry(*shard).or_default();
        shard.entries.push(entry.clone());
    }
    let (total, mut map) = (shards.len(), BTreeMap::new());
    for (at, shard) in shards.values().enumerate() {
        let name = format!("model-{:05}-of-{total:05}.safetensors", at + 1);
        shard.save(&directory.join(&name));
        map.extend(shard.entries.iter().map(|(tensor, ..)| (tensor.clone(), name.clone())));
    }
    if with_index {
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
        std::fs::write(directory.join("model.safetensors.index.json"), index).expect("written");
    }
    directory.to_path_buf()
}

/// Checks an output directory: one file and no index, or shards and an index that agree.
fn check_index(directory: &Path, limit: Option<u64>) -> Result<(), TestCaseError> {
    let listed = std::fs::read_dir(directory).expect("a directory");
    let names = listed.map(|entry| entry.expect("readable").file_name().into_string());
    let mut names: Vec<String> = names.map(|name| name.expect("a plain name")).collect();
    names.sort();
    let Some(index) = names.iter().position(|name| name.ends_with(".index.json")) else {
        prop_assert_eq!(names, ["model.safetensors"]);
        return Ok(());
    };
    let index = std::fs::read(directory.join(names.remove(index))).expect("readable");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let (mut found, mut total) = (BTreeMap::new(), 0);
    for name in &names {
        let tensors = read(&directory.join(name));
        let bytes: u64 = tensors.values().map(|tensor| tensor.bytes.len() as u64).sum();
        prop_assert!(limit.is_none_or(|limit| bytes <= limit || tensors.len() == 1));
        total += bytes;
        found.extend(tensors.into_keys().map(|tensor| (tensor, name.clone())));
    }
    prop_assert_eq!(&index["weight_map"], &json!(found));
    prop_assert_eq!(&index["metadata"]["total_size"], &json!(total));
    Ok(())
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_weight_of_zero_changes_no_byte(scene in scenes()) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 2);
        let merged = |name: &str, adapters: &[&Path], weights: &str| {
            let out = bench.path(name);
            bench.merge(&base, adapters, &format!("-w {weights} --no-provenance -o {}", out.display()));
            std::fs::read(&out).expect("written")
        };
        let with = merged("with.safetensors", &paths(&adapters), "1 0");
        let without = merged("without.safetensors", &[&adapters[0]], "1");
        prop_assert!(with == without, "an adapter of weight 0 changed bytes");
        let refused = bench.refuse(&base, &paths(&adapters), "-w 0 0");
        prop_assert!(refused.contains("weights of 0"), "{}", refused);
    }

    #[test]
    fn taking_an_adapter_out_again_gives_the_base(scene in scenes()) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 1);
        let there = bench.merge(&base, &paths(&adapters), "-w 1");
        let back = bench.merge(&there, &paths(&adapters), "-w -1");
        within_an_ulp(&read(&back), &read(&base), &read(&there))?;
    }

    #[test]
    fn order_does_not_matter(scene in scenes()) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 3);
        let [a, b, c] = [0, 1, 2].map(|at| adapters[at].as_path());
        let first = read(&bench.merge(&base, &[a, b, c], "-w 1 -0.5 2"));
        let second = read(&bench.merge(&base, &[c, a, b], "-w 2 1 -0.5"));
        within_an_ulp(&second, &first, &first)?;
    }

    #[test]
    fn two_adapters_are_their_sum(scene in scenes()) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 2);
        // Ranks beside one another: [B₁ −½B₂] · [A₁; A₂].
        let stack = |(down1, up1): &Factors, (down2, up2): &Factors| -> Factors {
            let rows = up1.chunks(scene.rank).zip(up2.chunks(scene.rank));
            let up = rows.flat_map(|(a, b)| a.iter().copied().chain(b.iter().map(|b| -0.5 * b)));
            ([down1.as_slice(), down2].concat(), up.collect())
        };
        let (first, second) = (scene.factors(0), scene.factors(1));
        let stacked = [stack(&first[0], &second[0]), stack(&first[1], &second[1])];
        let stacked = scene.adapter(&bench, "stacked", &stacked);
        let both = read(&bench.merge(&base, &paths(&adapters), "-w 1 -0.5"));
        let sum = read(&bench.merge(&base, &[&stacked], ""));
        within_an_ulp(&both, &sum, &sum)?;
    }

    #[test]
    fn the_layout_of_inputs_and_outputs_does_not_matter(
        scene in scenes(),
        assignment in prop::collection::vec(0usize..3, 4),
        limit in 1u64..20_000,
    ) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 1);
        let adapters = paths(&adapters);
        let once = bench.merge(&base, &adapters, "");
        check_index(&once, None)?;
        let expected = read(&once);
        let indexed = shard(&scene.base(), &bench.path("indexed"), &assignment, true);
        let bare = shard(&scene.base(), &bench.path("bare"), &assignment, false);
        for base in [&base, &indexed, &bare, &indexed.join("model.safetensors.index.json")] {
            let file = bench.path("merged.safetensors");
            bench.merge(base, &adapters, &format!("--force -o {}", file.display()));
            prop_assert_eq!(&read(&file), &expected);
            let kept = bench.merge(base, &adapters, "");
            prop_assert_eq!(&read(&kept), &expected);
            let split = bench.merge(base, &adapters, &format!("--max-shard-size {limit}"));
            prop_assert_eq!(&read(&split), &expected);
            check_index(&split, Some(limit))?;
        }
        let kept = bench.merge(&indexed, &adapters, "--max-shard-size keep");
        for entry in std::fs::read_dir(&indexed).expect("a directory") {
            prop_assert!(kept.join(entry.expect("readable").file_name()).exists());
        }
    }

    #[test]
    fn every_merge_verifies(scene in scenes(), half in any::<bool>()) {
        let bench = Bench::new();
        let (base, adapters) = scene.build(&bench, 2);
        let dtype = if half { "bf16" } else { "keep" };
        let out = bench.merge(&base, &paths(&adapters), &format!("-w 0.5 -2 --dtype {dtype}"));
        let mut verify = lora_tool();
        verify.arg("verify").arg(&out).arg("--base").arg(&base).arg("--adapter").args(&adapters);
        verify.args(["-w", "0.5,-2", "--dtype", dtype]).assert().success();
    }
}

/// Large enough for several panels of every kind of work: plain sums, DoRA by rows and by columns.
#[test]
fn threads_and_ways_to_read_do_not_change_a_byte() {
    let (bench, mut random) = (Bench::new(), Random::new(5));
    let (rows, columns, rank) = (700, 900, 3);
    let (mut base, mut adapter) = (Tensors::new(), Tensors::new());
    for (module, turned) in [("plain", false), ("dora", false), ("turned", true)] {
        let shape = if turned { [columns, rows] } else { [rows, columns] };
        let values = random.values(rows * columns, 0.05);
        base = base.float(&format!("{module}.weight"), Dtype::F32, &shape, &values);
        adapter = adapter
            .f32(
                &format!("{module}.lora_down.weight"),
                &[rank, columns],
                &random.values(rank * columns, 0.1),
            )
            .f32(
                &format!("{module}.lora_up.weight"),
                &[rows, rank],
                &random.values(rows * rank, 0.1),
            );
        if module != "plain" {
            let magnitudes = random.values(rows, 0.5);
            adapter = adapter.f32(&format!("{module}.lora_magnitude_vector"), &[rows], &magnitudes);
        }
    }
    let base = base.save(&bench.path("model.safetensors"));
    let adapter = adapter.save(&bench.path("adapter.safetensors"));
    let merge = |options: &str| {
        let out = bench.merge(&base, &[&adapter], options);
        std::fs::read(out.join("model.safetensors")).expect("written")
    };
    let first = merge("--threads 1");
    for options in ["", "--threads 2", "--threads 8", "--no-mmap", "--threads 3 --no-mmap"] {
        assert!(merge(options) == first, "`{options}` changes the output");
    }
}
