//! The tensors of one weight file of the base, with what becomes of each where all are numbers.

use serde::{Deserialize, Serialize};

use super::binder::Bound;
use super::quantised::Dtypes;
use super::tensor_plan::{OutputTensor, TensorPlan};
use crate::format::gguf::ALIGNMENT;
use crate::format::{
    Checkpoint, Component, Dtype, Metadata, Shard, TensorSpec, TensorView, header,
};
use crate::ops::shared::provenance;
use crate::weight::plain_metadata;
use crate::weight::{as_matrix, unstacked};

/// One weight file of the output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputShard {
    /// Its path below the output; empty if the output is this file.
    pub relative: String,
    /// Number of the component it belongs to.
    pub component: usize,
    /// Its header's metadata.
    pub metadata: Option<Metadata>,
    /// Its tensors, in the order of their bytes.
    pub tensors: Vec<OutputTensor>,
    /// The base shard whose header serves unchanged, by number.
    pub same_header_as: Option<usize>,
    /// How it begins, if it is a GGUF file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf: Option<GgufHead>,
}

/// How a GGUF file of the output begins.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GgufHead {
    /// Number of the base shard whose pairs it has; none, if it has none but those of a set.
    pub pairs_of: Option<usize>,
    /// What tensors' places are multiples of.
    pub alignment: u64,
    /// Which file of a set it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<GgufPart>,
}

/// A file of a set of GGUF files.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GgufPart {
    /// Its number, from 0.
    pub number: u16,
    /// How many files the set has.
    pub count: u16,
    /// How many tensors all of them have.
    pub tensors: i32,
}

impl GgufHead {
    /// One with the pairs of a base shard, by its number.
    pub(super) fn like(at: usize, shard: &Shard) -> Self {
        Self { pairs_of: Some(at), alignment: shard.header.alignment, part: None }
    }

    /// That of file number `number` where the same tensors are split anew, as llama.cpp splits a model: what describes
    /// it stands in the first file alone.
    pub(in crate::ops) fn of_set(self, number: usize) -> Self {
        match number {
            0 => self,
            _ => Self { pairs_of: None, alignment: ALIGNMENT, ..self },
        }
    }
}

/// The most files that a set of GGUF files has.
pub(super) const MOST_PARTS: usize = u16::MAX as usize;

/// Says in each file of a set of at most [`MOST_PARTS`] GGUF files which one it is; a lone file says nothing.
pub(in crate::ops) fn number_parts(shards: &mut [OutputShard]) {
    let count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
    let tensors: usize = shards.iter().map(|shard| shard.tensors.len()).sum();
    // A header has fewer than a million.
    let tensors = i32::try_from(tensors).unwrap_or(i32::MAX);
    for (number, shard) in (0..count).zip(shards.iter_mut()) {
        let part = (count > 1).then_some(GgufPart { number, count, tensors });
        if let Some(head) = &mut shard.gguf {
            head.part = part;
        }
    }
}

impl OutputShard {
    /// Bytes of its tensors, and between them.
    pub fn bytes(&self) -> u64 {
        self.placed().last().map_or(0, |(tensor, start)| start + tensor.bytes())
    }

    /// Its tensors, each with where its bytes begin behind the header.
    pub(in crate::ops) fn placed(&self) -> impl Iterator<Item = (&OutputTensor, u64)> {
        let alignment = self.gguf.map_or(1, |head| head.alignment);
        self.tensors.iter().scan(0u64, move |end, tensor| {
            let start = end.next_multiple_of(alignment);
            *end = start + tensor.bytes();
            Some((tensor, start))
        })
    }

    /// Its tensors' byte ranges.
    pub fn specs(&self) -> Vec<TensorSpec> {
        let tensors = self.tensors.iter();
        header::lay_out(
            tensors.map(|tensor| (tensor.name.clone(), tensor.dtype, tensor.shape.clone())),
        )
    }
}

/// One base shard's tensors, with what becomes of each.
pub(super) fn keep(
    (checkpoint, dtypes): (&Checkpoint, &Dtypes),
    bound: &Bound,
    (number, component): (usize, &Component),
    (at, shard): (usize, &Shard),
) -> OutputShard {
    let mut tensors = Vec::with_capacity(shard.header.tensors.len());
    for spec in &shard.header.tensors {
        let base = format!("{}{}", component.prefix, spec.name);
        plain(
            (TensorView { spec, shard }, &base),
            dtypes,
            bound,
            (number, component),
            &mut tensors,
        );
    }
    let is_stored = !checkpoint.is_computed() && !checkpoint.is_gguf();
    let same = is_stored
        && tensors.len() == shard.header.tensors.len()
        && tensors
            .iter()
            .zip(&shard.header.tensors)
            .all(|(tensor, spec)| tensor.dtype == spec.dtype && tensor.shape == spec.shape);
    let mut metadata = shard.header.metadata.as_ref().map(provenance::of_base);
    if !is_stored {
        metadata = metadata.map(|metadata| plain_metadata(checkpoint, &metadata));
    }
    let relative = shard.relative.strip_suffix(".gguf").map(|stem| format!("{stem}.safetensors"));
    OutputShard {
        relative: relative.unwrap_or_else(|| shard.relative.clone()),
        component: number,
        metadata,
        tensors,
        same_header_as: same.then_some(at),
        gguf: None,
    }
}

/// A base tensor that the result holds as numbers, and the head that it is untied from, if it is.
pub(super) fn plain(
    (view, base): (TensorView<'_>, &str),
    dtypes: &Dtypes,
    bound: &Bound,
    (number, component): (usize, &Component),
    tensors: &mut Vec<OutputTensor>,
) {
    let dtype = dtypes.of(number, base, view);
    let own = base.strip_prefix(&component.prefix).unwrap_or(base).to_owned();
    tensors.push(output(bound, (view, dtype), own, base, base));
    if let Some(tied) = bound.untied.as_ref().filter(|tied| tied.embedding == base) {
        let name = tied.head.strip_prefix(&component.prefix).unwrap_or(&tied.head).to_owned();
        tensors.push(output(bound, (view, dtype), name, base, &tied.head));
    }
}

pub(super) fn output(
    bound: &Bound,
    (view, dtype): (TensorView<'_>, Dtype),
    name: String,
    base: &str,
    full_name: &str,
) -> OutputTensor {
    let mut shape = view.spec.shape.clone();
    if let (Some(first), Some(grown)) = (shape.first_mut(), bound.grown.get(full_name)) {
        *first = *grown;
    }
    let change = bound.changes.get(full_name).filter(|change| !change.is_empty());
    let plan = TensorPlan::choose(change, view, dtype);
    let matrix = match (&plan, change) {
        (_, Some(change)) => (change.rows, change.columns),
        (TensorPlan::Convert, None) => unstacked(&shape),
        _ => as_matrix(&shape),
    };
    OutputTensor {
        name,
        full_name: full_name.to_owned(),
        base: base.to_owned(),
        dtype,
        shape,
        blocks: None,
        matrix,
        plan,
    }
}
