//! What is in a collection, from its headers alone.

use std::path::Path;

use super::bases::Bases;
use super::members::Stored;
use super::report::{Entry, Info};
use crate::error::Result;
use crate::format::Access;

/// Reads what a collection says of itself.
///
/// # Errors
/// A directory that is no collection, another version, files that do not belong together.
pub fn info(store: &Path, access: Access) -> Result<Info> {
    let bases = Bases::open(store, access)?;
    let stored = Stored::open(store, &bases, access)?;
    Ok(Info {
        store: store.to_path_buf(),
        rank: bases.shared.rank,
        clusters: bases.shared.clusters,
        convention: bases.shared.convention.clone(),
        modules: bases.shared.modules.len(),
        dtype: bases.number.dtype().to_string(),
        bytes_shared: bases.bytes(),
        bytes_adapters: stored.bytes(),
        adapters: stored.members.adapters.iter().map(Entry::from).collect(),
    })
}
