//! From plan to files: every worker takes the next piece of a shard, computes it, and writes it in
//! its place.
//!
//! A piece is small enough to go from the registers to the page cache without leaving the core's own
//! cache; handing it to another core's writer costs twice as much as writing it. One worker writes at
//! a time, because two writers of one file contend for it, and the others compute meanwhile. Pieces
//! may finish in any order: each has its place, and sums are added up in the order of the rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::change::Change;
use super::elementwise::{Deltas, Learnt};
use super::layout::{OutputShard, OutputTensor};
use super::origin;
use super::resume;
use super::rule::Rule;
use super::side;
use super::work::{Scratch, Work};
use super::{Action, Merge};
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::staging::kept_root;
use crate::format::{Checkpoint, Metadata, OutputFile, Shard, Staging, header};
use crate::math::DeltaStats;
use crate::ops::thread_pool;
use crate::ops::{Progress, receipt};

/// Bytes that a worker copies at a time, inside the kernel.
const COPY_PIECE: u64 = 8 << 20;

/// Statistics of each changed tensor, in output order.
pub(super) type Stats = Vec<(String, DeltaStats)>;

/// What was written.
pub(super) struct Written {
    /// Statistics of each changed tensor, in output order.
    pub(super) stats: Stats,
    /// Shards that an earlier run had finished.
    pub(super) reused: usize,
    /// Bytes of the receipt.
    pub(super) receipt: Option<u64>,
}

/// Writes a whole plan and puts it in place.
pub(super) fn write(merge: &Merge, progress: &dyn Progress) -> Result<Written> {
    let plan = &merge.plan;
    let staging = match &merge.resume {
        _ if plan.one_file => Staging::file(&plan.output, merge.force)?,
        Some(key) => Staging::kept(&plan.output, merge.force, key)?,
        None => Staging::directory(&plan.output, merge.force)?,
    };
    fill(merge, staging, progress).map_err(|error| match &merge.resume {
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
    let pool = thread_pool(merge.threads)?;
    let (mut stats, mut reused) = (Stats::new(), 0);
    let staged = &staging;
    let origin = pool.install(|| origin::metadata(merge))?;
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
            let (file, found) =
                write_shard((merge, origin.as_ref()), shard, file, &pool, progress)?;
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
                    staging.write(&file.relative, content.as_deref().unwrap_or_default())?;
                }
            }
        }
        for handle in syncing {
            finished(handle)?;
        }
        Ok(())
    })?;
    merge.base.check_unchanged()?;
    for file in merge.adapters.iter().map(|adapter| &adapter.file).chain(&merge.tuned) {
        file.check_unchanged()?;
    }
    let receipt = pool.install(|| keep_receipt(merge, &staging))?;
    staging.commit().inspect_err(|_| {
        // A receipt of what is not there would only mislead.
        let _ = merge.receipt.as_ref().filter(|_| receipt.is_some()).map(std::fs::remove_file);
    })?;
    Ok(Written { stats, reused, receipt })
}

/// Writes what undoes the merge, if that was asked for, before the merge is in place; its length.
fn keep_receipt(merge: &Merge, staging: &Staging) -> Result<Option<u64>> {
    let Some(path) = &merge.receipt else { return Ok(None) };
    let merged = Checkpoint::open(&staging.content(), merge.access)?;
    let target = Staging::file(path, merge.force)?;
    let (plan, output) = (&merge.plan, target.create("")?);
    let beside = if plan.one_file { side::beside(&merge.base)? } else { Vec::new() };
    let sides = if plan.one_file { &beside } else { &plan.side_files };
    let bytes = receipt::make(&merge.base, &merged, sides, plan.one_file, output)?;
    target.commit()?;
    Ok(Some(bytes))
}

fn write_shard(
    (merge, origin): (&Merge, Option<&Metadata>),
    shard: &OutputShard,
    mut file: OutputFile,
    pool: &ThreadPool,
    progress: &dyn Progress,
) -> Result<(OutputFile, Stats)> {
    let header = header_bytes(merge, shard, origin)?;
    let data_start = header.len() as u64;
    file.set_length(data_start + shard.bytes())?;
    file.write_at(&header, 0)?;
    let jobs = jobs(merge, shard, data_start)?;
    for batch in batches(&jobs, merge.rule.is_some()) {
        if let Some(rule) = &merge.rule {
            pool.install(|| batch.par_iter().try_for_each(|job| job.learn(merge, rule)))?;
        }
        let shared = Shared {
            merge,
            jobs: batch,
            next: Mutex::new((0, 0)),
            file: Mutex::new(file),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            progress,
        };
        pool.broadcast(|_| shared.work());
        if let Some((_, error)) = take(shared.failure) {
            return Err(error);
        }
        file = take(shared.file);
    }
    let stats = jobs.iter().filter_map(Job::stats).collect();
    Ok((file, stats))
}

/// Bytes whose deltas are learnt before they are written: what is read twice shall still be cached.
const BATCH: u64 = 256 << 20;

