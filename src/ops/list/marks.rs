//! Marks adapters that are the same as one before them, or nearly.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::content::Content;
use super::found::Found;
use super::row::Like;
use super::sketch::{Shapes, Sketch, distance};
use crate::error::Result;
use crate::format::Access;

/// Updates that are no farther apart than this, relative to the larger, are nearly equal.
const NEAR: f64 = 0.02;

/// Says of every adapter that holds the same as one before it which that is.
pub(super) fn same(found: &mut [Found], access: Access) -> Result<()> {
    let all = (0..found.len()).map(|at| (at, ()));
    let by_header = groups(found, all, |content, ()| Ok(content.header.clone()))?;
    let by_sample =
        groups(found, by_header, |content, header| Ok((header, content.sampled(access)?)))?;
    let by_all =
        groups(found, by_sample, |content, sampled| Ok((sampled, content.whole(access)?)))?;
    let mut first = BTreeMap::new();
    for (at, key) in by_all {
        let first = *first.entry(key).or_insert(at);
        let name = found.get(first).map(|found| found.row.name.clone());
        if let Some(found) = found.get_mut(at).filter(|_| first != at) {
            found.row.same_as = name;
        }
    }
    Ok(())
}

/// Those whose key another one has too, in their order.
fn groups<Before: Send, Key: Ord + Clone + Send>(
    found: &[Found],
    of: impl IntoIterator<Item = (usize, Before)>,
    key: impl Fn(&Content, Before) -> Result<Key> + Sync,
) -> Result<Vec<(usize, Key)>> {
    let contents: Vec<_> = of
        .into_iter()
        .filter_map(|(at, before)| Some((at, found.get(at)?.content.as_ref()?, before)))
        .collect();
    let keyed =
        contents.into_par_iter().map(|(at, content, before)| Ok((at, key(content, before)?)));
    let mut keyed: Vec<(usize, Key)> = keyed.collect::<Result<_>>()?;
    let mut counts = BTreeMap::new();
    for (_, key) in &keyed {
        *counts.entry(key.clone()).or_insert(0_usize) += 1;
    }
    keyed.retain(|(_, key)| counts.get(key).is_some_and(|count| *count > 1));
    Ok(keyed)
}

/// Says of every adapter that adds nearly the same as one before it which that is, where it is not the same bit for
/// bit.
pub(super) fn alike(found: &mut [Found]) {
    let mut alike: BTreeMap<&Shapes, Vec<(usize, &Sketch)>> = BTreeMap::new();
    let mut marks = Vec::new();
    for (at, sketch) in
        found.iter().enumerate().filter_map(|(at, f)| Some((at, f.sketch.as_ref()?)))
    {
        if found.get(at).is_some_and(|found| found.row.same_as.is_some()) {
            continue;
        }
        let before = alike.entry(&sketch.shapes).or_default();
        let nearest = before.iter().map(|(first, other)| (*first, distance(sketch, other)));
        let nearest = nearest.min_by(|(_, a), (_, b)| a.total_cmp(b));
        match nearest.filter(|(_, distance)| *distance <= NEAR) {
            Some((first, distance)) => {
                let name = found.get(first).map(|found| found.row.name.clone());
                marks.push((at, name.unwrap_or_default(), distance));
            }
            None => before.push((at, sketch)),
        }
    }
    for (at, name, distance) in marks {
        if let Some(found) = found.get_mut(at) {
            found.row.like = Some(Like { name, distance });
        }
    }
}
