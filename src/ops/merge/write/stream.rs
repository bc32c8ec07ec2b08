//! From plan to files: every worker takes the next piece of a shard, computes it, and writes it in
//! its place.
//!
//! A piece is small enough to go from the registers to the page cache without leaving the core's own
//! cache; handing it to another core's writer costs twice as much as writing it. One worker writes at
//! a time, because two writers of one file contend for it, and the others compute meanwhile. Pieces
//! may finish in any order: each has its place, and sums are added up in the order of the rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::beside::Beside;
use super::head::header_bytes;
use super::jobs::{
    COPY_PIECE, CopyJob, EncodeJob, EncodeState, Job, Stats, TensorJob, TensorState, batches, jobs,
    lock,
};
use super::resume;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::staging::kept_root;
use crate::format::{Metadata, OutputFile, Shard, Staging};
use crate::math::DeltaStats;
use crate::ops::merge::Merge;
use crate::ops::merge::compute::encoded::{Encoding, Survey};
use crate::ops::merge::compute::making::Making;
use crate::ops::merge::compute::scratch::Scratch;
use crate::ops::merge::compute::tensor_merge::Work;
use crate::ops::merge::plan::layout::{OutputShard, OutputTensor};
use crate::ops::merge::plan::origin;
use crate::ops::{Progress, thread_pool};

/// What was written.
pub(in crate::ops::merge) struct Written {
    /// Statistics of each changed tensor, in output order.
    pub(in crate::ops::merge) stats: Stats,
    /// Shards that an earlier run had finished.
    pub(in crate::ops::merge) reused: usize,
    /// What lies beside it.
    pub(in crate::ops::merge) beside: Beside,
}

/// Writes a whole plan and puts it in place.
pub(in crate::ops::merge) fn write(merge: &Merge, progress: &dyn Progress) -> Result<Written> {
    let plan = &merge.plan;
    let staging = match &merge.resume {
        _ if plan.one_file => Staging::file(&plan.output, merge.options.force)?,
        Some(key) => Staging::kept(&plan.output, merge.options.force, key)?,
        None => Staging::directory(&plan.output, merge.options.force)?,
    };
    fill(merge, staging, progress).map_err(|error| match &merge.resume {
        Some(_) if !resume::goes_on(error.kind()) => {
            // What is kept would only be in the way of another merge.
            let _ = std::fs::remove_dir_all(kept_root(&plan.output));
            error
        }
        Some(_) => {
            let directory = kept_root(&plan.output);
            ErrorKind::Kept { error: Box::new(error), directory }.into()
        }
        None => error,
    })
}

/// Files that are written to the disk while others are computed; each is open until then.
const SYNCING: usize = 8;

fn finished(syncing: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let failed = || Err(std::io::Error::other("a sync thread failed").into());
    syncing.join().unwrap_or_else(|_| failed())
}

fn fill(merge: &Merge, staging: Staging, progress: &dyn Progress) -> Result<Written> {
    let plan = &merge.plan;
    progress.begin(plan.bytes);
    let pool = thread_pool(merge.options.threads)?;
    let planned = resume::planned(plan);
    staging.retain(&planned)?;
    let (mut stats, mut reused) = (Stats::new(), 0);
    let staged = &staging;
    let (making, inputs) = (merge.making(), &merge.inputs);
    progress.phase("hashing");
    let origin = pool.install(|| origin::metadata(plan, inputs))?;
    progress.phase("merging");
    std::thread::scope(|scope| -> Result<()> {
        let mut syncing = Vec::new();
        for (number, shard) in plan.shards.iter().enumerate() {
            if let Some(found) = resume::reuse(staged, number, shard) {
                stats.extend(found);
                reused += 1;
                progress.advance(shard.bytes());
                continue;
            }
            let file = staging.create(&shard.relative)?;
            let (file, found) = make((making, origin.as_ref()), shard, file, &pool, progress)?;
            stats.extend(found.iter().cloned());
            if syncing.len() == SYNCING {
                finished(syncing.remove(0))?;
            }
            // The disk works on this file while the next one is computed.
            syncing.push(scope.spawn(move || {
                file.finish()?;
                resume::record(staged, number, shard, &found)
            }));
        }
        for file in &plan.side_files {
            match (&file.content, &file.source) {
                (None, Some(source)) => staging.copy(source, &file.relative)?,
                (content, _) => {
                    staging
                        .write(&file.relative, content.as_deref().unwrap_or_default().as_bytes())?;
                }
            }
        }
        progress.phase("syncing");
        for handle in syncing {
            finished(handle)?;
        }
        Ok(())
    })?;
    staging.retain(&planned)?;
    inputs.check_unchanged()?;
    let beside = Beside::write(merge, &staging, &stats, &pool)?;
    staging.commit().inspect_err(|_| beside.remove(merge))?;
    Ok(Written { stats, reused, beside })
}

