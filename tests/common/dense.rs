//! Adapters as dense matrices in f64, read and multiplied with plain loops: what the tool's results
//! are held to. Nothing here uses the tool's own idea of an adapter.

use std::collections::BTreeMap;
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use super::svd::Svd;
use super::{Read, read};

/// A matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

impl Dense {
    #[track_caller]
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns, "{rows} × {columns}");
        Self { rows, columns, values }
    }

    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, vec![0.0; rows * columns])
    }

    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    #[track_caller]
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows, "inner dimensions");
        let mut product = Self::zeros(self.rows, other.columns);
        for row in 0..self.rows {
            for inner in 0..self.columns {
                for column in 0..other.columns {
                    product.values[row * other.columns + column] +=
                        self.at(row, inner) * other.at(inner, column);
                }
            }
        }
        product
    }

    pub fn transposed(&self) -> Self {
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..self.columns {
            values.extend((0..self.rows).map(|row| self.at(row, column)));
        }
        Self::new(self.columns, self.rows, values)
    }

    pub fn scaled(&self, factor: f64) -> Self {
        let values = self.values.iter().map(|value| value * factor).collect();
        Self::new(self.rows, self.columns, values)
    }

    #[track_caller]
    pub fn plus(&self, other: &Self) -> Self {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns), "shapes of a sum");
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a + b).collect();
        Self::new(self.rows, self.columns, values)
    }

    #[track_caller]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&other.scaled(-1.0))
    }

    #[track_caller]
    pub fn inner(&self, other: &Self) -> f64 {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns), "shapes");
        self.values.iter().zip(&other.values).map(|(a, b)| a * b).sum()
    }

    pub fn norm(&self) -> f64 {
        self.inner(self).sqrt()
    }

    pub fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |largest, value| value.abs().max(largest))
    }

    /// Singular values, descending.
    pub fn singular_values(&self) -> Vec<f64> {
        Svd::of(self).values
    }
}

/// One module of an adapter as its files say it.
#[derive(Debug, Clone)]
pub struct Part {
    pub rank: usize,
    pub alpha: f64,
    pub scale: f64,
    /// out × rank.
    pub up: Dense,
    /// rank × in, a kernel's elements with the inputs.
    pub down: Dense,
    /// What the file adds to the base's bias, with its scale.
    pub bias: Option<Vec<f64>>,
    pub embedding: bool,
}

impl Part {
    /// scale · B · A, out × in.
    pub fn delta(&self) -> Dense {
        self.up.times(&self.down).scaled(self.scale)
    }

    /// As the base stores it: in × out for an embedding.
    pub fn base_delta(&self) -> Dense {
        if self.embedding { self.delta().transposed() } else { self.delta() }
    }
}

/// The modules of a PEFT directory or a kohya file.
///
/// # Panics
/// If a rank in the config is not that of the factors.
pub fn adapter(path: &Path) -> BTreeMap<String, Part> {
    if path.is_dir() { peft(path) } else { kohya(path) }
}

pub fn config(directory: &Path) -> Map<String, Value> {
    let text = std::fs::read(directory.join("adapter_config.json")).expect("a config");
    serde_json::from_slice(&text).expect("a JSON object")
}

/// The value a config gives a module: that of the first pattern that ends its path, as PEFT reads it.
fn patterned(config: &Map<String, Value>, module: &str, pattern: &str, otherwise: &str) -> f64 {
    let patterns = config.get(pattern).and_then(Value::as_object);
    let hit = patterns.into_iter().flatten().find(|(key, _)| {
        let regex = Regex::new(&format!(r"^(.*\.)?({key})$")).expect("a pattern");
        regex.is_match(module)
    });
    let value = hit.map(|(_, value)| value).or_else(|| config.get(otherwise));
    value.and_then(Value::as_f64).expect("a number")
}

fn flat(tensor: &Read) -> Dense {
    let rows = tensor.shape[0];
    Dense::new(rows, tensor.shape[1..].iter().product(), tensor.values())
}

fn peft(directory: &Path) -> BTreeMap<String, Part> {
    let config = config(directory);
    let tensors = read(&directory.join("adapter_model.safetensors"));
    let mut parts = BTreeMap::new();
    for (key, tensor) in &tensors {
        let name = key.strip_prefix("base_model.model.").expect("PEFT's prefix");
        let (module, up, embedding) = if let Some(module) = name.strip_suffix(".lora_A.weight") {
            (module, key.replace("lora_A", "lora_B"), false)
        } else if let Some(module) = name.strip_suffix(".lora_embedding_A") {
            (module, key.replace("lora_embedding_A", "lora_embedding_B"), true)
        } else {
            continue;
        };
        let (down, up) = (flat(tensor), flat(&tensors[&up]));
        let rank = down.rows;
        assert_eq!(
            patterned(&config, module, "rank_pattern", "r"),
            rank as f64,
            "rank of {module}"
        );
        let alpha = patterned(&config, module, "alpha_pattern", "lora_alpha");
        let rooted = config.get("use_rslora") == Some(&Value::Bool(true));
        let scale = alpha / if rooted { (rank as f64).sqrt() } else { rank as f64 };
        let bias = tensors.get(&format!("base_model.model.{module}.lora_B.bias"));
        let bias = bias.map(|bias| bias.values().iter().map(|value| value * scale).collect());
        parts.insert(module.to_owned(), Part { rank, alpha, scale, up, down, bias, embedding });
    }
    parts
}

fn kohya(file: &Path) -> BTreeMap<String, Part> {
    let tensors = read(file);
    let mut parts = BTreeMap::new();
    for (key, tensor) in &tensors {
        let Some(module) = key.strip_suffix(".lora_down.weight") else { continue };
        let (down, up) = (flat(tensor), flat(&tensors[&format!("{module}.lora_up.weight")]));
        let rank = down.rows;
        let alpha = tensors.get(&format!("{module}.alpha"));
        let alpha = alpha.map_or(rank as f64, |alpha| alpha.values()[0]);
        let scale = alpha / rank as f64;
        let (bias, embedding) = (None, false);
        parts.insert(module.to_owned(), Part { rank, alpha, scale, up, down, bias, embedding });
    }
    parts
}

/// Dense deltas by module.
pub fn deltas(path: &Path) -> BTreeMap<String, Dense> {
    adapter(path).into_iter().map(|(name, part)| (name, part.delta())).collect()
}

/// Σ wᵢ·Δᵢ by module; a module that an adapter lacks counts as zero.
pub fn weighted_sum(inputs: &[(f64, BTreeMap<String, Dense>)]) -> BTreeMap<String, Dense> {
    let mut sum: BTreeMap<String, Dense> = BTreeMap::new();
    for (weight, deltas) in inputs {
        for (name, delta) in deltas {
            let own = delta.scaled(*weight);
            let so_far = sum.get(name).map(|so_far| so_far.plus(&own));
            sum.insert(name.clone(), so_far.unwrap_or(own));
        }
    }
    sum
}

/// ‖a − b‖ / ‖b‖ over all modules, which must be the same.
#[track_caller]
pub fn relative_error(a: &BTreeMap<String, Dense>, b: &BTreeMap<String, Dense>) -> f64 {
    assert!(a.keys().eq(b.keys()), "modules: {:?} and {:?}", a.keys(), b.keys());
    let squares = |matrix: &Dense| matrix.inner(matrix);
    let apart: f64 = a.iter().map(|(name, delta)| squares(&delta.minus(&b[name]))).sum();
    let whole: f64 = b.values().map(squares).sum();
    if whole > 0.0 { (apart / whole).sqrt() } else { apart.sqrt() }
}
