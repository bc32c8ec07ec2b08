//! The directions of a batch of modules: passes over all adapters until one gains next to nothing.
//!
//! With several groups every pass also gives each adapter to the group that holds the most of it, as k-means does
//! (Lloyd 1982); groups begin at adapters that those before hold the least of (Arthur and Vassilvitskii 2007).

use rayon::prelude::*;

use super::batch::{Batch, Groups, Sides};
use crate::error::Result;
use crate::math::elements::random::Stream;
use crate::math::linalg::joint::{Directions, Step, Sums};
use crate::ops::Progress;

/// Passes that are made at most.
const MOST_PASSES: usize = 24;
/// Passes of each side by itself, whose best does not depend on where it begins.
const APART: usize = 2;
/// Passes end when one takes less than this share off the squared error.
const LEAST_GAIN: f64 = 3e-4;
/// What is left of the squared norm where rounding is all that is.
const ROUNDING: f64 = 1e-13;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    pub(super) rank: usize,
    pub(super) clusters: usize,
    pub(super) seed: u64,
}

/// What was found.
pub(super) struct Fit {
    pub(super) directions: Groups,
    /// Each adapter's group.
    pub(super) groups: Vec<usize>,
    /// Passes over all adapters.
    pub(super) passes: usize,
}

/// Finds the directions of a batch, and the adapters' groups unless these are known.
///
/// # Errors
/// If an adapter cannot be read.
pub(super) fn fit(
    batch: &Batch<'_>,
    search: Search,
    fixed: Option<&[usize]>,
    progress: &dyn Progress,
) -> Result<Fit> {
    let random = random(batch, search);
    let mut passes = 0;
    let mut directions = if search.clusters > 1 && fixed.is_none() {
        begin(batch, search, &random, &mut passes, progress)?
    } else {
        vec![random; search.clusters]
    };
    let all: f64 = batch.shares().iter().sum();
    let (mut before, mut groups): (f64, Vec<usize>) = (0.0, Vec::new());
    for number in 0..MOST_PASSES {
        let step = match batch.sides {
            Sides::Both if number >= APART => Step::Together,
            _ => Step::Apart,
        };
        let pass = batch.pass(&directions, fixed, Some(step), progress)?;
        directions = next(pass.sums, directions);
        passes += 1;
        let held = pass.held.iter().sum::<f64>();
        let (gain, left) = (held - before, all - held);
        let still = pass.groups == groups;
        (before, groups) = (held, pass.groups);
        // What a step gains shows in the pass after it.
        if number > APART && still && (gain <= LEAST_GAIN * left || left <= ROUNDING * all) {
            break;
        }
    }
    Ok(Fit { directions, groups, passes })
}

fn next(sums: Vec<Vec<Sums>>, before: Groups) -> Groups {
    let group = |(sums, before): (Vec<Sums>, Vec<Directions>)| {
        let modules = sums.into_par_iter().zip(before);
        modules.map(|(sums, before)| sums.directions().unwrap_or(before)).collect()
    };
    sums.into_iter().zip(before).map(group).collect()
}

fn random(batch: &Batch<'_>, search: Search) -> Vec<Directions> {
    let modules = batch.modules.par_iter().filter_map(|number| {
        let spec = batch.survey.modules.get(*number)?;
        let stream = Stream::new(search.seed, &spec.name, 0);
        Some(Directions::random(spec.outputs, spec.inputs, search.rank, stream))
    });
    modules.collect()
}

/// Directions of adapters of which those before hold little, each drawn with a chance of what is left of it.
fn begin(
    batch: &Batch<'_>,
    search: Search,
    random: &[Directions],
    passes: &mut usize,
    progress: &dyn Progress,
) -> Result<Groups> {
    let stream = Stream::new(search.seed, "collect", 0);
    let shares = batch.shares();
    let mut left = shares.clone();
    let mut groups = Vec::new();
    for number in 0..search.clusters {
        let total: f64 = left.iter().sum();
        if total <= ROUNDING * shares.iter().sum::<f64>() {
            break;
        }
        let mut at = stream.uniform(number as u64) * total;
        let chosen = left.iter().position(|share| {
            at -= share;
            at < 0.0
        });
        let group = batch.alone(chosen.unwrap_or(0), random)?;
        let pass = batch.pass(&vec![group.clone()], None, None, progress)?;
        *passes += 1;
        for ((left, share), held) in left.iter_mut().zip(&shares).zip(pass.held) {
            *left = left.min((share - held).max(0.0));
        }
        groups.push(group);
    }
    if groups.is_empty() {
        groups.push(random.to_vec());
    }
    Ok(groups)
}