/// Makes one shard, from the plan and its open inputs alone: into the file that it is given, which nobody else may
/// read before the shard is whole. `origin` is what the header says of where it comes from.
///
/// # Errors
/// Reading and writing; a value of the base that is not finite; a result that the output's dtype cannot hold.
pub(in crate::ops) fn make(
    (making, origin): (Making<'_>, Option<&Metadata>),
    shard: &OutputShard,
    mut file: OutputFile,
    pool: &ThreadPool,
    progress: &dyn Progress,
) -> Result<(OutputFile, Stats)> {
    file.no_wider_than(making.inputs.sources())?;
    let header = header_bytes(making, shard, origin)?;
    let data_start = header.len() as u64;
    file.set_length(data_start + shard.bytes())?;
    file.write_at(&header, 0)?;
    let tensors = shard.placed().map(|(tensor, start)| (tensor, data_start + start));
    let file = Mutex::new(file);
    let stats = work_through(making, tensors, &file, pool, progress)?;
    Ok((take(file), stats))
}

/// Where the bytes of one weight file go: into it, or to whoever compares it with them.
pub(in crate::ops) trait Sink: Sync {
    /// Takes bytes of an input, as they are, for the place `to`.
    ///
    /// # Errors
    /// Reading and writing.
    fn copy(&self, shard: &Shard, from: u64, to: u64, bytes: u64) -> Result<()>;
    /// Takes computed bytes for the place `at`.
    ///
    /// # Errors
    /// Writing.
    fn put(&self, bytes: &[u8], at: u64) -> Result<()>;
}

/// Whoever holds it writes.
impl Sink for Mutex<OutputFile> {
    fn copy(&self, shard: &Shard, from: u64, to: u64, bytes: u64) -> Result<()> {
        lock(self).copy_from(&shard.source, from, to, bytes).in_file(&shard.path)
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<()> {
        lock(self).write_at(bytes, at)
    }
}

/// Makes all bytes of one file's tensors, each at its place, on all threads of the pool.
///
/// # Errors
/// Those of the base's values, of the output's range, of the sink: the earliest in the file's order.
pub(in crate::ops) fn work_through<'a>(
    making: Making<'a>,
    tensors: impl Iterator<Item = (&'a OutputTensor, u64)>,
    sink: &dyn Sink,
    pool: &ThreadPool,
    progress: &dyn Progress,
) -> Result<Stats> {
    let jobs = jobs(making, tensors)?;
    let looks = jobs.iter().map(|job| job.looks(making)).collect::<Result<Vec<_>>>()?;
    let looks = looks.contains(&true);
    for batch in batches(&jobs, looks) {
        if looks {
            pool.install(|| batch.par_iter().try_for_each(|job| job.look(making)))?;
        }
        let shared = Shared {
            making,
            jobs: batch,
            next: Mutex::new((0, 0)),
            sink,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            progress,
        };
        pool.broadcast(|_| shared.work());
        if let Some((_, error)) = take(shared.failure) {
            return Err(error);
        }
    }
    Ok(jobs.iter().filter_map(Job::stats).collect())
}

/// Sums of all panels, in the order of the rows.
fn sum(panels: &BTreeMap<usize, DeltaStats>) -> DeltaStats {
    let mut sum = DeltaStats::default();
    for stats in panels.values() {
        sum.add(stats);
    }
    sum
}

fn take<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What the workers of one shard share.
struct Shared<'s, 'a> {
    making: Making<'a>,
    jobs: &'s [Job<'a>],
    /// Job and piece that are next.
    next: Mutex<(usize, usize)>,
    sink: &'s dyn Sink,
    failed: AtomicBool,
    /// The failure of the earliest piece, so that every run says the same.
    failure: Mutex<Option<((usize, usize), Error)>>,
    progress: &'s dyn Progress,
}

impl<'s, 'a> Shared<'s, 'a> {
    /// One worker: the next piece, until there is none or one failed.
    fn work(&self) {
        let (mut buffer, mut scratch) = (Vec::new(), Scratch::default());
        while !self.failed.load(Ordering::Relaxed) {
            let Some((at, job)) = self.take_next() else { return };
            let done = match job {
                Job::Copy(copy) => self.copy(copy, at.1),
                Job::Tensor(tensor) => self.compute(tensor, at.1, &mut buffer, &mut scratch),
                Job::Encode(job) => self.encode(job, at.1, &mut scratch),
            };
            match done {
                Ok(bytes) => self.progress.advance(bytes),
                Err(error) => self.fail(at, error),
            }
        }
    }

    fn take_next(&self) -> Option<((usize, usize), &'s Job<'a>)> {
        let mut next = lock(&self.next);
        loop {
            let job = self.jobs.get(next.0)?;
            if next.1 < job.pieces() {
                let at = *next;
                next.1 += 1;
                return Some((at, job));
            }
            *next = (next.0 + 1, 0);
        }
    }

    fn fail(&self, at: (usize, usize), error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(earliest, _)| at < *earliest) {
            *failure = Some((at, error));
        }
    }

    fn copy(&self, copy: &CopyJob<'_>, piece: usize) -> Result<u64> {
        let done = piece as u64 * COPY_PIECE;
        let bytes = COPY_PIECE.min(copy.bytes - done);
        self.sink.copy(copy.shard, copy.from + done, copy.to + done, bytes)?;
        Ok(bytes)
    }

    fn compute(
        &self,
        job: &TensorJob<'a>,
        panel: usize,
        buffer: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<u64> {
        let first = panel * job.panel_rows;
        let rows = job.panel_rows.min(job.rows - first);
        let work = {
            let mut state = lock(&job.state);
            match &state.work {
                Some(work) => Arc::clone(work),
                None => {
                    let work = Work::new(self.making, job.tensor, state.statistics.take())?;
                    Arc::clone(state.work.insert(Arc::new(work)))
                }
            }
        };
        let stats = work.compute(first, rows, buffer, scratch)?;
        self.sink.put(buffer, job.offset + first as u64 * job.row_bytes)?;
        let mut state = lock(&job.state);
        state.stats.insert(panel, stats);
        if state.stats.len() == job.rows.div_ceil(job.panel_rows) {
            let stats = BTreeMap::from([(0, sum(&state.stats))]);
            *state = TensorState { work: None, statistics: None, stats };
        }
        Ok(buffer.len() as u64)
    }

    /// As [`Shared::compute`], of a weight that is quantised again: into all its stored tensors in the file.
    fn encode(&self, job: &EncodeJob<'a>, panel: usize, scratch: &mut Scratch) -> Result<u64> {
        let first = panel * job.panel_rows;
        let rows = first..(first + job.panel_rows).min(job.rows);
        let encoding = {
            let mut state = lock(&job.state);
            match &state.encoding {
                Some(encoding) => Arc::clone(encoding),
                None => {
                    let survey = std::mem::take(&mut state.survey);
                    let encoding = Encoding::new(self.making, job.dense, survey)?;
                    Arc::clone(state.encoding.insert(Arc::new(encoding)))
                }
            }
        };
        let (pieces, stats) = encoding.compute(rows, scratch)?;
        let mut bytes = 0;
        for piece in pieces {
            if let Some(offset) = job.offsets.get(&piece.part) {
                self.sink.put(&piece.bytes, offset + piece.at as u64)?;
                bytes += piece.bytes.len() as u64;
            }
        }
        let mut state = lock(&job.state);
        state.stats.insert(panel, stats);
        if state.stats.len() == job.rows.div_ceil(job.panel_rows) {
            let stats = BTreeMap::from([(0, sum(&state.stats))]);
            *state = EncodeState { survey: Survey::default(), encoding: None, stats };
        }
        Ok(bytes)
    }
}
