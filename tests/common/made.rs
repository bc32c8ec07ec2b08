//! Random adapters, and combinations of them through the library.

use std::path::{Path, PathBuf};

use lora_tool::format::Dtype;
use lora_tool::ops::combine::{self, Report};
use lora_tool::ops::merge::AdapterInput;
use serde_json::json;

use super::{Peft, Random, Tensors};

/// A module to make: name, outputs, inputs, rank.
pub type Shape<'a> = (&'a str, usize, usize, usize);

/// A directory of adapters and outputs with short names.
pub struct Workshop {
    root: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A PEFT adapter of random factors; its modules may differ in rank.
    pub fn peft(&self, name: &str, seed: u64, modules: &[Shape], how: How) -> PathBuf {
        made(seed, modules, how).save(&self.path(name))
    }

    /// A kohya file of random factors.
    pub fn kohya(&self, name: &str, seed: u64, modules: &[Shape], alpha: f32) -> PathBuf {
        let mut random = Random::new(seed);
        let mut tensors = Tensors::new();
        for &(module, outputs, inputs, rank) in modules {
            tensors = tensors
                .f32(&format!("{module}.alpha"), &[], &[alpha])
                .f32(
                    &format!("{module}.lora_down.weight"),
                    &[rank, inputs],
                    &random.values(rank * inputs, 1.0),
                )
                .f32(
                    &format!("{module}.lora_up.weight"),
                    &[outputs, rank],
                    &random.values(outputs * rank, 0.5),
                );
        }
        tensors.save(&self.path(name))
    }

    /// Combines into a new output.
    pub fn combine(
        &self,
        inputs: &[(&Path, f64)],
        output: &str,
        options: combine::Options,
    ) -> (PathBuf, Report) {
        let output = self.path(output);
        let adapters = inputs.iter().map(|(path, weight)| AdapterInput::new(path, *weight));
        let options = combine::Options {
            adapters: adapters.collect(),
            output: output.clone(),
            force: true,
            threads: if options.threads == 0 { 1 } else { options.threads },
            ..options
        };
        let combined = combine::plan(&options).and_then(|plan| plan.run(&()));
        (output, combined.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// How an adapter is stored.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub alpha: f64,
    pub rslora: bool,
    pub dtype: Dtype,
}

impl Default for How {
    fn default() -> Self {
        Self { alpha: 8.0, rslora: false, dtype: Dtype::F32 }
    }
}

/// A PEFT adapter of random factors, in memory.
pub fn made(seed: u64, modules: &[Shape], how: How) -> Peft {
    let mut random = Random::new(seed);
    let first = modules.first().expect("a module").3;
    let mut peft = Peft::new(first, how.alpha).field("use_rslora", how.rslora);
    let mut pattern = serde_json::Map::new();
    for &(module, outputs, inputs, rank) in modules {
        let key = |part: &str| format!("base_model.model.{module}.{part}.weight");
        let (down, up) = (random.values(rank * inputs, 1.0), random.values(outputs * rank, 0.5));
        peft.tensors = peft.tensors.float(&key("lora_A"), how.dtype, &[rank, inputs], &down).float(
            &key("lora_B"),
            how.dtype,
            &[outputs, rank],
            &up,
        );
        if rank != first {
            pattern.insert(module.to_owned(), json!(rank));
        }
    }
    let mut targets: Vec<&str> =
        modules.iter().map(|(name, ..)| name.rsplit('.').next().expect("a part")).collect();
    targets.sort_unstable();
    targets.dedup();
    peft.field("rank_pattern", pattern).field("target_modules", json!(targets))
}
