//! Adapters of one image model in several conventions, put in one: kohya's names and diffusers' are of
//! layouts that have other modules, so that no comparing of names brings them together.

use super::Options;
use crate::adapter::convention::Convention;
use crate::adapter::{Adapter, layout};
use crate::error::Result;
use crate::format::Access;
use crate::ops::convert::{How, restate};

/// Restates every adapter of a known layout that is in another convention than the modules will be
/// computed in. What cannot be restated stays, and is compared by its names.
///
/// # Errors
/// A reference that cannot be read.
pub(super) fn align(
    adapters: Vec<Adapter>,
    native: &'static Convention,
    options: &Options,
) -> Result<Vec<Adapter>> {
    let how = How {
        target: native,
        program: None,
        reference: options.reference.as_deref(),
        allow_loss: false,
        access: Access::default(),
    };
    let base = how.base()?;
    let restated = |adapter: &Adapter| {
        let new = restate(adapter, how, &base).ok()?.new;
        let encoded = new.encode(native).ok()?;
        let beside = adapter.file.shards.first()?;
        // Its files are still those that it was made of.
        let paths = (beside.path.as_path(), beside.path.as_path());
        let mut made = Adapter::made(encoded, native, paths, base.experts).ok()?;
        (made.path, made.config_path) = (adapter.path.clone(), adapter.config_path.clone());
        made.faults.is_empty().then_some(made)
    };
    let aligned = adapters.into_iter().map(|adapter| {
        let other = adapter.convention.name != native.name && layout::is_known(&adapter);
        other.then(|| restated(&adapter)).flatten().unwrap_or(adapter)
    });
    Ok(aligned.collect())
}
