//! Modules that releases of transformers call otherwise are the same to every command: an adapter in one
//! spelling beside one, or on a base, in the other.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lora_tool::math::LowRank;
use serde_json::Value;

use crate::common::deltas::Deltas;
use crate::common::renames::RENAMES;
use crate::common::{Bench, Peft, Random, Tensors, lora_tool, product};

const RANK: usize = 2;

/// Outputs and inputs, by a module's number: no two alike.
fn size(at: usize) -> (usize, usize) {
    (5 + 2 * at, 4 + 2 * at)
}

/// One model in two spellings, before and after a change, with an adapter of it.
struct World {
    bench: Bench,
    names: [Vec<&'static str>; 2],
    /// Values of the base, and A and B.
    modules: Vec<[Vec<f32>; 3]>,
    faults: Vec<String>,
}

const SPELLINGS: [&str; 2] = ["old", "new"];

impl World {
    fn new(pairs: &[(&'static str, &'static str)]) -> Self {
        let mut random = Random::new(5);
        let mut module = |at: usize| {
            let (outputs, inputs) = size(at);
            [outputs * inputs, RANK * inputs, outputs * RANK].map(|count| random.values(count, 1.0))
        };
        let modules = (0..pairs.len()).map(&mut module).collect();
        let names = [
            pairs.iter().map(|(old, _)| *old).collect(),
            pairs.iter().map(|(_, new)| *new).collect(),
        ];
        let mut world = Self { bench: Bench::new(), names, modules, faults: Vec::new() };
        for spelling in 0..2 {
            world.save(spelling);
        }
        world.faults.clear();
        world
    }

    /// The adapter, the base, and the base with the adapter merged into it.
    fn save(&mut self, spelling: usize) {
        let mut peft = Peft::new(RANK, RANK as f64);
        let (mut base, mut tuned) = (Tensors::new(), Tensors::new());
        for (at, (name, [values, down, up])) in
            self.names[spelling].iter().zip(&self.modules).enumerate()
        {
            let (outputs, inputs) = size(at);
            peft = peft.linear(name, RANK, down, up);
            base = base.f32(&format!("{name}.weight"), &[outputs, inputs], values);
            let delta = product(up, down, RANK);
            let merged: Vec<f32> =
                values.iter().zip(&delta).map(|(value, delta)| value + *delta as f32).collect();
            tuned = tuned.f32(&format!("{name}.weight"), &[outputs, inputs], &merged);
        }
        peft.save(&self.path("adapter", spelling));
        base.save(&self.path("base", spelling));
        tuned.save(&self.path("tuned", spelling));
    }

    fn path(&self, what: &str, spelling: usize) -> PathBuf {
        let ending = if what == "adapter" { "" } else { ".safetensors" };
        self.bench.path(&format!("{what}-{}{ending}", SPELLINGS[spelling]))
    }

