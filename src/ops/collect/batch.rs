//! Modules whose directions are found together: as many as memory has room for, so that every adapter is opened as
//! seldom as possible.

use rayon::prelude::*;

use super::sources::Sources;
use super::survey::{Survey, Surveyed};
use crate::error::Result;
use crate::math::LowRank;
use crate::math::linalg::joint::{Directions, Seen, Step, Sums};
use crate::ops::Progress;

/// Bytes of directions and sums that are held at once.
const ROOM: usize = 1 << 30;

/// Which sides of an update are cut to shared directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    /// Both: U·Σᵢ·Vᵀ.
    Both,
    /// The inputs alone: Bᵢ·A with one A.
    Inputs,
}

/// Directions of the modules of a batch, for each group of adapters.
pub(super) type Groups = Vec<Vec<Directions>>;

/// Some modules of all adapters.
pub(super) struct Batch<'a> {
    pub(super) sources: &'a Sources,
    pub(super) survey: &'a Survey,
    /// Their numbers.
    pub(super) modules: Vec<usize>,
    pub(super) sides: Sides,
}

/// What a pass over the adapters found.
pub(super) struct Pass {
    /// The sums that the next directions are made of.
    pub(super) sums: Vec<Vec<Sums>>,
    /// The group that holds the most of each adapter.
    pub(super) groups: Vec<usize>,
    /// ‖what the directions hold‖² / ‖Δ‖² of each adapter, of the batch's modules.
    pub(super) held: Vec<f64>,
}

/// Numbers of modules, in batches that memory has room for.
pub(super) fn batches(survey: &Survey, rank: usize, clusters: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (number, bytes) in sizes(survey, rank, clusters).into_iter().enumerate() {
        match batches.last_mut().filter(|_| bytes <= room) {
            Some(batch) => {
                batch.push(number);
                room -= bytes;
            }
            None => {
                batches.push(vec![number]);
                room = ROOM.saturating_sub(bytes);
            }
        }
    }
    batches
}

/// As many modules, evenly spread, as memory has room for.
pub(super) fn sample(survey: &Survey, rank: usize, clusters: usize) -> Vec<usize> {
    let sizes = sizes(survey, rank, clusters);
    let count = sizes.len();
    let largest = sizes.into_iter().max().unwrap_or(1).max(1);
    let chosen = (ROOM / largest).clamp(1, count.max(1));
    (0..chosen).map(|at| at * count / chosen).collect()
}

fn sizes(survey: &Survey, rank: usize, clusters: usize) -> Vec<usize> {
    let size = |spec: &super::document::ModuleSpec| {
        let sides = spec.outputs.saturating_add(spec.inputs);
        // Directions and sums, in f64.
        sides.saturating_mul(16 * clusters * (rank + rank / 8 + 8))
    };
    survey.modules.iter().map(size).collect()
}

impl Batch<'_> {
    /// All of an adapter's updates in the batch's modules.
    fn deltas(&self, at: usize, adapter: &Surveyed) -> Result<Vec<Option<LowRank>>> {
        let open = self.sources.open(at)?;
        self.modules.par_iter().map(|module| adapter.delta(&open, *module)).collect()
    }

    /// ‖Δ‖² of the batch's modules over that of all, of each adapter.
    pub(super) fn shares(&self) -> Vec<f64> {
        let share = |adapter: &Surveyed| {
            let parts = self.modules.iter().filter_map(|module| adapter.parts.get(module));
            parts.map(|part| part.energy).sum::<f64>() * adapter.weight()
        };
        self.survey.adapters.iter().map(share).collect()
    }

    /// Goes over all adapters once; with a step, adds up what the next directions are made of. Adapters belong to
    /// the groups that are given, or each to the one that holds the most of it.
    ///
    /// # Errors
    /// If an adapter cannot be read.
    pub(super) fn pass(
        &self,
        groups: &Groups,
        fixed: Option<&[usize]>,
        step: Option<Step>,
        progress: &dyn Progress,
    ) -> Result<Pass> {
        let new = |group: &Vec<Directions>| group.iter().map(Sums::new).collect();
        let mut pass = Pass {
            sums: if step.is_some() { groups.iter().map(new).collect() } else { Vec::new() },
            groups: Vec::with_capacity(self.sources.len()),
            held: Vec::with_capacity(self.sources.len()),
        };
        progress.begin(self.sources.len() as u64);
        for (at, adapter) in self.survey.adapters.iter().enumerate() {
            let deltas = self.deltas(at, adapter)?;
            let mut best: Option<(usize, f64, Vec<Option<Seen>>)> = None;
            for (number, group) in groups.iter().enumerate() {
                if fixed.is_some_and(|fixed| fixed.get(at) != Some(&number)) {
                    continue;
                }
                let (seen, held) = self.see(group, &deltas);
                let held = held * adapter.weight();
                // Of equals the first stays.
                if best.as_ref().is_none_or(|(_, most, _)| held > *most) {
                    best = Some((number, held, seen));
                }
            }
            let Some((number, held, seen)) = best else { continue };
            if let Some((sums, step)) = pass.sums.get_mut(number).zip(step) {
                let parts = sums.par_iter_mut().zip(&deltas).zip(&seen);
                parts.for_each(|((sums, delta), seen)| {
                    if let (Some(delta), Some(seen)) = (delta, seen) {
                        sums.add(delta, seen, adapter.weight(), step);
                    }
                });
            }
            pass.groups.push(number);
            pass.held.push(held);
            progress.advance(1);
        }
        Ok(pass)
    }

    /// An adapter's updates as a group's directions see them, and how much of them they hold.
    fn see(&self, group: &[Directions], deltas: &[Option<LowRank>]) -> (Vec<Option<Seen>>, f64) {
        let pairs = group.par_iter().zip(deltas);
        let seen: Vec<Option<Seen>> = pairs
            .map(|(directions, delta)| delta.as_ref().map(|delta| directions.see(delta)))
            .collect();
        let held = seen.iter().zip(deltas).map(|(seen, delta)| match (seen, delta) {
            (Some(seen), Some(delta)) => match self.sides {
                Sides::Both => seen.both_sides(),
                Sides::Inputs => seen.right_side(delta),
            },
            _ => 0.0,
        });
        let held = held.sum();
        (seen, held)
    }

    /// What one adapter alone adds up to, from some directions.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn alone(&self, at: usize, start: &[Directions]) -> Result<Vec<Directions>> {
        let Some(adapter) = self.survey.adapters.get(at) else { return Ok(start.to_vec()) };
        let deltas = self.deltas(at, adapter)?;
        let parts = start.par_iter().zip(&deltas).map(|(start, delta)| {
            let mut sums = Sums::new(start);
            if let Some(delta) = delta {
                sums.add(delta, &start.see(delta), adapter.weight(), Step::Apart);
            }
            sums.directions().unwrap_or_else(|| start.clone())
        });
        Ok(parts.collect())
    }
}
