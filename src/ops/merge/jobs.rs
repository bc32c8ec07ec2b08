//! A weight file's work in pieces: bytes to copy and tensors to compute, in file order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Merge;
use super::change::{Action, Change};
use super::elementwise::{Deltas, Learnt};
use super::layout::OutputTensor;
use super::rule::Rule;
use super::work::Work;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Shard;
use crate::math::DeltaStats;

/// Bytes that a worker copies at a time, inside the kernel.
pub(super) const COPY_PIECE: u64 = 8 << 20;

/// Statistics of each changed tensor, in output order.
pub(super) type Stats = Vec<(String, DeltaStats)>;

/// Bytes whose deltas are learnt before they are written: what is read twice shall still be cached.
const BATCH: u64 = 256 << 20;

/// All jobs at once; or, where a method first learns of its tensors, about [`BATCH`] bytes at a time.
pub(super) fn batches<'s, 'a>(jobs: &'s [Job<'a>], learning: bool) -> Vec<&'s [Job<'a>]> {
    if !learning {
        return vec![jobs];
    }
    let mut filled = 0;
    jobs.chunk_by(|job, _| {
        filled += job.bytes();
        let same = filled < BATCH;
        filled = if same { filled } else { 0 };
        same
    })
    .collect()
}

/// A stretch of the output, in pieces.
pub(super) enum Job<'a> {
    Copy(CopyJob<'a>),
    Tensor(TensorJob<'a>),
}

/// Bytes of one input that go unchanged into the output.
pub(super) struct CopyJob<'a> {
    pub(super) shard: &'a Shard,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) bytes: u64,
}

/// A tensor to compute.
pub(super) struct TensorJob<'a> {
    pub(super) tensor: &'a OutputTensor,
    pub(super) offset: u64,
    pub(super) rows: usize,
    pub(super) row_bytes: u64,
    pub(super) panel_rows: usize,
    pub(super) state: Mutex<TensorState<'a>>,
}

#[derive(Default)]
pub(super) struct TensorState<'a> {
    /// Made by the worker that needs it first, dropped with the last panel.
    pub(super) work: Option<Arc<Work<'a>>>,
    /// What the merge's method has learnt of it, until the work is made.
    pub(super) learnt: Option<Learnt<'a>>,
    /// Sums by panel; all in one when the last is in.
    pub(super) stats: BTreeMap<usize, DeltaStats>,
}

impl<'a> Job<'a> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Copy(copy) => copy.bytes,
            Self::Tensor(job) => job.rows as u64 * job.row_bytes,
        }
    }

    /// Lets the method look at the deltas of a tensor that it combines.
    pub(super) fn learn(&self, merge: &'a Merge, rule: &'a Rule) -> Result<()> {
        let Self::Tensor(job) = self else { return Ok(()) };
        let Action::Change(Change { blend: Some(step), .. }) = &job.tensor.action else {
            return Ok(());
        };
        let name = &job.tensor.base;
        let base = merge.base.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let deltas = Deltas::new(merge, step, base, job.tensor.matrix())?;
        let learnt = Learnt::new(rule, step, &deltas)?;
        lock(&job.state).learnt = Some(learnt);
        Ok(())
    }

    pub(super) fn pieces(&self) -> usize {
        match self {
            Self::Copy(copy) => copy.bytes.div_ceil(COPY_PIECE) as usize,
            Self::Tensor(tensor) => tensor.rows.div_ceil(tensor.panel_rows),
        }
    }

    pub(super) fn stats(&self) -> Option<(String, DeltaStats)> {
        let Self::Tensor(job) = self else { return None };
        let stats = lock(&job.state).stats.values().next().copied()?;
        (stats.elements > 0).then(|| (job.tensor.full_name.clone(), stats))
    }
}

/// Splits tensors, each with its place in the file, into runs of bytes to copy and tensors to compute.
pub(super) fn jobs<'a>(
    merge: &'a Merge,
    tensors: impl Iterator<Item = (&'a OutputTensor, u64)>,
) -> Result<Vec<Job<'a>>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (tensor, to) in tensors {
        let base =
            merge.base.tensor(&tensor.base).ok_or(ErrorKind::NotFound).in_tensor(&tensor.base)?;
        let bytes = tensor.bytes();
        if bytes == 0 {
            continue;
        }
        if matches!(tensor.action, Action::Copy) {
            let shard = base.shard;
            let from = shard.header.data_start + base.spec.start;
            match jobs.last_mut() {
                Some(Job::Copy(run))
                    if std::ptr::eq(run.shard, shard)
                        && run.from + run.bytes == from
                        && run.to + run.bytes == to =>
                {
                    run.bytes += bytes;
                }
                _ => jobs.push(Job::Copy(CopyJob { shard, from, to, bytes })),
            }
            continue;
        }
        let (rows, _) = tensor.matrix();
        jobs.push(Job::Tensor(TensorJob {
            tensor,
            offset: to,
            rows,
            row_bytes: bytes / rows.max(1) as u64,
            panel_rows: merge.block_rows.unwrap_or_else(|| Work::panel_rows(tensor, base)).max(1),
            state: Mutex::default(),
        }));
    }
    Ok(jobs)
}

/// A poisoned lock belongs to a worker that panicked, and the panic is passed on anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
