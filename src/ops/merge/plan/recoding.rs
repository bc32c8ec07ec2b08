//! A quantised base of which some weights keep their codes: those that change are quantised again or become plain
//! numbers, all others are copied as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use super::binder::Bound;
use super::layout::{OutputShard, OutputTensor, output, plain};
use super::matrix::as_matrix;
use super::options::{Options, Quantized};
use super::quantised::Dtypes;
use super::tensor_plan::{Encode, TensorPlan};
use crate::error::{ErrorKind, QuantError, Result};
use crate::format::{Checkpoint, Component, Dtype, TensorSpec};
use crate::ops::shared::provenance;
use crate::weight::{Weight, Weights, Writing, fused, metadata_without};

/// Which weights of a base become what.
#[derive(Debug)]
pub(in crate::ops::merge) struct Recoding {
    /// The base as it is stored.
    pub(in crate::ops::merge) stored: Checkpoint,
    /// All its weights.
    pub(in crate::ops::merge) weights: Weights,
    /// How those that change are written again; as plain numbers if `None`.
    writing: Option<Writing>,
    /// Names of those that change, or are loaded as one with some that do.
    changed: BTreeSet<String>,
}

impl Recoding {
    /// What the options say, for weights that change.
    ///
    /// # Errors
    /// If one of them can only be read, or changes its shape; if the base is a GGUF file.
    pub(in crate::ops::merge) fn new(
        options: &Options,
        (stored, weights): (Checkpoint, Weights),
        touched: &BTreeSet<String>,
        bound: &Bound,
    ) -> Result<Self> {
        if stored.is_gguf() {
            let reason =
                "a GGUF file's blocks have no place in a safetensors file: use --quantized 16bit";
            return Err(ErrorKind::BadOption(reason.to_owned()).into());
        }
        let again = options.quantized == Quantized::Requantize;
        for weight in touched.iter().filter(|_| again).filter_map(|name| weights.get(name)) {
            let error = |what: QuantError| match weight.parts.first() {
                Some(codes) => codes.error(what),
                None => what.into(),
            };
            if weight.writer().is_none() {
                let encoding = format!("{}, {}", weight.encoding, weight.detail);
                return Err(error(QuantError::Unwritten { encoding }));
            }
            let tied = bound.untied.as_ref().is_some_and(|tied| tied.embedding == weight.name);
            if tied || bound.grown.contains_key(&weight.name) {
                let encoding = "a weight of another shape, or one that was two,".to_owned();
                return Err(error(QuantError::Unwritten { encoding }));
            }
        }
        let changed = if again {
            touched.clone()
        } else {
            let groups: BTreeSet<String> = touched.iter().map(|name| fused(name)).collect();
            let names = weights.quantised().map(|weight| &weight.name);
            names.filter(|name| groups.contains(&fused(name))).cloned().collect()
        };
        let writing = Some(options.writing).filter(|_| again);
        Ok(Self { stored, weights, writing, changed })
    }

    /// The weights that are quantised again.
    pub(in crate::ops::merge) fn again(&self) -> impl Iterator<Item = &Weight> {
        let names = self.changed.iter().filter(|_| self.writing.is_some());
        names.filter_map(|name| self.weights.get(name))
    }

    /// Modules of a component that become plain numbers, as configs name them.
    pub(in crate::ops::merge) fn plain_modules(&self, component: &Component) -> Vec<String> {
        let names = self.changed.iter().filter(|_| self.writing.is_none());
        let own = names.filter_map(|name| name.strip_prefix(&component.prefix));
        own.map(|name| name.strip_suffix(".weight").unwrap_or(name).to_owned()).collect()
    }

    /// One base shard's tensors, with what becomes of each.
    pub(in crate::ops::merge) fn keep(
        &self,
        (decoded, dtypes): (&Checkpoint, &Dtypes),
        bound: &Bound,
        (number, component): (usize, &Component),
        at: usize,
    ) -> OutputShard {
        let parts = self.parts();
        let mut tensors = Vec::new();
        let shard = self.stored.shards.get(at);
        for spec in shard.iter().flat_map(|shard| &shard.header.tensors) {
            let full = format!("{}{}", component.prefix, spec.name);
            let weight = parts.get(full.as_str()).copied();
            let changed = weight.filter(|weight| self.changed.contains(&weight.name));
            match (changed, decoded.tensor(&full)) {
                (Some(weight), _) => {
                    self.change(
                        (weight, spec),
                        decoded,
                        dtypes,
                        bound,
                        (number, component),
                        &mut tensors,
                    );
                }
                (None, Some(view)) if weight.is_none() => {
                    plain((view, &full), dtypes, bound, (number, component), &mut tensors);
                }
                _ => tensors.push(copy(spec, &full)),
            }
        }
        let metadata = shard.and_then(|shard| shard.header.metadata.as_ref());
        let modules = self.plain_modules(component);
        OutputShard {
            relative: shard.map(|shard| shard.relative.clone()).unwrap_or_default(),
            component: number,
            metadata: metadata.map(provenance::of_base).map(|all| metadata_without(all, &modules)),
            tensors,
            same_header_as: None,
        }
    }

    /// The weight that each stored tensor is part of.
    fn parts(&self) -> BTreeMap<&str, &Weight> {
        let weights = self.weights.quantised();
        weights
            .flat_map(|weight| weight.parts.iter().map(move |part| (part.name.as_str(), weight)))
            .collect()
    }

    /// What becomes of one stored tensor of a weight that changes.
    fn change(
        &self,
        (weight, spec): (&Weight, &TensorSpec),
        decoded: &Checkpoint,
        dtypes: &Dtypes,
        bound: &Bound,
        (number, component): (usize, &Component),
        tensors: &mut Vec<OutputTensor>,
    ) {
        let full = format!("{}{}", component.prefix, spec.name);
        let Some(view) = decoded.tensor(&weight.name) else { return };
        let Some((writing, writer)) = self.writing.zip(weight.writer()) else {
            // The codes' place is the numbers'; companions have none.
            if weight.parts.first().is_some_and(|codes| codes.name == full) {
                plain((view, &weight.name), dtypes, bound, (number, component), tensors);
            }
            return;
        };
        let written = writer.parts(writing).into_iter().enumerate();
        match written.into_iter().find(|(_, part)| part.name == full) {
            None => tensors.push(copy(spec, &full)),
            Some((part, written)) => {
                let name = weight.name.clone();
                let dense = output(bound, (view, Dtype::F32), name, &weight.name, &weight.name);
                tensors.push(OutputTensor {
                    name: spec.name.clone(),
                    full_name: full,
                    base: weight.name.clone(),
                    dtype: written.dtype,
                    matrix: as_matrix(&written.shape),
                    shape: written.shape,
                    plan: TensorPlan::Encode(Encode { part, dense: Box::new(dense) }),
                });
            }
        }
    }
}

/// A tensor as it is stored.
fn copy(spec: &TensorSpec, full: &str) -> OutputTensor {
    OutputTensor {
        name: spec.name.clone(),
        full_name: full.to_owned(),
        base: full.to_owned(),
        dtype: spec.dtype,
        shape: spec.shape.clone(),
        matrix: as_matrix(&spec.shape),
        plan: TensorPlan::Copy,
    }
}
