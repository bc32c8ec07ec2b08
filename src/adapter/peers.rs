//! Which modules of several adapters are the same one, though the adapters were written by different releases
//! of transformers or by different trainers.
//!
//! A base would say it; where there is none, names do: wrappers of a model come and go, flattened names have
//! no dots, and a prefix says which part of a diffusion model a name belongs to.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::convention::Names;
use super::scope::{Scope, located};
use super::target::flatten;
use crate::weight::root;

/// Names of stacks of layers, by what they are below their wrappers.
type Stacks = BTreeMap<String, String>;

/// Gives modules of one stack of layers one name in all adapters: `model.layers.0.…` of one adapter and
/// `model.language_model.layers.0.…` of another are the same layer.
///
/// The names are those of the first adapter that has all stacks, or of the first that has each. Where an adapter
/// has one stack below several wrappers, all keep their names: a wrapper means something there.
pub(crate) fn unify_roots(adapters: &mut [Adapter]) {
    let dotted =
        |adapter: &Adapter| matches!(adapter.convention.names, Names::Dotted | Names::Gguf);
    let mut all: Vec<(usize, Stacks)> = Vec::new();
    for (number, adapter) in adapters.iter().enumerate().filter(|(_, adapter)| dotted(adapter)) {
        let Some(stacks) = stacks(adapter) else { return };
        all.push((number, stacks));
    }
    let plain: BTreeSet<&String> = all.iter().flat_map(|(_, stacks)| stacks.keys()).collect();
    let complete = all.iter().find(|(_, stacks)| stacks.len() == plain.len());
    let mut wanted = Stacks::new();
    for (_, stacks) in complete.into_iter().chain(&all) {
        for (plain, stack) in stacks {
            wanted.entry(plain.clone()).or_insert_with(|| stack.clone());
        }
    }
    for (number, stacks) in &all {
        if stacks.iter().all(|(plain, stack)| wanted.get(plain) == Some(stack)) {
            continue;
        }
        if let Some(adapter) = adapters.get_mut(*number) {
            rename(adapter, &wanted);
        }
    }
}

/// The stacks of an adapter; `None` if one has several names.
fn stacks(adapter: &Adapter) -> Option<Stacks> {
    let mut stacks = Stacks::new();
    for name in names(adapter) {
        let stack = root::stack(name);
        if stacks.entry(plain_stack(name)).or_insert_with(|| stack.to_owned()) != stack {
            return None;
        }
    }
    Some(stacks)
}

/// The stack of layers that a module is in, below its wrappers.
fn plain_stack(module: &str) -> String {
    root::stack(&root::plain(&format!("{module}.weight"))).to_owned()
}

/// Names of all modules, also of those whose values are replaced.
fn names(adapter: &Adapter) -> impl Iterator<Item = &str> {
    let replaced = adapter.replacements.iter().map(|replacement| replacement.module.as_str());
    adapter.modules.iter().map(|module| module.name.as_str()).chain(replaced)
}

