//! From plan to files: workers compute panels, one writer puts them in place and copies the rest.
//!
//! Two threads writing one file contend for it, so only the writer writes; a fixed set of buffers
//! goes round between it and the workers, which bounds memory whatever the model's size. Panels may
//! arrive in any order: every one has its place, and sums are added up in panel order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPoolBuilder;

use super::layout::{OutputShard, OutputTensor};
use super::work::{Scratch, Work};
use super::{Action, Merge};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::staging::COPY_CHUNK;
use crate::format::{OutputFile, Source, Staging, header};
use crate::math::DeltaStats;
use crate::ops::Progress;

/// Statistics of each changed tensor, in output order.
type Stats = Vec<(String, DeltaStats)>;

/// Writes a whole plan and puts it in place.
pub(super) fn write(merge: &Merge, progress: &dyn Progress) -> Result<Stats> {
    let plan = &merge.plan;
    let staging = if plan.one_file {
        Staging::file(&plan.output, merge.force)?
    } else {
        Staging::directory(&plan.output, merge.force)?
    };
    progress.begin(plan.bytes);
    let threads = match merge.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| ErrorKind::Io(std::io::Error::other(error)))?;
    let mut stats = Stats::new();
    std::thread::scope(|scope| -> Result<()> {
        let mut syncing = Vec::new();
        for shard in &plan.shards {
            let file = staging.create(&shard.relative)?;
            let file = write_shard(merge, shard, file, &pool, threads, progress, &mut stats)?;
            // The disk works on this file while the next one is computed.
            syncing.push(scope.spawn(move || file.finish()));
        }
        for file in &plan.side_files {
            let content = match (&file.content, &file.source) {
                (Some(content), _) => content.clone(),
                (None, Some(source)) => std::fs::read(source).in_file(source)?,
                (None, None) => Vec::new(),
            };
            staging.write(&file.relative, &content)?;
        }
        for handle in syncing {
            handle.join().unwrap_or_else(|_| Err(std::io::Error::other("a sync thread failed").into()))?;
        }
        Ok(())
    })?;
    merge.base.check_unchanged()?;
    for adapter in &merge.adapters {
        adapter.file.check_unchanged()?;
    }
    staging.commit()?;
    Ok(stats)
}

/// Bytes of one input that go unchanged into the output.
struct CopyRun<'a> {
    source: &'a Source,
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
    /// Made by the worker that needs it first, dropped with the last panel.
    work: Mutex<Option<Arc<Work<'a>>>>,
    left: AtomicUsize,
}

impl TensorJob<'_> {
    fn panels(&self) -> usize {
        self.rows.div_ceil(self.panel_rows)
    }
}

/// A computed panel on its way to the file.
struct Computed {
    job: usize,
    panel: usize,
    offset: u64,
    bytes: Vec<u8>,
    stats: DeltaStats,
}

fn write_shard(
    merge: &Merge,
    shard: &OutputShard,
    mut file: OutputFile,
    pool: &rayon::ThreadPool,
    threads: usize,
    progress: &dyn Progress,
    stats: &mut Stats,
) -> Result<OutputFile> {
    let header = header_bytes(merge, shard)?;
    let data_start = header.len() as u64;
    file.set_length(data_start + shard.bytes())?;
    file.write_at(&header, 0)?;
    let (copies, jobs) = sort_out(merge, shard, data_start)?;
    let panels: Vec<(usize, usize)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(job, tensor)| (0..tensor.panels()).map(move |panel| (job, panel)))
        .collect();
    let queue = Queue::new(merge, &jobs, &panels);
    let (filled_in, filled_out) = channel::<Result<Computed>>();
    let (empty_in, empty_out) = channel::<Vec<u8>>();
    for _ in 0..2 * threads + 2 {
        // The receiver lives as long as this function.
        let _ = empty_in.send(Vec::new());
    }
    let empty_out = Mutex::new(empty_out);
    pool.in_place_scope(|scope| {
        for _ in 0..threads {
            let filled = filled_in.clone();
            let (queue, empty) = (&queue, &empty_out);
            scope.spawn(move |_| queue.work(empty, &filled));
        }
        drop(filled_in);
        let mut writer = Writer { file: &mut file, progress, jobs: &jobs, open: BTreeMap::new(), stats };
        let written = writer.run(&copies, &filled_out, &empty_in);
        queue.stop.store(true, Ordering::Relaxed);
        // Workers that wait for a buffer see the channel close.
        drop(empty_in);
        drop(filled_out);
        written
    })?;
    Ok(file)
}

fn header_bytes(merge: &Merge, shard: &OutputShard) -> Result<Vec<u8>> {
    let same = shard.same_header_as.and_then(|number| merge.base.shards.get(number));
    match same {
        Some(base) => {
            let mut scratch = Vec::new();
            let bytes = base.source.bytes(0..base.header.data_start, &mut scratch);
            Ok(bytes.in_file(&base.path)?.to_vec())
        }
        None => header::encode(shard.metadata.as_ref(), &shard.specs()),
    }
}

