//! Whether the files of a GGUF model are the set that they say they are (llama.cpp `tools/gguf-split`).

use super::Shard;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::gguf::container::{SPLIT_COUNT, SPLIT_NUMBER, SPLIT_TENSORS};
use crate::format::gguf::is_gguf;

/// Fails if a file is another of the set than its name says, or files or tensors are missing.
///
/// # Errors
/// [`ErrorKind::BadGguf`], with the file.
pub(super) fn check(shards: &[Shard]) -> Result<()> {
    let bad = |shard: &Shard, reason: String| {
        Err(Error::from(ErrorKind::BadGguf { reason })).in_file(&shard.path)
    };
    let tensors: usize = shards.iter().map(|shard| shard.header.tensors.len()).sum();
    for (number, shard) in shards.iter().enumerate() {
        if !is_gguf(&shard.source) {
            continue;
        }
        let said =
            |key: &str| -> Option<usize> { shard.header.metadata.as_ref()?.get(key)?.parse().ok() };
        let count = said(SPLIT_COUNT).unwrap_or(1);
        let place = said(SPLIT_NUMBER).unwrap_or(0);
        if count != shards.len() || place != number {
            let reason = format!(
                "it says that it is file {} of a set of {count}, and is taken for file {} of {}: files of a set are \
                 named NAME-00001-of-{count:05}.gguf and so on",
                place + 1,
                number + 1,
                shards.len()
            );
            return bad(shard, reason);
        }
        if let Some(all) = said(SPLIT_TENSORS).filter(|all| count > 1 && *all != tensors) {
            let reason = format!("its set has {all} tensors, and {tensors} are in its files");
            return bad(shard, reason);
        }
    }
    Ok(())
}
