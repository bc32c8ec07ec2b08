//! Names whose dots became underscores, resolved by flattening the base's names: below the root that a
//! prefix means, without the wrappers that are known, or under one root that all names of a part share.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::resolve::{Fits, Resolved, nearest, swaps};
use super::scope::{Scope, flatten, located, readings, scope_of};
use crate::error::{Error, ErrorKind, Result, UnmatchedName};
use crate::format::Checkpoint;
use crate::weight::root::{plain, plain_flat};

/// (scope, flattened name) → base names that flatten to it.
type FlatNames<'a> = BTreeMap<(Scope, String), BTreeSet<&'a str>>;

/// The base's names by what `form` makes of them below their roots; each also under any scope.
fn flat_names<'a>(names: &BTreeSet<&'a str>, form: fn(&str) -> String) -> FlatNames<'a> {
    let mut flat = FlatNames::new();
    for &name in names.iter().filter(|name| !name.ends_with(".bias")) {
        let (scope, below) = scope_of(name);
        let below = flatten(&form(below));
        if scope != Scope::Any {
            flat.entry((Scope::Any, below.clone())).or_default().insert(name);
        }
        flat.entry((scope, below)).or_default().insert(name);
    }
    flat
}

/// The base names that one of the readings of a name means.
fn look_up<'a, 'b>(
    flat: &'a FlatNames<'b>,
    name: &str,
    form: fn(&str) -> String,
) -> Option<&'a BTreeSet<&'b str>> {
    readings(name).into_iter().find_map(|(scope, below)| {
        let below = form(&flatten(&below));
        // A checkpoint without known roots holds one part only, whichever it is.
        flat.get(&(scope, below.clone())).or_else(|| {
            flat.get(&(Scope::Any, below))
                .filter(|found| found.iter().all(|name| scope_of(name).0 == Scope::Any))
        })
    })
}

fn names_of(adapter: &Adapter) -> impl Iterator<Item = &str> {
    let modules = adapter.modules.iter().map(|module| module.name.as_str());
    modules.chain(adapter.replacements.iter().map(|replacement| replacement.module.as_str()))
}

/// Resolves each name by flattening the base's.
///
/// # Errors
/// Two base names that flatten to one that is wanted; two roots under which all names exist and fit.
pub(super) fn resolve(
    adapter: &Adapter,
    base: &Checkpoint,
    names: &BTreeSet<&str>,
    fits: Fits<'_>,
) -> Result<Resolved> {
    let flat = flat_names(names, str::to_owned);
    let mut found: Vec<Option<String>> = Vec::new();
    for name in names_of(adapter) {
        let mut places = look_up(&flat, name, str::to_owned).into_iter().flatten();
        found.push(match (places.next(), places.next()) {
            (Some(first), Some(second)) => {
                let (first, second) = ((*first).to_owned(), (*second).to_owned());
                return Err(Error::from(ErrorKind::FlatCollision { first, second })
                    .in_tensor(name)
                    .in_file(&base.path));
            }
            (only, _) => only.map(|only| (*only).to_owned()),
        });
    }
    if found.iter().any(Option::is_none) {
        let flat = flat_names(names, plain);
        for (at, (name, found)) in names_of(adapter).zip(&mut found).enumerate() {
            let places = look_up(&flat, name, plain_flat).into_iter().flatten();
            let mut places = places.filter(|place| fits(at, place));
            if let (None, Some(place), None) = (&found, places.next(), places.next()) {
                *found = Some((*place).to_owned());
            }
        }
    }
    let module_names: Vec<&str> = names_of(adapter).collect();
    let mut parts: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
    for (at, name) in module_names.iter().enumerate() {
        parts.entry(located(name).0).or_default().push(at);
    }
    for (scope, members) in parts {
        if members.iter().any(|at| found.get(*at).is_some_and(Option::is_some)) {
            continue;
        }
        let part = ScopeNames { scope, members: &members, names: &module_names };
        for (at, name) in members.iter().zip(part.rooted(names, fits)?) {
            if let Some(place) = found.get_mut(*at) {
                *place = Some(name);
            }
        }
    }
    Ok(Resolved { names: found })
}

