//! One name for each module in all adapters, where they have paths: releases of transformers wrap the parts of a
//! model otherwise, and some call the modules of a class otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::architecture::{Names as Paths, Rule, Side, capture, fill, renames};
use super::convention::Names;
use super::module::Module;
use super::peers::names;
use super::target::flatten;
use crate::weight::root;

/// Gives modules that are the same one one name in all adapters that have paths, that of the first which has it.
pub(crate) fn unify(adapters: &mut [Adapter]) {
    for at in 1..adapters.len() {
        if let Some((adapter, before)) =
            adapters.get_mut(..=at).and_then(<[Adapter]>::split_last_mut)
        {
            unify_classes(adapter, before);
            unify_root(adapter, before);
        }
    }
    unify_roots(adapters);
}

fn dotted(adapter: &Adapter) -> bool {
    matches!(adapter.convention.names, Names::Dotted | Names::Gguf)
}

/// The fewest parts of a name that prove a root before them.
const LEAST_KEPT: usize = 3;

/// What a module is by its name below its wrappers and by its sizes.
type Identity = (String, usize, usize);

fn identity(name: &str, (outputs, inputs): (usize, usize)) -> Identity {
    (root::plain_flat(&flatten(name)), outputs, inputs)
}

/// Gives an adapter the names that those before it have for the modules of its class, by every rule that leads
/// from one of its modules to one of theirs, of the same sizes.
fn unify_classes(adapter: &mut Adapter, before: &[Adapter]) {
    if !dotted(adapter) {
        return;
    }
    let theirs = || before.iter().filter(|adapter| dotted(adapter)).flat_map(|a| &a.modules);
    let known: BTreeSet<Identity> =
        theirs().map(|m| identity(&m.name, (m.outputs, m.inputs))).collect();
    let others: Vec<(String, (usize, usize))> = {
        let modules = adapter.modules.iter().map(|m| (m.name.clone(), (m.outputs, m.inputs)));
        modules.filter(|(name, sizes)| !known.contains(&identity(name, *sizes))).collect()
    };
    if known.is_empty() || others.is_empty() {
        return;
    }
    let paths: Paths<'_> = theirs().map(|m| m.name.as_str()).chain(names(adapter)).collect();
    let rules = renames(&paths);
    let ways = rules.iter().flat_map(|rule| {
        [(rule, Side::Split, Side::Published), (rule, Side::Published, Side::Split)]
    });
    let ways: Vec<(&Rule, Side, Side)> = ways
        .filter(|way| {
            let mut found =
                others.iter().filter_map(|(name, sizes)| Some((led(*way, name)?, sizes)));
            found.any(|(name, sizes)| known.contains(&identity(&name, *sizes)))
        })
        .collect();
    let taken: BTreeSet<String> = names(adapter).map(str::to_owned).collect();
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for (name, _) in &others {
        let new = ways.iter().find_map(|way| led(*way, name)).filter(|new| !taken.contains(new));
        if let Some(new) = new.filter(|new| used.insert(new.clone())) {
            renamed.insert(name.clone(), new);
        }
    }
    if !renamed.is_empty() {
        rename(adapter, |name| renamed.get(name).cloned());
    }
}

/// Pairs tensors of two checkpoints that releases call otherwise: those whose names one rule leads to one
/// another, below whatever wrappers, if `alike` says that their shapes are the same. Nothing that two could be.
pub(crate) fn respelled(
    first: &[String],
    second: &[String],
    alike: &dyn Fn(&str, &str) -> bool,
) -> Vec<(String, String)> {
    if first.is_empty() || second.is_empty() {
        return Vec::new();
    }
    let stem = |name: &str| -> (String, String) {
        let ending = [".weight", ".bias"].into_iter().find(|ending| name.ends_with(ending));
        let ending = ending.unwrap_or_default();
        (name.strip_suffix(ending).unwrap_or(name).to_owned(), ending.to_owned())
    };
    let stems: Vec<(String, String)> = first.iter().chain(second).map(|name| stem(name)).collect();
    let rules = renames(&stems.iter().map(|(stem, _)| stem.as_str()).collect());
    let known: BTreeMap<String, &String> =
        second.iter().map(|name| (root::plain(name), name)).collect();
    let mut found: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (name, (stem, ending)) in first.iter().zip(&stems) {
        for rule in &rules {
            for way in [(rule, Side::Split, Side::Published), (rule, Side::Published, Side::Split)]
            {
                let counterpart = led(way, stem)
                    .map(|counterpart| root::plain(&format!("{counterpart}{ending}")));
                let counterpart =
                    counterpart.and_then(|counterpart| known.get(&counterpart).copied());
                if let Some(counterpart) =
                    counterpart.filter(|counterpart| alike(name, counterpart))
                {
                    found.entry(name).or_default().insert(counterpart);
                }
            }
        }
    }
    let mut claims: BTreeMap<&String, usize> = BTreeMap::new();
    for counterpart in found.values().flatten() {
        *claims.entry(counterpart).or_default() += 1;
    }
    let only = |(name, others): (&String, BTreeSet<&String>)| match others.first() {
        Some(counterpart) if others.len() == 1 && claims.get(counterpart) == Some(&1) => {
            Some((name.clone(), (*counterpart).clone()))
        }
        _ => None,
    };
    found.into_iter().filter_map(only).collect()
}

