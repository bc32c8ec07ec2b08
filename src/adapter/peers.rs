//! Which modules of several adapters are the same one, though the adapters were written by different releases
//! of transformers or by different trainers.
//!
//! A base would say it; where there is none, names do: wrappers of a model come and go, flattened names have
//! no dots, and a prefix says which part of a diffusion model a name belongs to.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::convention::Names;
use super::module::Module;
use super::scope::{Scope, located};
use super::target::flatten;
use crate::weight::root;

/// Whether the adapters are of several conventions.
pub(crate) fn mixed(adapters: &[Adapter]) -> bool {
    let first = adapters.first().map(|adapter| adapter.convention);
    adapters.iter().any(|adapter| Some(adapter.convention) != first)
}

/// A key for every module of every adapter: the name that the first adapter has for it. Modules that are the
/// same one have the same key.
///
/// They are, if they have the same name; if they have the same name once flattened, in the part of a diffusion
/// model that their prefix says (a name without such a prefix is of the part that has it, if just one has); or
/// if only wrappers of the model differ, and the sizes do not. What fits two modules of one adapter is neither.
pub(crate) fn keys(adapters: &[Adapter]) -> Vec<Vec<String>> {
    let several = mixed(adapters);
    let mut known = Known::default();
    let mut all = Vec::with_capacity(adapters.len());
    for (adapter, places) in adapters.iter().zip(places(adapters)) {
        let mut keys: Vec<String> = Vec::with_capacity(places.len());
        let mut first: BTreeMap<&Place, usize> = BTreeMap::new();
        for (at, (module, place)) in adapter.modules.iter().zip(&places).enumerate() {
            let twin = keys.get(*first.entry(place).or_insert(at)).filter(|_| several);
            // Two spellings of one module in one adapter get one key, for the verb to refuse.
            let key = twin.map(String::as_str).or_else(|| known.key(module, place));
            keys.push(key.unwrap_or(&module.name).to_owned());
        }
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for key in &keys {
            *count.entry(key).or_default() += 1;
        }
        let alone: Vec<bool> = keys.iter().map(|key| count.get(key.as_str()) == Some(&1)).collect();
        for ((key, module), alone) in keys.iter_mut().zip(&adapter.modules).zip(alone) {
            if !alone && !several {
                module.name.clone_into(key);
            }
        }
        for ((module, place), key) in adapter.modules.iter().zip(&places).zip(&keys) {
            known.note(module, place, key);
        }
        all.push(keys);
    }
    all
}

/// The part of a model that a module belongs to, and its flattened name there.
type Place = (Scope, String);

/// Keys of the modules seen so far; none of what several are called.
#[derive(Default)]
struct Known {
    names: BTreeMap<String, String>,
    flat: BTreeMap<Place, Option<String>>,
    /// Without wrappers, by outputs and inputs too.
    plain: BTreeMap<(Place, usize, usize), Option<String>>,
}

impl Known {
    fn key(&self, module: &Module, place: &Place) -> Option<&str> {
        if let Some(key) = self.names.get(&module.name) {
            return Some(key);
        }
        let found = self.flat.get(place).or_else(|| self.plain.get(&unwrapped(module, place)));
        found.and_then(Option::as_deref)
    }

    fn note(&mut self, module: &Module, place: &Place, key: &str) {
        self.names.entry(module.name.clone()).or_insert_with(|| key.to_owned());
        let flat = self.flat.entry(place.clone());
        let plain = self.plain.entry(unwrapped(module, place));
        for known in [
            flat.or_insert_with(|| Some(key.to_owned())),
            plain.or_insert_with(|| Some(key.to_owned())),
        ] {
            if known.as_deref() != Some(key) {
                *known = None;
            }
        }
    }
}

fn unwrapped(module: &Module, (scope, flat): &Place) -> (Place, usize, usize) {
    ((*scope, root::plain_flat(flat)), module.outputs, module.inputs)
}

/// Where the modules of each adapter are.
fn places(adapters: &[Adapter]) -> Vec<Vec<Place>> {
    let of = |adapter: &Adapter| -> Vec<Place> {
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
    let mut all: Vec<Vec<Place>> = adapters.iter().map(of).collect();
    let mut scopes: BTreeMap<String, BTreeSet<Scope>> = BTreeMap::new();
    for (scope, flat) in all.iter().flatten().filter(|(scope, _)| *scope != Scope::Any) {
        scopes.entry(root::plain_flat(flat)).or_default().insert(*scope);
    }
    for (scope, flat) in all.iter_mut().flatten().filter(|(scope, _)| *scope == Scope::Any) {
        let of = scopes.get(&root::plain_flat(flat)).filter(|scopes| scopes.len() == 1);
        *scope = of.and_then(BTreeSet::first).copied().unwrap_or(Scope::Denoiser);
    }
    all
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
            let candidate = adapters.get(*next).zip(keys.get(*next));
            pair.zip(candidate).is_none_or(|(a, b)| of_one_model(a, b))
        })
    }) {
        left.remove(&next);
        related.insert(next);
    }
    left.first().map(|next| (0, *next))
}

fn of_one_model(
    (first, first_keys): (&Adapter, &Vec<String>),
    (second, second_keys): (&Adapter, &Vec<String>),
) -> bool {
    let replaced = |adapter: &Adapter| -> BTreeSet<String> {
        adapter.replacements.iter().map(|replacement| replacement.module.clone()).collect()
    };
    let shared = {
        let first_keys: BTreeSet<&String> = first_keys.iter().collect();
        second_keys.iter().any(|key| first_keys.contains(key))
            || !replaced(first).is_disjoint(&replaced(second))
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

/// Names of all modules, also of those whose values are replaced.
pub(super) fn names(adapter: &Adapter) -> impl Iterator<Item = &str> {
    let replaced = adapter.replacements.iter().map(|replacement| replacement.module.as_str());
    adapter.modules.iter().map(|module| module.name.as_str()).chain(replaced)
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
