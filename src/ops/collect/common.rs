//! Plain PEFT adapters that share one A: Δᵢ becomes Bᵢ·A, where the rows of A are the directions that the inputs of
//! all updates share, and Bᵢ = Δᵢ·Aᵀ·(A·Aᵀ)⁻¹.
//!
//! All A stand first in every file, from a byte on that is a multiple of a file system's block: files of adapters
//! with the same modules begin with the same blocks, which file systems that know equal blocks and hubs store once.

use rayon::prelude::*;
use serde_json::json;

use super::bases::side;
use super::codes::Coded;
use super::document::{ModuleSpec, VERSION};
use super::options::Number;
use super::survey::Surveyed;
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, Output, Part};
use crate::adapter::save::{Encoded, NewAdapter, NewModule};
use crate::adapter::sidecar::CONFIG_NAME;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::header::{encode, lay_out, padded};
use crate::format::{Checkpoint, Dtype, Metadata, Staging};
use crate::math::linalg::joint::Directions;
use crate::math::linalg::matrix::product;
use crate::math::{LowRank, Matrix};

/// What tensors begin at a multiple of: a block of most file systems.
const BLOCK: usize = 4096;

/// One A of every module, for each group of adapters, in the dtype that is written.
pub(super) struct SharedA {
    dtype: Dtype,
    all: Vec<Vec<Coded>>,
}

/// An adapter in the making.
pub(super) struct Made {
    encoded: Encoded,
    /// Names of the tensors that are A's.
    shared: Vec<String>,
    /// ‖Δ − what is written‖ / ‖Δ‖.
    pub(super) error: f64,
}

impl SharedA {
    pub(super) fn new(dtype: Dtype, clusters: usize, modules: usize) -> Self {
        Self { dtype, all: vec![vec![Coded::default(); modules]; clusters] }
    }

    /// Keeps what the inputs of a module share.
    ///
    /// # Errors
    /// None that data can cause: directions are of length 1.
    pub(super) fn keep(
        &mut self,
        group: usize,
        module: usize,
        directions: &Directions,
    ) -> Result<()> {
        let right = directions.right();
        let place = self.all.get_mut(group).and_then(|modules| modules.get_mut(module));
        let place = place.ok_or(ErrorKind::NotFound)?;
        place.add(Number::Float(self.dtype), right.as_slice(), right.nrows())
    }

    /// Bytes of all A, each once.
    pub(super) fn bytes(&self) -> u64 {
        self.all.iter().flatten().map(|coded| coded.bytes.len() as u64).sum()
    }

    fn module(&self, group: usize, module: usize, inputs: usize) -> Result<Matrix> {
        let coded = self.all.get(group).and_then(|modules| modules.get(module));
        let values = coded.ok_or(ErrorKind::NotFound)?.values(self.dtype, inputs)?;
        Ok(Matrix::from_vec(inputs, values.len() / inputs.max(1), values))
    }

    /// Makes a plain adapter with a group's A.
    ///
    /// # Errors
    /// Reading errors, a value that the dtype does not reach.
    pub(super) fn adapter(
        &self,
        (adapter, surveyed): (&Adapter, &Surveyed),
        group: usize,
        specs: &[ModuleSpec],
        convention: &'static Convention,
    ) -> Result<Made> {
        let modules = specs.par_iter().enumerate().map(|(number, spec)| {
            let Some(delta) = surveyed.delta(adapter, number)? else { return Ok(None) };
            let vectors = self.module(group, number, spec.inputs)?;
            let made = self.factors(spec, &delta, vectors).in_tensor(&spec.name);
            Ok(Some(made.in_file(&adapter.path)?))
        });
        let made: Vec<Option<(NewModule, f64)>> = modules.collect::<Result<_>>()?;
        let (modules, lost): (Vec<NewModule>, Vec<f64>) = made.into_iter().flatten().unzip();
        let error = (lost.iter().sum::<f64>() * surveyed.weight()).sqrt();
        let said =
            json!({ "version": VERSION, "common_a": true, "cluster": group, "error": error });
        let new = NewAdapter {
            modules,
            replacements: Vec::new(),
            metadata: Metadata::from_iter([
                ("format".to_owned(), "pt".to_owned()),
                ("lora_tool.collection".to_owned(), said.to_string()),
            ]),
            config: surveyed.config.clone(),
            stacks: std::collections::BTreeMap::new(),
            target_modules: None,
            kept: None,
        };
        let encoded = new.encode(convention)?;
        let is_shared = |name: &str| {
            let key = (convention.parse)(name);
            key.is_some_and(|key| matches!(key.part, Part::Down | Part::EmbeddingDown))
        };
        let names = encoded.tensors.iter().map(|tensor| tensor.0.clone());
        let shared = names.filter(|name| is_shared(name)).collect();
        Ok(Made { encoded, shared, error })
    }