/// Puts one root before all names of an adapter that shares none with those before it, or takes it away, where
/// just one root makes all its modules theirs, of the same sizes.
fn unify_root(adapter: &mut Adapter, before: &[Adapter]) {
    let theirs = || before.iter().filter(|adapter| dotted(adapter)).flat_map(|a| &a.modules);
    let known: BTreeSet<(&str, usize, usize)> =
        theirs().map(|m| (m.name.as_str(), m.outputs, m.inputs)).collect();
    let alike = |m: &Module| known.contains(&(m.name.as_str(), m.outputs, m.inputs));
    let Some(first) = adapter.modules.first().filter(|_| dotted(adapter)) else { return };
    if adapter.modules.iter().any(alike) {
        return;
    }
    let above = |long: &str, short: &str| {
        let root = long.strip_suffix(short).filter(|root| root.ends_with('.'))?;
        // Short rests fit anywhere and prove nothing, and a number is a layer's.
        let proves = short.split('.').count() >= LEAST_KEPT && root::stack(root) == root;
        proves.then(|| root.to_owned())
    };
    let ways: BTreeSet<(bool, String)> = known
        .iter()
        .flat_map(|(name, ..)| {
            let put = above(name, &first.name).map(|root| (true, root));
            let taken = above(&first.name, name).map(|root| (false, root));
            put.into_iter().chain(taken)
        })
        .collect();
    let renamed = |(put, root): &(bool, String), name: &str| match put {
        true => Some(format!("{root}{name}")),
        false => name.strip_prefix(root.as_str()).map(str::to_owned),
    };
    let all = |way: &&(bool, String)| {
        adapter.modules.iter().all(|m| {
            let name = renamed(way, &m.name);
            name.is_some_and(|name| known.contains(&(name.as_str(), m.outputs, m.inputs)))
        })
    };
    let mut fitting = ways.iter().filter(all);
    if let (Some(way), None) = (fitting.next().cloned(), fitting.next()) {
        rename(adapter, |name| renamed(&way, name));
    }
}

/// Where a rule leads a name to.
fn led((rule, from, to): (&Rule, Side, Side), name: &str) -> Option<String> {
    Some(fill(rule.side(to), &capture(rule.side(from), name)?))
}

/// Names of stacks of layers, by what they are below their wrappers.
type Stacks = BTreeMap<String, String>;

/// Gives modules of one stack of layers one name in all adapters: `model.layers.0.…` of one adapter and
/// `model.language_model.layers.0.…` of another are the same layer.
///
/// The names are those of the first adapter that has all stacks, or of the first that has each. Where an adapter
/// has one stack below several wrappers, all keep their names: a wrapper means something there.
fn unify_roots(adapters: &mut [Adapter]) {
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
            rename(adapter, |name| {
                let stack = wanted.get(&plain_stack(name))?;
                let below = name.strip_prefix(root::stack(name)).unwrap_or_default();
                Some(format!("{stack}{below}"))
            });
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

/// Gives modules, replacements and stacks new names, where there are such.
fn rename(adapter: &mut Adapter, renamed: impl Fn(&str) -> Option<String>) {
    let renamed = |name: &str| renamed(name).unwrap_or_else(|| name.to_owned());
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
