//! Which output file holds which tensor, in which order.

use super::binder::Bound;
pub use super::kept::OutputShard;
use super::kept::{MOST_PARTS, keep, number_parts};
use super::quantised::Dtypes;
use super::recoding::Recoding;
use super::step::{Added, Step};
pub use super::tensor_plan::OutputTensor;
use super::tensor_plan::TensorPlan;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::checkpoint::{Layout, gguf_parts};
use crate::format::{Checkpoint, Component, Dtype};
use crate::ops::merge::{Options, Quantized};
use crate::weight::as_matrix;
use crate::weight::element::is_float;

/// Whether an output path means one file.
///
/// # Errors
/// If it means a GGUF file, which only one can become.
pub(in crate::ops::merge) fn is_file(options: &Options, base: &Checkpoint) -> Result<bool> {
    if options.is_gguf() && !base.is_gguf() {
        let reason = "only a base in GGUF becomes a GGUF file by itself: name a GGUF file of the same base, for its \
                      metadata and tokenizer (--reference BASE.gguf), or merge into a directory and convert that \
                      with llama.cpp's convert_hf_to_gguf.py";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&options.output);
    }
    if options.is_gguf() && (options.dtype.is_some() || options.quantized == Quantized::Hybrid) {
        let reason = "--types says what becomes of the weights of a GGUF file that change; --dtype and \
                      --quantized hybrid are for results in safetensors";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&options.output);
    }
    let ending = options.output.extension().unwrap_or_default();
    let is_file = ending == "safetensors" || ending == GGUF;
    if is_file && options.max_shard_size.is_some() {
        let reason = "one file has no shards: leave out --max-shard-size, or give a directory; with --types, it gets \
                      a set of GGUF files";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&options.output);
    }
    let name = options.output.file_name().unwrap_or_default().to_string_lossy();
    if let Some(parts) = gguf_parts(&name).filter(|_| ending == GGUF) {
        let reason = format!(
            "its name says that it is one of a set of {}: for a set give a directory and --types, for one file \
             another name",
            parts.len()
        );
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    Ok(is_file)
}

/// The ending of names of GGUF files.
const GGUF: &str = "gguf";

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
    if shards.iter().any(|shard| shard.gguf.is_some()) {
        if shards.len() > MOST_PARTS {
            return Err(ErrorKind::TooMany { what: "files", limit: MOST_PARTS as u64 }.into());
        }
        number_parts(&mut shards);
    }
    Ok(shards)
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
            gguf: None,
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
    let head = shards.first().and_then(|shard| shard.gguf);
    let mut groups: Vec<Vec<OutputTensor>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in shards.into_iter().flat_map(|shard| shard.tensors) {
        let bytes = tensor.bytes().next_multiple_of(head.map_or(1, |head| head.alignment));
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
    let ending = if head.is_some() { GGUF } else { "safetensors" };
    let name = |at: usize| match total {
        1 => format!("{stem}.{ending}"),
        _ => format!("{stem}-{:05}-of-{total:05}.{ending}", at + 1),
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
            gguf: head.map(|head| head.of_set(at)),
        })
        .collect()
}

/// `model` of `unet/model-00001-of-00002.safetensors`.
fn stem(relative: &str, prefix: &str) -> String {
    let name = relative.strip_prefix(prefix).unwrap_or(relative);
    let name =
        name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".gguf")).unwrap_or(name);
    let cut = name.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-'));
    cut.map_or(name, |(stem, _)| stem).to_owned()
}

/// Puts the new tensors behind a shard's own. Their dtype is that of the base's weights there.
fn append(added: &[Added], base: &Checkpoint, dtype: Option<Dtype>, shard: &mut OutputShard) {
    let floating = |tensor: &&OutputTensor| {
        let spec = base.tensor(&tensor.base).map(|view| view.spec.dtype);
        spec.is_some_and(is_float)
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
            blocks: None,
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
        assert_eq!(stem("model-Q4_K-00002-of-00002.gguf", ""), "model-Q4_K");
        assert_eq!(stem("x-of-y.safetensors", ""), "x-of-y");
    }
}