/// The names of one part of a model, none of which is the base's as it is.
struct ScopeNames<'a> {
    scope: Scope,
    members: &'a [usize],
    names: &'a [&'a str],
}

impl ScopeNames<'_> {
    fn flat(&self) -> impl Iterator<Item = String> {
        let names = self.members.iter().filter_map(|at| self.names.get(*at));
        names.map(|name| flatten(located(name).1))
    }

    /// The base's names for all, under one root that is inserted or dropped; none if there is no such root.
    fn rooted(&self, base: &BTreeSet<&str>, fits: Fits<'_>) -> Result<Vec<String>> {
        let mut complete: Option<(usize, Vec<String>)> = None;
        for (length, dropped, root) in self.roots(base).into_iter().rev() {
            if complete.as_ref().is_some_and(|(longest, _)| length < *longest) {
                break;
            }
            let Some(found) = self.under(base, (&dropped, &root), fits) else { continue };
            match &complete {
                Some((_, first)) if *first != found => {
                    let differing = first.iter().zip(&found).find(|(a, b)| a != b);
                    let (first, second) = differing.unwrap_or((&root, &root));
                    let (first, second) = (first.clone(), second.clone());
                    return Err(ErrorKind::Ambiguous { first, second }.into());
                }
                _ => complete = Some((length, found)),
            }
        }
        Ok(complete.map(|(_, found)| found).unwrap_or_default())
    }

    /// Ways to drop the start of the first name and put a root of the base before the rest: the length of
    /// the rest, what is dropped, the root.
    fn roots(&self, base: &BTreeSet<&str>) -> BTreeSet<(usize, String, String)> {
        // Shorter rests fit anywhere and prove nothing.
        const LEAST: usize = 4;
        let mut roots = BTreeSet::new();
        let Some(first) = self.flat().next() else { return roots };
        let starts = std::iter::once(0).chain(first.match_indices('_').map(|(at, _)| at + 1));
        let rests = starts.filter_map(|start| first.split_at_checked(start));
        let rests: Vec<(&str, &str)> = rests
            .take_while(|(dropped, _)| !dropped.bytes().any(|byte| byte.is_ascii_digit()))
            .filter(|(_, rest)| rest.split('_').count() >= LEAST)
            .collect();
        for name in base.iter().filter(|name| !name.ends_with(".bias")) {
            let scope = scope_of(name).0;
            if scope != self.scope && scope != Scope::Any && self.scope != Scope::Any {
                continue;
            }
            let flat = flatten(name);
            for (dropped, rest) in &rests {
                // Flattening keeps lengths, so that positions are the same in both.
                let root = flat.strip_suffix(rest).and_then(|root| name.get(..root.len()));
                let whole = |root: &&str| root.is_empty() || root.ends_with(['.', '/']);
                let swapped = |root: &&str| swaps(dropped, &root.replace('.', "_"));
                if let Some(root) = root.filter(whole).filter(|root| !swapped(root)) {
                    roots.insert((rest.len(), (*dropped).to_owned(), root.to_owned()));
                }
            }
        }
        roots
    }

    fn under(
        &self,
        base: &BTreeSet<&str>,
        (dropped, root): (&str, &str),
        fits: Fits<'_>,
    ) -> Option<Vec<String>> {
        let mut below: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in base.iter().filter(|name| !name.ends_with(".bias")) {
            if let Some(rest) = name.strip_prefix(root) {
                below.entry(flatten(rest)).or_default().push(name);
            }
        }
        let places = self.flat().zip(self.members).map(|(name, at)| {
            match below.get(name.strip_prefix(dropped)?)?.as_slice() {
                [only] if fits(*at, only) => Some((*only).to_owned()),
                _ => None,
            }
        });
        places.collect()
    }
}

/// The names without a place, each with the base's names that look most like it.
pub(super) fn unmatched(
    adapter: &Adapter,
    resolved: &Resolved,
    names: &BTreeSet<&str>,
) -> Vec<UnmatchedName> {
    let missing = names_of(adapter).zip(&resolved.names).filter(|(_, found)| found.is_none());
    missing
        .enumerate()
        .map(|(at, (label, _))| UnmatchedName {
            name: label.to_owned(),
            nearest: if at < 16 { nearest(&format!("{label}.weight"), names) } else { Vec::new() },
        })
        .collect()
}