    /// Runs a command: its exit code, its report, and what it said.
    fn run(&self, verb: &str, paths: &[&Path], flags: &str) -> (Option<i32>, Value, String) {
        let mut command = lora_tool();
        command.arg(verb).args(paths).args(flags.split_whitespace()).arg("--json");
        let done = command.output().expect("it runs");
        let report = serde_json::from_slice(&done.stdout).unwrap_or_default();
        (done.status.code(), report, String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn hold(&mut self, what: &str, holds: bool, found: impl std::fmt::Display) {
        if !holds {
            let found: String = found.to_string().chars().take(400).collect();
            self.faults.push(format!("{what}: {found}"));
        }
    }

    /// What an adapter at `path` holds against this one's updates, whatever its modules are called.
    fn holds_updates(&self, path: &Path, expected: &[&str]) -> bool {
        // Which prefix kohya's names have is another test's.
        let below = |name: String| {
            let prefix = ["lora_unet_", "lora_te_"].iter().find_map(|p| name.strip_prefix(p));
            prefix.map_or(name.clone(), str::to_owned)
        };
        let found = Deltas::of(path).0.into_iter().map(|(name, delta)| (below(name), delta));
        let found: BTreeMap<String, LowRank> = found.collect();
        let near = |name: &&str, at: usize| {
            let [_, down, up] = &self.modules[at];
            let exact = product(up, down, RANK);
            found.get(*name).is_some_and(|delta| {
                let dense = &delta.up * &delta.down;
                let (_, inputs) = size(at);
                exact.iter().enumerate().all(|(index, exact)| {
                    (dense[(index / inputs, index % inputs)] - exact).abs() < 1e-4
                })
            })
        };
        found.len() == expected.len()
            && expected.iter().enumerate().all(|(at, name)| near(name, at))
    }

    /// Commands that put two adapters together.
    fn pairs_adapters(&mut self, first: usize) {
        let (own, other) = (self.path("adapter", first), self.path("adapter", 1 - first));
        let count = self.modules.len();
        let (_, report, said) = self.run("compare", &[&own, &other], "");
        let pair = &report["pairs"][0];
        let cosine = pair["cosine"].as_f64().unwrap_or_default();
        let same = pair["shared_modules"] == count && (cosine - 1.0).abs() < 1e-9;
        self.hold("compare", same, format!("{pair} {said}"));
        let (code, report, said) = self.run("diff", &[&own, &other], "");
        self.hold("diff of adapters", code == Some(0), format!("{report} {said}"));
        let out = self.bench.path("combined");
        let flags = format!("--weights 0.25,0.75 --force -o {}", out.display());
        let (code, _, said) = self.run("combine", &[&own, &other], &flags);
        let names = self.names[first].clone();
        let holds = code == Some(0) && self.holds_updates(&out, &names);
        self.hold("combine", holds, said);
    }

    /// Commands that hold an adapter in one spelling against a base in the other.
    fn lands(&mut self, spelling: usize) {
        let (adapter, base) = (self.path("adapter", spelling), self.path("base", 1 - spelling));
        let against = format!("--against {}", base.display());
        let (_, report, said) = self.run("inspect", &[&adapter], &against);
        let modules = report["items"][0]["modules"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<&str> =
            modules.iter().filter_map(|module| module["base_tensor"].as_str()).collect();
        let mut names: Vec<String> =
            self.names[1 - spelling].iter().map(|name| format!("{name}.weight")).collect();
        names.sort();
        found.sort_unstable();
        self.hold("inspect", found == names, format!("{found:?} {said}"));
        let (_, report, said) = self.run("check", &[&adapter], &format!("--for peft {against}"));
        let text = report.to_string();
        let fits =
            !text.contains("fit nothing") && !text.contains("do not fit") && report.is_object();
        self.hold("check", fits, format!("{text} {said}"));
        let out = self.bench.path("converted.safetensors");
        let flags =
            format!("--to kohya --reference {} --force -o {}", base.display(), out.display());
        let (code, _, said) = self.run("convert", &[&adapter], &flags);
        let flat = |name: &&str| name.replace('.', "_");
        let held = [0, 1].map(|spelling| {
            let names: Vec<String> = self.names[spelling].iter().map(flat).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            code == Some(0) && self.holds_updates(&out, &names)
        });
        self.hold("convert", held.contains(&true), said);
    }

    /// Commands that put two checkpoints together.
    fn pairs_checkpoints(&mut self, spelling: usize) {
        let (base, other) = (self.path("base", spelling), self.path("base", 1 - spelling));
        let (code, report, said) = self.run("diff", &[&base, &other], "");
        self.hold("diff of checkpoints", code == Some(0), format!("{report} {said}"));
        let out = self.bench.path("extracted");
        let flags = format!("--rank {RANK} --force -o {}", out.display());
        let tuned = self.path("tuned", 1 - spelling);
        let (code, _, said) = self.run("extract", &[&base, &tuned], &flags);
        let names = self.names[spelling].clone();
        let holds = code == Some(0) && self.holds_updates(&out, &names);
        self.hold("extract", holds, said);
    }
}

#[test]
fn every_command_knows_every_rename() {
    let mut faults = Vec::new();
    for (class, pairs) in RENAMES {
        let mut world = World::new(pairs);
        for (spelling, from) in SPELLINGS.iter().enumerate() {
            world.pairs_adapters(spelling);
            world.lands(spelling);
            world.pairs_checkpoints(spelling);
            faults.extend(world.faults.drain(..).map(|fault| format!("{class}, {from}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
