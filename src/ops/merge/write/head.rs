//! What an output file begins with: a safetensors header, or the head of a GGUF file.

use crate::error::{ErrorKind, Locate, Result};
use crate::format::gguf::Value;
use crate::format::gguf::container::{
    self, Pairs, SPLIT, SPLIT_COUNT, SPLIT_NUMBER, SPLIT_TENSORS,
};
use crate::format::{Metadata, header};
use crate::ops::merge::compute::making::Making;
use crate::ops::merge::plan::kept::GgufHead;
use crate::ops::merge::plan::layout::OutputShard;

/// The header of one weight file, with its length before it.
///
/// # Errors
/// If the base's own cannot be read, or a new one is longer than the format allows.
pub(in crate::ops) fn header_bytes(
    making: Making<'_>,
    shard: &OutputShard,
    origin: Option<&Metadata>,
) -> Result<Vec<u8>> {
    if let Some(head) = shard.gguf {
        return gguf_head(making, shard, head, origin);
    }
    if let Some(origin) = origin {
        let mut metadata = shard.metadata.clone().unwrap_or_default();
        // Readers refuse metadata without it, though they take a file without metadata.
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        metadata.extend(origin.clone());
        return header::encode(Some(&metadata), &shard.specs());
    }
    let same = shard.same_header_as.and_then(|number| making.inputs.base.shards.get(number));
    let same = same.filter(|base| base.header.metadata == shard.metadata);
    match same {
        Some(base) => {
            let mut scratch = Vec::new();
            let bytes = base.source.bytes(0..base.header.data_start, &mut scratch);
            Ok(bytes.in_file(&base.path)?.to_vec())
        }
        None => header::encode(shard.metadata.as_ref(), &shard.specs()),
    }
}

/// The head of a GGUF file: the pairs of a base file byte for byte, but for those that say which file of a set it is.
fn gguf_head(
    making: Making<'_>,
    shard: &OutputShard,
    head: GgufHead,
    origin: Option<&Metadata>,
) -> Result<Vec<u8>> {
    let stored = making.inputs.quantised.as_ref().map_or(&making.inputs.base, |base| &base.stored);
    let pairs = match head.pairs_of {
        None => Pairs::none(),
        Some(number) => {
            let base = stored.shards.get(number).ok_or(ErrorKind::NotFound)?;
            Pairs::read(&base.source).in_file(&base.path)?
        }
    };
    // What describes a set stands in its first file.
    let origin = origin.filter(|_| head.part.is_none_or(|part| part.number == 0));
    let texts = origin.into_iter().flatten();
    let mut new: Vec<_> =
        texts.map(|(key, value)| (key.clone(), Value::Text(value.clone()))).collect();
    if let Some(part) = head.part {
        new.push((SPLIT_NUMBER.to_owned(), Value::U16(part.number)));
        new.push((SPLIT_COUNT.to_owned(), Value::U16(part.count)));
        new.push((SPLIT_TENSORS.to_owned(), Value::I32(part.tensors)));
    }
    let mut entries = Vec::with_capacity(shard.tensors.len());
    for tensor in &shard.tensors {
        let (kind, shape) = match &tensor.blocks {
            Some(blocks) => (Some(blocks.kind), &blocks.shape),
            None => (container::kind(tensor.dtype), &tensor.shape),
        };
        let unknown = || ErrorKind::BadDtype { dtype: tensor.dtype.to_string() };
        let kind = kind.ok_or_else(unknown).in_tensor(&tensor.full_name)?;
        entries.push((tensor.name.as_str(), kind, shape.as_slice(), tensor.bytes()));
    }
    let keep = |key: &str| !key.starts_with(SPLIT);
    Ok(pairs.head(keep, &new, entries.into_iter(), head.alignment))
}