/// Splits a shard into runs of bytes to copy and tensors to compute.
fn sort_out<'a>(
    merge: &'a Merge,
    shard: &'a OutputShard,
    data_start: u64,
) -> Result<(Vec<CopyRun<'a>>, Vec<TensorJob<'a>>)> {
    let (mut copies, mut jobs): (Vec<CopyRun<'a>>, Vec<_>) = (Vec::new(), Vec::new());
    for (tensor, spec) in shard.tensors.iter().zip(shard.specs()) {
        let base = merge.base.tensor(&tensor.base).ok_or(ErrorKind::NotFound).in_tensor(&tensor.base)?;
        let to = data_start + spec.start;
        if matches!(tensor.action, Action::Copy) {
            let source = &base.shard.source;
            let (from, bytes) = (base.shard.header.data_start + base.spec.start, spec.bytes());
            match copies.last_mut() {
                Some(run)
                    if std::ptr::eq(run.source, source)
                        && run.from + run.bytes == from
                        && run.to + run.bytes == to =>
                {
                    run.bytes += bytes;
                }
                _ => copies.push(CopyRun { source, from, to, bytes }),
            }
            continue;
        }
        let (rows, columns) = super::bind::as_matrix(&tensor.shape);
        if rows * columns == 0 {
            continue;
        }
        let panel_rows = Work::panel_rows(tensor);
        jobs.push(TensorJob {
            tensor,
            offset: to,
            rows,
            row_bytes: spec.bytes() / rows as u64,
            panel_rows,
            work: Mutex::new(None),
            left: AtomicUsize::new(rows.div_ceil(panel_rows)),
        });
    }
    Ok((copies, jobs))
}

/// The panels still to compute, and who computes them.
struct Queue<'a> {
    merge: &'a Merge,
    jobs: &'a [TensorJob<'a>],
    panels: &'a [(usize, usize)],
    next: AtomicUsize,
    stop: AtomicBool,
}

impl<'a> Queue<'a> {
    fn new(merge: &'a Merge, jobs: &'a [TensorJob<'a>], panels: &'a [(usize, usize)]) -> Self {
        Self { merge, jobs, panels, next: AtomicUsize::new(0), stop: AtomicBool::new(false) }
    }

    /// One worker: takes an empty buffer, then the next panel, until there is none of either.
    fn work(&self, empty: &Mutex<Receiver<Vec<u8>>>, filled: &Sender<Result<Computed>>) {
        let mut scratch = Scratch::default();
        while !self.stop.load(Ordering::Relaxed) {
            let buffer = empty.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(buffer) = buffer else { return };
            let Some(&(job, panel)) = self.panels.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let computed = self.compute(job, panel, buffer, &mut scratch);
            if filled.send(computed).is_err() {
                return;
            }
        }
    }

    fn compute(
        &self,
        job: usize,
        panel: usize,
        mut bytes: Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<Computed> {
        let tensor = self.jobs.get(job).ok_or(ErrorKind::NotFound)?;
        let first = panel * tensor.panel_rows;
        let rows = tensor.panel_rows.min(tensor.rows - first);
        let work = self.work_of(tensor)?;
        let stats = work.compute(first, rows, &mut bytes, scratch)?;
        drop(work);
        if tensor.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            *tensor.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let offset = tensor.offset + first as u64 * tensor.row_bytes;
        Ok(Computed { job, panel, offset, bytes, stats })
    }

    fn work_of(&self, job: &TensorJob<'a>) -> Result<Arc<Work<'a>>> {
        let mut slot = job.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = &*slot {
            return Ok(Arc::clone(work));
        }
        let work = Arc::new(Work::new(self.merge, job.tensor)?);
        *slot = Some(Arc::clone(&work));
        Ok(work)
    }
}

/// The one thread that writes.
struct Writer<'a> {
    file: &'a mut OutputFile,
    progress: &'a dyn Progress,
    jobs: &'a [TensorJob<'a>],
    /// Tensors of which some panels are written: their sums, by panel.
    open: BTreeMap<usize, BTreeMap<usize, DeltaStats>>,
    stats: &'a mut Stats,
}

impl Writer<'_> {
    /// Writes panels as they come, and copies while none is there.
    fn run(
        &mut self,
        copies: &[CopyRun<'_>],
        filled: &Receiver<Result<Computed>>,
        empty: &Sender<Vec<u8>>,
    ) -> Result<()> {
        let mut copies = copies.iter();
        let mut rest: Option<(&CopyRun<'_>, u64)> = None;
        let mut finished: BTreeMap<usize, DeltaStats> = BTreeMap::new();
        loop {
            let (run, done) = match rest.take().or_else(|| copies.next().map(|run| (run, 0))) {
                Some(next) => next,
                None => match filled.recv() {
                    Ok(computed) => {
                        self.put(computed?, empty, &mut finished)?;
                        continue;
                    }
                    Err(_) => break,
                },
            };
            while let Ok(computed) = filled.try_recv() {
                self.put(computed?, empty, &mut finished)?;
            }
            let bytes = COPY_CHUNK.min(run.bytes - done);
            self.file.copy_from(run.source, run.from + done, run.to + done, bytes)?;
            self.progress.advance(bytes);
            if done + bytes < run.bytes {
                rest = Some((run, done + bytes));
            }
        }
        for (job, stats) in finished {
            let tensor = self.jobs.get(job).map(|job| job.tensor);
            if let Some(tensor) = tensor.filter(|_| stats.elements > 0) {
                self.stats.push((tensor.full_name.clone(), stats));
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        computed: Computed,
        empty: &Sender<Vec<u8>>,
        finished: &mut BTreeMap<usize, DeltaStats>,
    ) -> Result<()> {
        self.file.write_at(&computed.bytes, computed.offset)?;
        self.progress.advance(computed.bytes.len() as u64);
        // A worker that has gone needs no buffer.
        let _ = empty.send(computed.bytes);
        let panels = self.open.entry(computed.job).or_default();
        panels.insert(computed.panel, computed.stats);
        let all = self.jobs.get(computed.job).map_or(0, TensorJob::panels);
        if panels.len() == all {
            let mut sum = DeltaStats::default();
            for stats in panels.values() {
                sum.add(stats);
            }
            self.open.remove(&computed.job);
            finished.insert(computed.job, sum);
        }
        Ok(())
    }
}
