//! Adapters of one model made comparable: in one convention and layout as far as the layouts are known, and
//! with one root for each stack of layers. Every verb that puts modules of several adapters together comes
//! here first.

use std::collections::BTreeSet;
use std::path::Path;

use super::options::Options;
use crate::adapter::convention::{self, Convention, Names};
use crate::adapter::convert::{BaseFacts, Goal, reexpress};
use crate::adapter::{Adapter, layout, peers, unify};
use crate::error::{Locate, PairError, Result};
use crate::format::Access;
use crate::ops::write;

/// Puts the adapters in one convention, `native`, and in one layout where they have names of several or share no
/// module; gives each stack of layers one root. What cannot be converted stays, and is compared by its names.
///
/// # Errors
/// A reference that cannot be read.
pub(in crate::ops) fn align(
    adapters: Vec<Adapter>,
    native: &'static Convention,
    reference: Option<&Path>,
) -> Result<Vec<Adapter>> {
    let (program, allow_loss, access) = (None, false, Access::default());
    let goal = Goal { target: native, program, reference, allow_loss, access };
    let respelled = |adapter: Adapter, base: &BaseFacts| {
        let known = layout::is_known(&adapter);
        known.then(|| reexpressed(&adapter, goal, base)).flatten().unwrap_or(adapter)
    };
    let mut aligned = adapters;
    if peers::mixed(&aligned) {
        let base = goal.base()?;
        let comparable = |adapter: Adapter| match adapter.convention == native {
            true => adapter,
            false => respelled(adapter, &base),
        };
        aligned = aligned.into_iter().map(comparable).collect();
    }
    // Before modules are paired: one convention may have the names of two layouts, and what came into it has those
    // that it is written with.
    if layout::several_spellings(&aligned) || apart(&aligned) {
        let base = goal.base()?;
        aligned = aligned.into_iter().map(|adapter| respelled(adapter, &base)).collect();
    }
    unify::unify(&mut aligned);
    Ok(aligned)
}

/// The convention in which adapters are compared where nothing is written: PEFT's for models with paths alone,
/// else that of the first adapter which has names of its own, as far as modules are computed in it.
pub(in crate::ops) fn common(adapters: &[Adapter]) -> &'static Convention {
    let dotted =
        |convention: &&'static Convention| matches!(convention.names, Names::Dotted | Names::Gguf);
    let mut named =
        adapters.iter().map(|adapter| adapter.convention).filter(|convention| !dotted(convention));
    match named.next() {
        None => convention::peft(),
        Some(convention) if write::is_native(convention) => convention,
        Some(_) => convention::one_file(),
    }
}

/// Fails if two of the adapters are of different models, as far as their names say, unless that is allowed.
///
/// # Errors
/// [`PairError::Disjoint`].
pub(in crate::ops) fn check_related(options: &Options, adapters: &[Adapter]) -> Result<()> {
    if options.allow_disjoint {
        return Ok(());
    }
    let Some((first, second)) = peers::unrelated(adapters, &peers::keys(adapters)) else {
        return Ok(());
    };
    let (Some(first), Some(second)) = (adapters.get(first), adapters.get(second)) else {
        return Ok(());
    };
    let base =
        |adapter: &Adapter| adapter.base_model().unwrap_or("a base it does not name").to_owned();
    let (bases, first) = ((base(first), base(second)), first.path.clone());
    Err(PairError::Disjoint { first, bases }).in_file(&second.path)
}

/// Whether two of the adapters share no name.
fn apart(adapters: &[Adapter]) -> bool {
    let names = |adapter: &Adapter| -> BTreeSet<String> {
        adapter.modules.iter().map(|module| module.name.clone()).collect()
    };
    let all: Vec<BTreeSet<String>> = adapters.iter().map(names).collect();
    let mut pairs = all
        .iter()
        .enumerate()
        .flat_map(|(at, names)| all.iter().skip(at + 1).map(move |other| names.is_disjoint(other)));
    pairs.any(|disjoint| disjoint)
}

/// The adapter in another convention; `None` where that would lose anything.
fn reexpressed(adapter: &Adapter, goal: Goal<'_>, base: &BaseFacts) -> Option<Adapter> {
    let new = reexpress(adapter, goal, base).ok()?.new;
    let encoded = new.encode(goal.target).ok()?;
    let beside = adapter.file.shards.first()?;
    // Its files are still those that it was made of.
    let paths = (beside.path.as_path(), beside.path.as_path());
    let mut made = Adapter::made(encoded, goal.target, paths, base.experts).ok()?;
    (made.path, made.config_path) = (adapter.path.clone(), adapter.config_path.clone());
    made.faults.is_empty().then_some(made)
}
