//! One adapter of one module, merged and converted, against plain dense matrices in f64.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use crate::common::dense::Dense;
use crate::common::formulas::hadamard;
use crate::common::{Bench, Random, Tally, Tensors, lora_tool, read};
use lora_tool::format::Dtype;
use serde_json::{Map, Value, json};

/// One adapter of one module, and what it makes of a weight.
pub(crate) struct Case<'a> {
    pub(crate) random: Random,
    pub(crate) tensors: Tensors,
    /// A PEFT config; a single file if none.
    pub(crate) config: Option<Value>,
    pub(crate) prefix: &'a str,
}

impl Case<'_> {
    pub(crate) fn kohya(seed: u64) -> Self {
        let tensors = Tensors::new();
        Self { random: Random::new(seed), tensors, config: None, prefix: "lora_unet_layer" }
    }

    pub(crate) fn peft(seed: u64, config: Value) -> Self {
        let (random, tensors) = (Random::new(seed), Tensors::new());
        Self { random, tensors, config: Some(config), prefix: "base_model.model.layer" }
    }

    /// Adds a random tensor; as (first dimension) × (the others).
    pub(crate) fn tensor(&mut self, part: &str, shape: &[usize], size: f32) -> Dense {
        let values = self.random.values(shape.iter().product(), size);
        self.add(part, shape, &values)
    }

    pub(crate) fn add(&mut self, part: &str, shape: &[usize], values: &[f32]) -> Dense {
        let name = format!("{}.{part}", self.prefix);
        self.tensors = std::mem::take(&mut self.tensors).f32(&name, shape, values);
        let rest = shape.get(1..).unwrap_or_default().iter().product();
        let values = values.iter().map(|value| f64::from(*value)).collect();
        Dense::new(shape.first().copied().unwrap_or(1), rest, values)
    }

    /// Merges at some weight, and holds the result to W + weight · (full(W) − W).
    pub(crate) fn check(&self, shape: &[usize], turned: bool, full: &dyn Fn(&Dense) -> Dense) {
        for (dtype, weight) in [(Dtype::F32, 1.0), (Dtype::BF16, 0.7), (Dtype::F32, -0.5)] {
            let bench = Bench::new();
            let mut random = Random::new(99);
            let values = random.values(shape.iter().product(), 0.5);
            let bias = random.values(shape[usize::from(turned)], 0.5);
            let base = Tensors::new().float("layer.weight", dtype, shape, &values);
            let base = base.float("layer.bias", dtype, &[bias.len()], &bias);
            let base = base.save(&bench.path("model.safetensors"));
            let adapter = self.save(&bench);
            let out = bench.merge(&base, &[&adapter], &format!("-w={weight} --verify"));
            let (before, after) = (read(&base), read(&out));
            let stored =
                Dense::new(shape[0], shape[1..].iter().product(), before["layer.weight"].values());
            let turn = |m: &Dense| if turned { m.transposed() } else { m.clone() };
            let w = turn(&stored);
            let exact = w.plus(&full(&w).minus(&w).scaled(weight));
            let mut tally = Tally::default();
            tally.add("layer.weight", &after["layer.weight"], &turn(&exact).values);
            tally.check(&format!("{:?} at {weight} into {dtype}", self.tensors.entries[0].0));
        }
        self.check_as_lora(shape, turned, full);
    }

    /// Converts with `--as lora`: at full rank it merges as the adapter itself does, bias and all; at a rank it is as
    /// near as any matrix of that rank, and says how near.
    pub(crate) fn check_as_lora(
        &self,
        shape: &[usize],
        turned: bool,
        full: &dyn Fn(&Dense) -> Dense,
    ) {
        let bench = Bench::new();
        let mut random = Random::new(99);
        let values = random.values(shape.iter().product(), 0.5);
        let bias = random.values(shape[usize::from(turned)], 0.5);
        let base = Tensors::new().f32("layer.weight", shape, &values);
        let base =
            base.f32("layer.bias", &[bias.len()], &bias).save(&bench.path("model.safetensors"));
        let adapter = self.save(&bench);
        if !turned {
            super::verbs::check(
                &format!("{:?} {shape:?}", self.tensors.entries[0].0),
                &base,
                &adapter,
            );
        }
        let merged = read(&bench.merge(&base, &[&adapter], ""));
        let size = (shape[0], shape[1..].iter().product());
        let turn = |m: &Dense| if turned { m.transposed() } else { m.clone() };
        let before = read(&base)["layer.weight"].values();
        let stored = Dense::new(size.0, size.1, before);
        let update = full(&turn(&stored)).minus(&turn(&stored));
        let sigma = update.singular_values();
        for rank in [1, 2, 1000] {
            let ending = if self.config.is_some() { "" } else { ".safetensors" };
            let out = bench.path(&format!("lora{rank}{ending}"));
            let mut convert = lora_tool();
            convert.arg("convert").arg(&adapter).args(["--as", "lora", "--json", "--rank"]);
            convert.arg(rank.to_string()).arg("--reference").arg(&base).arg("-o").arg(&out);
            let done = convert.output().expect("runs");
            let label = format!("{:?} {shape:?} at {rank}", self.tensors.entries[0].0);
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{label}: {text}");
            let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            let again = read(&bench.merge(&base, &[&out], ""));
            let after = Dense::new(size.0, size.1, again["layer.weight"].values());
            let off = turn(&after.minus(&stored)).minus(&update).norm() / update.norm();
            let tail: f64 = sigma.iter().skip(rank).map(|value| value * value).sum();
            let optimum = tail.sqrt() / update.norm();
            assert!(off <= optimum * 1.01 + 1e-5, "{label}: {off:e}, best {optimum:e}");
            let said = report["relative_error"].as_f64().expect("a number");
            let modules = report["modules"].as_array().expect("a list");
            let of_factors = !modules.is_empty();
            assert!(
                !of_factors || (said - off).abs() <= 1e-5 + off * 0.01,
                "{label}: {said} {off}"
            );
            if rank == 1000 {
                for (name, tensor) in &merged {
                    let pairs = tensor.values().into_iter().zip(again[name].values());
                    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst <= 2e-5, "{label}: {name} {worst:e}");
                }
            }
        }
    }

    pub(crate) fn save(&self, bench: &Bench) -> std::path::PathBuf {
        let Some(config) = &self.config else {
            return self.tensors.save(&bench.path("adapter.safetensors"));
        };
        let directory = bench.path("adapter");
        self.tensors.save(&directory.join("adapter_model.safetensors"));
        let text = serde_json::to_vec(config).expect("JSON");
        std::fs::write(directory.join("adapter_config.json"), text).expect("written");
        directory
    }
}

