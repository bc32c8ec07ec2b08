//! work: makes some shards of a merge that was planned for several machines (`merge … --plan`).
//!
//! Workers do not talk: each makes its own shards beside the output, in temporaries that are renamed when they are
//! whole, and notes the hash of each. What is noted is not made again, so that a worker that was killed is simply run
//! once more, and two that do the same do no harm.

use std::path::PathBuf;

use serde::Serialize;

use super::merge::{Job, Making, Note, OutputShard, WorkerPart, make, note_name};
use super::{Progress, thread_pool};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::shared_staging::SharedStaging;

/// What to work on.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file that `merge --plan` wrote.
    pub plan: PathBuf,
    /// Which part of it.
    pub part: WorkerPart,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// What a worker did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The plan.
    pub plan: PathBuf,
    /// Its part, K/N.
    pub part: String,
    /// The shards of its part.
    pub shards: Vec<String>,
    /// How many of them it made.
    pub made: usize,
    /// How many were there, whole.
    pub reused: usize,
    /// Bytes of their tensors.
    pub bytes: u64,
    /// Where they wait for `commit`.
    pub place: PathBuf,
}

/// Makes the shards of a part that are not there yet.
///
/// # Errors
/// A plan that is none, or not that of these inputs; an output that is there already; then reading and writing, and
/// what [`Merge::run`](super::merge::Merge::run) says of values.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let job = Job::read(&options.plan)?;
    let pool = thread_pool(options.threads)?;
    let merge = job.open(&pool).in_file(&options.plan)?;
    let force = job.options.force;
    job.check_output(&merge)?;
    let staging = SharedStaging::join(&merge.plan.output, force, &job.digest)?;
    let making = merge.making();
    let numbers = job.shards_of(options.part);
    let shard_of = |number: &usize| Some((*number, merge.plan.shards.get(*number)?));
    let shards: Vec<(usize, &OutputShard)> = numbers.iter().filter_map(shard_of).collect();
    let bytes = shards.iter().map(|(_, shard)| shard.bytes()).sum();
    progress.begin(bytes);
    let mut made = 0;
    for (number, shard) in &shards {
        let note = staging.recall(&note_name(*number)).and_then(|text| Note::read(&text));
        if note.and_then(|note| note.stats(&staging.path(&shard.relative), shard)).is_some() {
            progress.advance(shard.bytes());
            continue;
        }
        make_one(making, (*number, shard), &staging, &pool, progress)?;
        made += 1;
    }
    Ok(Report {
        plan: options.plan.clone(),
        part: options.part.to_string(),
        made,
        reused: shards.len() - made,
        shards: shards.iter().map(|(_, shard)| shard.relative.clone()).collect(),
        bytes,
        place: staging.root().to_path_buf(),
    })
}

fn make_one(
    making: Making<'_>,
    (number, shard): (usize, &OutputShard),
    staging: &SharedStaging,
    pool: &rayon::ThreadPool,
    progress: &dyn Progress,
) -> Result<()> {
    let (file, pending) = staging.create(&shard.relative)?;
    let origin = making.plan.origin.as_ref();
    let (file, stats) = make((making, origin), shard, file, pool, progress)?;
    file.finish()?;
    // What was read must be what was planned with.
    making.inputs.check_unchanged()?;
    pending.put()?;
    let note = Note::of(&staging.path(&shard.relative), shard, &stats)?;
    staging.note(&note_name(number), &note.text()?)
}

impl Options {
    /// The part that is said, or the one that a scheduler says in the environment.
    ///
    /// # Errors
    /// If neither says it, or it is none.
    pub fn part(said: Option<&str>, get: impl Fn(&str) -> Option<String>) -> Result<WorkerPart> {
        let part = match said {
            Some(text) => Some(text.parse()?),
            None => WorkerPart::of_environment(get)?,
        };
        part.ok_or_else(|| ErrorKind::from(crate::error::JobError::NoPart).into())
    }
}
