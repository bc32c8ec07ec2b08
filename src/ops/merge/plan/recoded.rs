//! The tensors of one weight file of a quantised base of which some weights keep their codes.

use std::collections::BTreeMap;

use super::binder::Bound;
use super::gguf_types::Type;
use super::kept::{GgufHead, OutputShard, output, plain};
use super::quantised::Dtypes;
use super::recoding::Recoding;
use super::tensor_plan::{Encode, OutputTensor, TensorPlan};
use crate::adapter::tensor::element_type;
use crate::format::ggml::Blocks;
use crate::format::{Checkpoint, Component, Dtype, TensorSpec};
use crate::ops::shared::provenance;
use crate::weight::as_matrix;
use crate::weight::{Weight, metadata_without};

impl Recoding {
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
                // Whole numbers that are lent are the sibling's own: nothing converts them.
                (None, Some(view))
                    if weight.is_none()
                        && (!view.is_computed() || element_type(view.spec.dtype).is_some()) =>
                {
                    plain((view, &full), dtypes, bound, (number, component), &mut tensors);
                }
                _ => tensors.push(copy(spec, &full)),
            }
        }
        for tensor in &mut tensors {
            let blocks = shard.and_then(|shard| shard.header.blocks.get(&tensor.name));
            if matches!(tensor.plan, TensorPlan::Copy) {
                tensor.blocks = blocks.cloned();
            }
        }
        let metadata = shard.and_then(|shard| shard.header.metadata.as_ref());
        let modules = self.plain_modules(component);
        OutputShard {
            relative: shard.map(|shard| shard.relative.clone()).unwrap_or_default(),
            component: number,
            metadata: metadata.map(provenance::of_base).map(|all| {
                let mut metadata = metadata_without(all, &modules);
                if let Some((eight_bit, modules)) = self.retyped(component) {
                    eight_bit.describe_in_file(&mut metadata, &modules);
                }
                metadata
            }),
            tensors,
            same_header_as: None,
            gguf: shard
                .filter(|shard| shard.header.alignment > 0)
                .map(|shard| GgufHead::like(at, shard)),
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
        if let Some(Type::Plain(dtype)) = self.type_of(&weight.name) {
            let name = weight.name.clone();
            tensors.push(output(bound, (view, dtype), spec.name.clone(), &name, &name));
            return;
        }
        let Some((writing, writer)) = self.writing.zip(weight.writer()) else {
            // The codes' place is the numbers'; companions have none.
            if weight.parts.first().is_some_and(|codes| codes.name == full) {
                plain((view, &weight.name), dtypes, bound, (number, component), tensors);
            }
            return;
        };
        let is_codes = weight.parts.first().is_some_and(|codes| codes.name == full);
        let parts = writer.parts(writing);
        let (written, is_kept): (Vec<_>, _) = if self.retyped.contains(&weight.name) {
            // The codes' place is that of all that takes theirs; what only said their size says it still.
            let is_same = parts.first().is_some_and(|part| {
                weight.parts.first().is_some_and(|codes| codes.name == part.name)
            });
            let all = parts.into_iter().enumerate().filter(|_| is_codes).collect();
            (all, is_same && full.ends_with(".weight_shape"))
        } else {
            let parts = parts.into_iter().enumerate();
            let own: Vec<_> = parts.filter(|(_, part)| part.name == full).collect();
            let none = own.is_empty();
            (own, none)
        };
        if is_kept {
            tensors.push(copy(spec, &full));
        }
        for (part, written) in written {
            let name = weight.name.clone();
            let dense = output(bound, (view, Dtype::F32), name, &weight.name, &weight.name);
            let own = written.name.strip_prefix(&component.prefix).unwrap_or(&written.name);
            tensors.push(OutputTensor {
                name: own.to_owned(),
                full_name: written.name.clone(),
                base: weight.name.clone(),
                dtype: written.dtype,
                blocks: match self.type_of(&weight.name) {
                    Some(Type::Blocks(kind)) => Some(Blocks { kind, shape: weight.shape.clone() }),
                    _ => None,
                },
                matrix: as_matrix(&written.shape),
                shape: written.shape,
                plan: TensorPlan::Encode(Encode { part, dense: Box::new(dense) }),
            });
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
        blocks: None,
        matrix: as_matrix(&spec.shape),
        plan: TensorPlan::Copy,
    }
}
