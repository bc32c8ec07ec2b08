//! What kohya's scripts write into a file's header of all its modules, and room for the hashes of the file.

use crate::adapter::hashes::{Hashes, LEGACY_HASH, MODEL_HASH};
use crate::adapter::new_adapter::Described;
use crate::error::Result;
use crate::format::Metadata;

/// The entries.
pub(super) const ENTRIES: &[&str] =
    &["ss_network_dim", "ss_network_alpha", MODEL_HASH, LEGACY_HASH];

/// Keeps the entries that describe the modules true.
#[allow(clippy::unnecessary_wraps, reason = "other conventions can fail to describe modules")]
pub(super) fn describe(modules: &[Described<'_>], metadata: &mut Metadata) -> Result<()> {
    let written = modules.iter().filter(|module| !module.stored);
    let uniform = |values: Vec<String>| {
        let first = values.first().cloned().unwrap_or_default();
        if values.iter().all(|value| *value == first) { first } else { "Dynamic".to_owned() }
    };
    let (ranks, alphas) =
        written.map(|module| (module.rank.to_string(), format!("{:?}", module.alpha))).unzip();
    metadata.insert("ss_network_dim".to_owned(), uniform(ranks));
    metadata.insert("ss_network_alpha".to_owned(), uniform(alphas));
    metadata.shift_remove("modelspec.hash_sha256");
    // Of the right length for a size that is asked before the tensors exist.
    let (model, legacy) = ("0".repeat(64), Some("0".repeat(8)));
    Hashes { model, legacy }.insert(metadata);
    Ok(())
}