    /// B·A of a module, and how far it is from the update, squared.
    fn factors(
        &self,
        spec: &ModuleSpec,
        delta: &LowRank,
        vectors: Matrix,
    ) -> Result<(NewModule, f64)> {
        let side = side(vectors);
        // Δ·Aᵀ·(A·Aᵀ)⁻¹ = B·((A·Aᵀ)⁻¹·A·(the update's own A)ᵀ)ᵀ.
        let inner = side.coordinates(&delta.down.transpose());
        let up = product(&delta.up, &inner.transpose());
        let factors = LowRank::new(up, side.vectors.transpose());
        let module = NewModule::new(&spec.name, &spec.kind, &factors, 1.0, None, self.dtype)?;
        let up = Coded { scales: Vec::new(), bytes: bytes_of(&module, spec)? };
        let up = up.values(self.dtype, factors.rank())?;
        let written = Matrix::from_row_slice(factors.rows(), factors.rank(), &up);
        let written = LowRank::new(written, factors.down);
        let lost = delta.squared_norm() - 2.0 * delta.inner(&written) + written.squared_norm();
        Ok((module, lost.max(0.0)))
    }
}

/// The bytes of B as it is written.
fn bytes_of(module: &NewModule, spec: &ModuleSpec) -> Result<Vec<u8>> {
    let mut tensors = module.tensors.iter();
    let up = tensors.find(|(part, ..)| matches!(part, Part::Up | Part::EmbeddingUp));
    let (.., bytes) = up.ok_or(ErrorKind::NotFound).in_tensor(&spec.name)?;
    Ok(bytes.clone())
}

impl Made {
    /// Writes the adapter's directory; the bytes of what it does not share.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn write(&self, staging: &Staging, name: &str, input: &Checkpoint) -> Result<u64> {
        let is_shared = |tensor: &&crate::format::Tensor| self.shared.contains(&tensor.0);
        let (shared, own): (Vec<_>, Vec<_>) = self.encoded.tensors.iter().partition(is_shared);
        let ordered = || shared.iter().chain(&own);
        let specs = ordered().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone()));
        let head = encode(Some(&self.encoded.metadata), &lay_out(specs))?;
        let start = head.len().next_multiple_of(BLOCK);
        let head = padded(head, start)?;
        let Output::Directory(tensors) = self.encoded.output else {
            return Err(ErrorKind::NotFound.into());
        };
        let mut file = staging.create(&format!("{name}/{tensors}"))?;
        file.no_wider_than(input.shards.iter().map(|shard| &shard.source))?;
        file.write_at(&head, 0)?;
        let mut at = start as u64;
        for (.., bytes) in ordered() {
            file.write_at(bytes, at)?;
            at += bytes.len() as u64;
        }
        file.finish()?;
        if let Some(config) = &self.encoded.config {
            staging.write(&format!("{name}/{CONFIG_NAME}"), config)?;
        }
        let shared: u64 = shared.iter().map(|(.., bytes)| bytes.len() as u64).sum();
        Ok(at - shared)
    }
}
