//! Items with their options and sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::asked::Asked;
use super::item::Item;
use crate::error::RecipeError;
use crate::format::Access;
use crate::format::folder::size;

/// An item that can be worked on.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) item: Item,
    pub(super) asked: Asked,
    /// Bytes of its inputs.
    pub(super) bytes: u64,
    /// Its output is there, and is not to be made again.
    pub(super) is_done: bool,
}

/// Items with their options and sizes.
pub(super) fn ready(
    items: Vec<Item>,
    folder: &Path,
    access: Access,
) -> std::result::Result<Vec<Ready>, RecipeError> {
    let mut sizes: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut size_of = |path: &Path| *sizes.entry(path.to_path_buf()).or_insert_with(|| size(path));
    let read = |item: Item| {
        let mut asked = item.asked(folder)?;
        asked.set(access, 0);
        let (adapters, models) = asked.inputs();
        let bytes = adapters.into_iter().chain(models).map(&mut size_of).sum();
        Ok(Ready { item, asked, bytes, is_done: false })
    };
    items.into_iter().map(read).collect()
}
