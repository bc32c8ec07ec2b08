//! A weight file's work in pieces: bytes to copy and tensors to compute, in file order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ErrorKind, Locate, Result};
use crate::format::Shard;
use crate::math::DeltaStats;
use crate::ops::merge::compute::elementwise::{Deltas, Statistics};
use crate::ops::merge::compute::encoded::{self, Encoding, Survey};
use crate::ops::merge::compute::making::Making;
use crate::ops::merge::compute::tensor_merge::Work;
use crate::ops::merge::plan::layout::OutputTensor;
use crate::ops::merge::plan::tensor_plan::{Encode, TensorPlan};

/// Bytes that a worker copies at a time, inside the kernel.
pub(in crate::ops::merge) const COPY_PIECE: u64 = 8 << 20;

/// Statistics of each changed tensor, in output order.
pub(in crate::ops) type Stats = Vec<(String, DeltaStats)>;

/// Bytes that are looked at before they are written: what is read twice shall still be cached.
const BATCH: u64 = 256 << 20;

/// All jobs at once; or, where something is first looked at as a whole, about [`BATCH`] bytes at a time.
pub(in crate::ops::merge) fn batches<'s, 'a>(
    jobs: &'s [Job<'a>],
    looks: bool,
) -> Vec<&'s [Job<'a>]> {
    if !looks {
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
pub(in crate::ops::merge) enum Job<'a> {
    Copy(CopyJob<'a>),
    Tensor(TensorJob<'a>),
    Encode(EncodeJob<'a>),
}

/// Bytes of one input that go unchanged into the output.
pub(in crate::ops::merge) struct CopyJob<'a> {
    pub(in crate::ops::merge) shard: &'a Shard,
    pub(in crate::ops::merge) from: u64,
    pub(in crate::ops::merge) to: u64,
    pub(in crate::ops::merge) bytes: u64,
}

/// A tensor to compute.
pub(in crate::ops::merge) struct TensorJob<'a> {
    pub(in crate::ops::merge) tensor: &'a OutputTensor,
    pub(in crate::ops::merge) offset: u64,
    pub(in crate::ops::merge) rows: usize,
    pub(in crate::ops::merge) row_bytes: u64,
    pub(in crate::ops::merge) panel_rows: usize,
    pub(in crate::ops::merge) state: Mutex<TensorState<'a>>,
}

#[derive(Default)]
pub(in crate::ops::merge) struct TensorState<'a> {
    /// Made by the worker that needs it first, dropped with the last panel.
    pub(in crate::ops::merge) work: Option<Arc<Work<'a>>>,
    /// What the merge's method counted of it, until the work is made.
    pub(in crate::ops::merge) statistics: Option<Statistics<'a>>,
    /// Sums by panel; all in one when the last is in.
    pub(in crate::ops::merge) stats: BTreeMap<usize, DeltaStats>,
}

/// A weight to quantise again, of which some stored tensors lie in the file.
pub(in crate::ops::merge) struct EncodeJob<'a> {
    /// The weight as it would be written in F32.
    pub(in crate::ops::merge) dense: &'a OutputTensor,
    /// Where each of its stored tensors begins that lies in the file, by the number of the part.
    pub(in crate::ops::merge) offsets: BTreeMap<usize, u64>,
    /// Bytes of these.
    pub(in crate::ops::merge) bytes: u64,
    pub(in crate::ops::merge) rows: usize,
    pub(in crate::ops::merge) panel_rows: usize,
    pub(in crate::ops::merge) state: Mutex<EncodeState<'a>>,
}

#[derive(Default)]
pub(in crate::ops::merge) struct EncodeState<'a> {
    /// What was found by looking at all of it, where its encoding needs that.
    pub(in crate::ops::merge) survey: Survey,
    /// Made by the worker that needs it first, dropped with the last panel.
    pub(in crate::ops::merge) encoding: Option<Arc<Encoding<'a>>>,
    /// Sums by panel; all in one when the last is in.
    pub(in crate::ops::merge) stats: BTreeMap<usize, DeltaStats>,
}