pub(crate) fn config(peft_type: &str, fields: Value) -> Value {
    let mut config = Map::new();
    config.insert("peft_type".to_owned(), json!(peft_type));
    let Value::Object(fields) = fields else { unreachable!() };
    config.extend(fields);
    Value::Object(config)
}

/// Factors of rank r for out × in, and their product.
pub(crate) fn pair(
    case: &mut Case,
    names: [&str; 2],
    (outputs, rank, inputs): (usize, usize, usize),
) -> Dense {
    let up = case.tensor(names[0], &[outputs, rank], 0.5);
    up.times(&case.tensor(names[1], &[rank, inputs], 0.5))
}

pub(crate) fn loha(case: &mut Case, (outputs, rank, inputs): (usize, usize, usize)) -> Dense {
    let first = pair(case, ["hada_w1_a", "hada_w1_b"], (outputs, rank, inputs));
    hadamard(&first, &pair(case, ["hada_w2_a", "hada_w2_b"], (outputs, rank, inputs)))
}

/// All ways to store one of LoKr's parts, of rows × columns.
pub(crate) fn lokr_part(
    case: &mut Case,
    number: usize,
    rank: usize,
    size: (usize, usize),
) -> Dense {
    let name = format!("lokr_w{number}");
    match rank {
        0 => case.tensor(&name, &[size.0, size.1], 0.5),
        rank => {
            let names = [format!("{name}_a"), format!("{name}_b")];
            pair(case, [&names[0], &names[1]], (size.0, rank, size.1))
        }
    }
}

/// A dense matrix of these values, by row and column.
pub(crate) fn dense(rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64) -> Dense {
    let at = |row| (0..columns).map(move |column| value(row, column));
    Dense::new(rows, columns, (0..rows).flat_map(at).collect())
}