fn rename(adapter: &mut Adapter, wanted: &Stacks) {
    let renamed = |name: &str| {
        let stack = wanted.get(&plain_stack(name));
        let below = name.strip_prefix(root::stack(name)).unwrap_or_default();
        stack.map_or_else(|| name.to_owned(), |stack| format!("{stack}{below}"))
    };
    for module in &mut adapter.modules {
        module.name = renamed(&module.name);
    }
    for replacement in &mut adapter.replacements {
        replacement.module = renamed(&replacement.module);
    }
    let stacks = std::mem::take(&mut adapter.stacks).into_iter();
    adapter.stacks = stacks.map(|(name, stack)| (renamed(&name), stack)).collect();
    adapter.modules.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Whether the adapters are of several conventions.
pub(crate) fn mixed(adapters: &[Adapter]) -> bool {
    let first = adapters.first().map(|adapter| adapter.convention.name);
    adapters.iter().any(|adapter| Some(adapter.convention.name) != first)
}

/// A key for every module of every adapter; modules that are the same one have the same key.
///
/// Names of one convention are compared as they are; of several, as all can spell them: flattened, with the part
/// of a diffusion model that their prefix says. A name without such a prefix is of the part that has it, if
/// just one has.
pub(crate) fn keys(adapters: &[Adapter]) -> Vec<Vec<String>> {
    let own = |adapter: &Adapter| -> Vec<String> {
        adapter.modules.iter().map(|module| module.name.clone()).collect()
    };
    if !mixed(adapters) {
        return adapters.iter().map(own).collect();
    }
    let flat = |adapter: &Adapter| -> Vec<(Scope, String)> {
        let place = |name: &str| match adapter.convention.names {
            // Roots of language models may look like a component's.
            Names::Dotted | Names::Gguf => (Scope::Any, flatten(name)),
            _ => {
                let (scope, below) = located(name);
                (scope, flatten(below))
            }
        };
        adapter.modules.iter().map(|module| place(&module.name)).collect()
    };
    let all: Vec<Vec<(Scope, String)>> = adapters.iter().map(flat).collect();
    let mut scopes: BTreeMap<&str, BTreeSet<Scope>> = BTreeMap::new();
    for (scope, name) in all.iter().flatten().filter(|(scope, _)| *scope != Scope::Any) {
        scopes.entry(name.as_str()).or_default().insert(*scope);
    }
    let key = |(scope, name): &(Scope, String)| {
        let only = scopes.get(name.as_str()).filter(|scopes| scopes.len() == 1);
        match only.and_then(BTreeSet::first).filter(|_| *scope == Scope::Any).unwrap_or(scope) {
            Scope::TextEncoder(number) => format!("text encoder {number}: {name}"),
            Scope::Connectors => format!("connectors: {name}"),
            Scope::Any | Scope::Denoiser => name.clone(),
        }
    };
    all.iter().map(|names| names.iter().map(key).collect()).collect()
}

/// Two adapters that nothing shows to be of one model: no chain of shared modules, of one base model's name
/// or, where a base is not named, of layers or parts of one kind leads from one to the other.
///
/// `keys` are those of [`keys`].
pub(crate) fn unrelated(adapters: &[Adapter], keys: &[Vec<String>]) -> Option<(usize, usize)> {
    let mut related = BTreeSet::from([0]);
    let mut left: BTreeSet<usize> = (1..adapters.len()).collect();
    while let Some(next) = left.iter().copied().find(|next| {
        related.iter().any(|first| {
            let pair = adapters.get(*first).zip(keys.get(*first));
            let other = adapters.get(*next).zip(keys.get(*next));
            pair.zip(other).is_none_or(|(a, b)| of_one_model(a, b))
        })
    }) {
        left.remove(&next);
        related.insert(next);
    }
    left.first().map(|next| (0, *next))
}

fn of_one_model(
    (first, own): (&Adapter, &Vec<String>),
    (second, other): (&Adapter, &Vec<String>),
) -> bool {
    let replaced = |adapter: &Adapter| -> BTreeSet<String> {
        adapter.replacements.iter().map(|replacement| replacement.module.clone()).collect()
    };
    let shared = {
        let own: BTreeSet<&String> = own.iter().collect();
        other.iter().any(|key| own.contains(key)) || !replaced(first).is_disjoint(&replaced(second))
    };
    let base = |adapter: &Adapter| {
        let name = adapter.base_model()?.trim_end_matches(['/', '\\']);
        Some(name.rsplit(['/', '\\']).next().unwrap_or(name).to_lowercase())
    };
    shared
        || match (base(first), base(second)) {
            (Some(first), Some(second)) => first == second,
            _ => !stems(first).is_disjoint(&stems(second)) || other_parts(first, second),
        }
}

/// Names of an adapter's modules up to the first number, flattened, and up to the layer's own part.
fn stems(adapter: &Adapter) -> BTreeSet<String> {
    let stem = |name: &str| {
        let flat = flatten(name);
        let parts: Vec<&str> = flat.split('_').collect();
        let at = parts.iter().position(|part| part.parse::<usize>().is_ok());
        at.map(|at| parts.get(..at).unwrap_or_default().join("_"))
    };
    names(adapter).filter_map(stem).filter(|stem| !stem.is_empty()).collect()
}

/// Whether the two are for different parts of a diffusion model, as their prefixes say.
fn other_parts(first: &Adapter, second: &Adapter) -> bool {
    let scopes = |adapter: &Adapter| -> BTreeSet<Scope> {
        let dotted = matches!(adapter.convention.names, Names::Dotted | Names::Gguf);
        let scope = |name: &str| if dotted { Scope::Any } else { located(name).0 };
        names(adapter).map(scope).collect()
    };
    let (first, second) = (scopes(first), scopes(second));
    let known = |scopes: &BTreeSet<Scope>| !scopes.contains(&Scope::Any);
    known(&first) && known(&second) && first.is_disjoint(&second)
}