impl<'a> Job<'a> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Copy(copy) => copy.bytes,
            Self::Tensor(job) => job.rows as u64 * job.row_bytes,
            Self::Encode(job) => job.bytes,
        }
    }

    /// Whether something of all of it must be known before any is made.
    pub(in crate::ops::merge) fn looks(&self, making: Making<'a>) -> Result<bool> {
        Ok(match self {
            Self::Copy(_) => false,
            Self::Tensor(job) => {
                let base = making.inputs.base.tensor(&job.tensor.base);
                let prepares = base.is_some_and(|base| base.prepares());
                prepares || (making.plan.method.is_some() && job.tensor.plan.method().is_some())
            }
            Self::Encode(job) => Encoding::surveys(making, job.dense)?,
        })
    }

    /// Looks at all of it.
    pub(in crate::ops::merge) fn look(&self, making: Making<'a>) -> Result<()> {
        match self {
            Self::Copy(_) => Ok(()),
            Self::Tensor(job) => job.look(making),
            Self::Encode(job) if Encoding::surveys(making, job.dense)? => {
                let encoding = Encoding::new(making, job.dense, Survey::default())?;
                lock(&job.state).survey = encoding.look(job.panel_rows)?;
                Ok(())
            }
            Self::Encode(_) => Ok(()),
        }
    }

    pub(in crate::ops::merge) fn pieces(&self) -> usize {
        match self {
            Self::Copy(copy) => copy.bytes.div_ceil(COPY_PIECE) as usize,
            Self::Tensor(tensor) => tensor.rows.div_ceil(tensor.panel_rows),
            Self::Encode(job) => job.rows.div_ceil(job.panel_rows),
        }
    }

    pub(in crate::ops::merge) fn stats(&self) -> Option<(String, DeltaStats)> {
        let (name, stats) = match self {
            Self::Copy(_) => return None,
            Self::Tensor(job) => {
                (&job.tensor.full_name, lock(&job.state).stats.values().next().copied())
            }
            // The file with the codes says it.
            Self::Encode(job) if !job.offsets.contains_key(&0) => return None,
            Self::Encode(job) => {
                (&job.dense.full_name, lock(&job.state).stats.values().next().copied())
            }
        };
        stats.filter(|stats| stats.elements > 0).map(|stats| (name.clone(), stats))
    }
}

impl<'a> TensorJob<'a> {
    /// Lets the base look at itself, and the method at the deltas that it combines.
    fn look(&self, making: Making<'a>) -> Result<()> {
        let name = &self.tensor.base;
        let base = making.inputs.base.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        base.prepare()?;
        let (Some(method), Some(step)) = (&making.plan.method, self.tensor.plan.method()) else {
            return Ok(());
        };
        let deltas = Deltas::new(making, step, base, self.tensor.matrix)?;
        let statistics = Statistics::new(method, step, &deltas)?;
        lock(&self.state).statistics = Some(statistics);
        Ok(())
    }
}

/// Splits tensors, each with its place in the file, into runs of bytes to copy and tensors to compute.
pub(in crate::ops::merge) fn jobs<'a>(
    making: Making<'a>,
    tensors: impl Iterator<Item = (&'a OutputTensor, u64)>,
) -> Result<Vec<Job<'a>>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut encoded: BTreeMap<&str, usize> = BTreeMap::new();
    for (tensor, to) in tensors {
        let base = making.inputs.source(tensor)?;
        let bytes = tensor.bytes();
        if bytes == 0 {
            continue;
        }
        if let TensorPlan::Encode(Encode { part, dense }) = &tensor.plan {
            let at = *encoded.entry(&dense.full_name).or_insert(jobs.len());
            if at == jobs.len() {
                let (weight, _) = making.inputs.weight(&dense.full_name)?;
                let panel_rows = encoded::panel_rows(weight, dense, making.block_rows);
                let (offsets, rows) = (BTreeMap::new(), weight.matrix().0);
                let state = Mutex::default();
                jobs.push(Job::Encode(EncodeJob {
                    dense,
                    offsets,
                    bytes: 0,
                    rows,
                    panel_rows,
                    state,
                }));
            }
            if let Some(Job::Encode(job)) = jobs.get_mut(at) {
                job.offsets.insert(*part, to);
                job.bytes += bytes;
            }
            continue;
        }
        if matches!(tensor.plan, TensorPlan::Copy) {
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
        let (rows, _) = tensor.matrix;
        jobs.push(Job::Tensor(TensorJob {
            tensor,
            offset: to,
            rows,
            row_bytes: bytes / rows.max(1) as u64,
            panel_rows: making.block_rows.unwrap_or_else(|| Work::panel_rows(tensor, base)).max(1),
            state: Mutex::default(),
        }));
    }
    Ok(jobs)
}

/// A poisoned lock belongs to a worker that panicked, and the panic is passed on anyway.
pub(in crate::ops::merge) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
