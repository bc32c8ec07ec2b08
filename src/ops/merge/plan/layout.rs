//! Which output file holds which tensor, in which order.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::binder::Bound;
use super::matrix::{as_matrix, unstacked};
use super::quantised::Dtypes;
use super::recoding::Recoding;
use super::step::{Added, Step};
pub use super::tensor_plan::OutputTensor;
use super::tensor_plan::TensorPlan;
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::checkpoint::Layout;
use crate::format::{
    Checkpoint, Component, Dtype, Metadata, Shard, TensorSpec, TensorView, header,
};
use crate::ops::merge::Options;
use crate::ops::shared::provenance;
use crate::weight::plain_metadata;

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
}

impl OutputShard {
    /// Bytes of its tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(OutputTensor::bytes).sum()
    }

    /// Its tensors, each with where its bytes begin behind the header.
    pub(in crate::ops) fn placed(&self) -> impl Iterator<Item = (&OutputTensor, u64)> {
        self.tensors.iter().scan(0, |end, tensor| {
            let start = *end;
            *end += tensor.bytes();
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

/// Whether an output path means one file.
///
/// # Errors
/// If it means a file of another format.
pub(in crate::ops::merge) fn is_file(output: &Path) -> Result<bool> {
    let ending = output.extension().unwrap_or_default();
    if ending == "gguf" {
        let reason = "a merge writes safetensors: give a .safetensors file or a directory";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(output);
    }
    Ok(ending == "safetensors")
}

/// Decides all output files.
pub(in crate::ops::merge) fn shards(
    options: &Options,
    (base, dtypes, recoding): (&Checkpoint, &Dtypes, Option<&Recoding>),
    bound: &Bound,
    one_file: bool,
) -> Result<Vec<OutputShard>> {
    if one_file && base.layout == Layout::Pipeline {
        let reason =
            "a pipeline of several components cannot be one file; give a directory".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    let mut shards = Vec::new();
    for (number, component) in base.components.iter().enumerate() {
        let own = component.shards.clone().filter_map(|at| Some((at, base.shards.get(at)?)));
        let kept = own.map(|(at, shard)| match recoding {
            Some(recoding) => recoding.keep((base, dtypes), bound, (number, component), at),
            None => keep((base, dtypes), bound, (number, component), (at, shard)),
        });
        let mut kept: Vec<OutputShard> = kept.collect();
        if let Some(last) = kept.last_mut() {
            append(&bound.added, base, options.dtype, last);
        }
        match (one_file, options.max_shard_size) {
            (true, _) => shards.push(join(kept, String::new())),
            (false, Some(limit)) => shards.extend(split(component, kept, limit)),
            (false, None) => shards.extend(kept),
        }
    }
    Ok(shards)
}

/// One base shard's tensors, with what becomes of each.
fn keep(
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
        matrix,
        plan,
    }
}

fn join(shards: Vec<OutputShard>, relative: String) -> OutputShard {
    let alone = shards.len() == 1;
    let mut shards = shards.into_iter();
    let Some(mut joined) = shards.next() else {
        return OutputShard {
            relative,
            component: 0,
            metadata: None,
            tensors: Vec::new(),
            same_header_as: None,
        };
    };
    joined.relative = relative;
    joined.tensors.extend(shards.flat_map(|shard| shard.tensors));
    if !alone {
        joined.same_header_as = None;
    }
    joined
}

/// Fills shards of at most `limit` bytes, in order; a larger tensor gets one to itself.
fn split(component: &Component, shards: Vec<OutputShard>, limit: u64) -> Vec<OutputShard> {
    let stem =
        shards.first().map(|shard| stem(&shard.relative, &component.prefix)).unwrap_or_default();
    let number = shards.first().map_or(0, |shard| shard.component);
    let metadata = shards.first().and_then(|shard| shard.metadata.clone());
    let mut groups: Vec<Vec<OutputTensor>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in shards.into_iter().flat_map(|shard| shard.tensors) {
        let bytes = tensor.bytes();
        if filled > 0 && filled + bytes > limit {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(tensor);
        }
    }
    let total = groups.len();
    let name = |at: usize| match total {
        1 => format!("{stem}.safetensors"),
        _ => format!("{stem}-{:05}-of-{total:05}.safetensors", at + 1),
    };
    let prefix = &component.prefix;
    groups
        .into_iter()
        .enumerate()
        .map(|(at, tensors)| OutputShard {
            relative: format!("{prefix}{}", name(at)),
            component: number,
            metadata: metadata.clone(),
            tensors,
            same_header_as: None,
        })
        .collect()
}

/// `model` of `unet/model-00001-of-00002.safetensors`.
fn stem(relative: &str, prefix: &str) -> String {
    let name = relative.strip_prefix(prefix).unwrap_or(relative);
    let name = name.strip_suffix(".safetensors").unwrap_or(name);
    let cut = name.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-'));
    cut.map_or(name, |(stem, _)| stem).to_owned()
}

/// Puts the new tensors behind a shard's own. Their dtype is that of the base's weights there.
fn append(added: &[Added], base: &Checkpoint, dtype: Option<Dtype>, shard: &mut OutputShard) {
    let floating = |tensor: &&OutputTensor| {
        let spec = base.tensor(&tensor.base).map(|view| view.spec.dtype);
        spec.is_some_and(|dtype| element_type(dtype).is_some())
    };
    let Some(beside) = shard.tensors.iter().find(floating) else { return };
    let (beside, own) = (beside.base.clone(), beside.dtype);
    for tensor in added {
        shard.tensors.push(OutputTensor {
            name: tensor.name.clone(),
            full_name: tensor.name.clone(),
            // An outright replacement takes nothing of it.
            base: beside.clone(),
            dtype: dtype.unwrap_or(own),
            shape: tensor.shape.clone(),
            matrix: as_matrix(&tensor.shape),
            plan: TensorPlan::Panels(vec![Step::Replace(tensor.values.clone())]),
        });
    }
    if !added.is_empty() {
        shard.same_header_as = None;
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn stems() {
        assert_eq!(stem("unet/model-00001-of-00002.safetensors", "unet/"), "model");
        assert_eq!(stem("model.safetensors", ""), "model");
        assert_eq!(stem("x-of-y.safetensors", ""), "x-of-y");
    }
}