/// All jobs at once; or, where a method first learns of its tensors, about [`BATCH`] bytes at a time.
fn batches<'s, 'a>(jobs: &'s [Job<'a>], learning: bool) -> Vec<&'s [Job<'a>]> {
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

fn header_bytes(merge: &Merge, shard: &OutputShard, origin: Option<&Metadata>) -> Result<Vec<u8>> {
    if let Some(origin) = origin {
        let mut metadata = shard.metadata.clone().unwrap_or_default();
        // Readers refuse metadata without it, though they take a file without metadata.
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        metadata.extend(origin.clone());
        return header::encode(Some(&metadata), &shard.specs());
    }
    let same = shard.same_header_as.and_then(|number| merge.base.shards.get(number));
    let same = same.filter(|base| base.header.metadata == shard.metadata);
    match same {
        Some(base) => {
            let mut scratch = Vec::new();
            let bytes = base.source.bytes(0..base.header.data_start, &mut scratch);
            Ok(bytes.in_file(&base.path)?.to_vec())
        }
        None => header::encode(shard.metadata.as_ref(), &shard.specs()),
    }
}

/// A poisoned lock belongs to a worker that panicked, and the panic is passed on anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A stretch of the output, in pieces.
enum Job<'a> {
    Copy(CopyJob<'a>),
    Tensor(TensorJob<'a>),
}

/// Bytes of one input that go unchanged into the output.
struct CopyJob<'a> {
    shard: &'a Shard,
    from: u64,
    to: u64,
    bytes: u64,
}

/// A tensor to compute.
struct TensorJob<'a> {
    tensor: &'a OutputTensor,
    offset: u64,
    rows: usize,
    row_bytes: u64,
    panel_rows: usize,
    state: Mutex<TensorState<'a>>,
}

#[derive(Default)]
struct TensorState<'a> {
    /// Made by the worker that needs it first, dropped with the last panel.
    work: Option<Arc<Work<'a>>>,
    /// What the merge's method has learnt of it, until the work is made.
    learnt: Option<Learnt<'a>>,
    /// Sums by panel; all in one when the last is in.
    stats: BTreeMap<usize, DeltaStats>,
}

impl<'a> Job<'a> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Copy(copy) => copy.bytes,
            Self::Tensor(job) => job.rows as u64 * job.row_bytes,
        }
    }

    /// Lets the method look at the deltas of a tensor that it combines.
    fn learn(&self, merge: &'a Merge, rule: &'a Rule) -> Result<()> {
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

    fn pieces(&self) -> usize {
        match self {
            Self::Copy(copy) => copy.bytes.div_ceil(COPY_PIECE) as usize,
            Self::Tensor(tensor) => tensor.rows.div_ceil(tensor.panel_rows),
        }
    }

    fn stats(&self) -> Option<(String, DeltaStats)> {
        let Self::Tensor(job) = self else { return None };
        let stats = lock(&job.state).stats.values().next().copied()?;
        (stats.elements > 0).then(|| (job.tensor.full_name.clone(), stats))
    }
}

/// Splits a shard into runs of bytes to copy and tensors to compute, in file order.
fn jobs<'a>(merge: &'a Merge, shard: &'a OutputShard, data_start: u64) -> Result<Vec<Job<'a>>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    for (tensor, spec) in shard.tensors.iter().zip(shard.specs()) {
        let base =
            merge.base.tensor(&tensor.base).ok_or(ErrorKind::NotFound).in_tensor(&tensor.base)?;
        let (to, bytes) = (data_start + spec.start, spec.bytes());
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
            panel_rows: merge.block_rows.unwrap_or_else(|| Work::panel_rows(tensor)).max(1),
            state: Mutex::default(),
        }));
    }
    Ok(jobs)
}

/// What the workers of one shard share.
struct Shared<'s, 'a> {
    merge: &'a Merge,
    jobs: &'s [Job<'a>],
    /// Job and piece that are next.
    next: Mutex<(usize, usize)>,
    /// Whoever holds it writes.
    file: Mutex<OutputFile>,
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
        let (source, path) = (&copy.shard.source, &copy.shard.path);
        let (from, to) = (copy.from + done, copy.to + done);
        lock(&self.file).copy_from(source, from, to, bytes).in_file(path)?;
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
                    let work = Work::new(self.merge, job.tensor, state.learnt.take())?;
                    Arc::clone(state.work.insert(Arc::new(work)))
                }
            }
        };
        let stats = work.compute(first, rows, buffer, scratch)?;
        lock(&self.file).write_at(buffer, job.offset + first as u64 * job.row_bytes)?;
        let mut state = lock(&job.state);
        state.stats.insert(panel, stats);
        if state.stats.len() == job.rows.div_ceil(job.panel_rows) {
            let mut sum = DeltaStats::default();
            for stats in state.stats.values() {
                sum.add(stats);
            }
            *state = TensorState { work: None, learnt: None, stats: BTreeMap::from([(0, sum)]) };
        }
        Ok(buffer.len() as u64)
    }
}
