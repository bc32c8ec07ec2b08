//! commit: puts what workers have made of a plan (`merge … --plan`, [`work`](super::work)) in place, if all of it is
//! there and as it was made.

use std::path::PathBuf;

use rayon::prelude::*;

use super::merge::{Job, Merge, Note, OutputShard, Report, ShardStats, note_name, planned_files};
use super::{Progress, thread_pool};
use crate::error::{JobError, Locate, Result};
use crate::format::shared_staging::SharedStaging;

/// What to put in place.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file that `merge --plan` wrote.
    pub plan: PathBuf,
    /// Threads that read; 0 for one a core.
    pub threads: usize,
}

/// What is known of a shard.
enum Found {
    Whole(ShardStats),
    Missing,
    Altered,
}

/// Checks every shard, writes the files beside them, and puts all in place in one step.
///
/// # Errors
/// A plan that is none, or not that of these inputs; shards that are missing or not as they were made, by name; an
/// output that is there, also from an earlier commit. Nothing changes then, and what workers have made stays.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let job = Job::read(&options.plan)?;
    let pool = thread_pool(options.threads)?;
    let staging = SharedStaging::of_others(&job.plan.output, &job.digest)?;
    let merge = job.open(&pool).in_file(&options.plan)?;
    let (plan, force) = (&merge.plan, job.options.force);
    job.check_output(&merge)?;
    progress.begin(plan.bytes);
    let look = |(number, shard)| look(&staging, number, shard, progress);
    let found: Vec<Found> = pool.install(|| plan.shards.par_iter().enumerate().map(look).collect());
    let stats = all_whole(&merge, found).in_file(&options.plan)?;
    for file in &plan.side_files {
        match (&file.content, &file.source) {
            (None, Some(source)) => staging.copy(source, &file.relative)?,
            (content, _) => {
                staging.write(&file.relative, content.as_deref().unwrap_or_default().as_bytes())?;
            }
        }
    }
    staging.retain(&planned_files(plan))?;
    merge.inputs.check_unchanged()?;
    staging.commit(force)?;
    Ok(merge.report(&stats))
}

fn look(
    staging: &SharedStaging,
    number: usize,
    shard: &OutputShard,
    progress: &dyn Progress,
) -> Found {
    let path = staging.path(&shard.relative);
    let note = staging.recall(&note_name(number)).and_then(|text| Note::read(&text));
    let found = match note {
        Some(note) if path.symlink_metadata().is_ok() => {
            note.stats(&path, shard).map_or(Found::Altered, Found::Whole)
        }
        _ => Found::Missing,
    };
    progress.advance(shard.bytes());
    found
}

/// The statistics of all shards, in their order.
///
/// # Errors
/// [`JobError::Unfinished`], which names all that are not whole.
fn all_whole(merge: &Merge, found: Vec<Found>) -> Result<ShardStats> {
    let (mut stats, mut missing, mut altered) = (ShardStats::new(), Vec::new(), Vec::new());
    let shards = merge.plan.shards.len();
    for (shard, found) in merge.plan.shards.iter().zip(found) {
        match found {
            Found::Whole(found) => stats.extend(found),
            Found::Missing => missing.push(shard.relative.clone()),
            Found::Altered => altered.push(shard.relative.clone()),
        }
    }
    if missing.is_empty() && altered.is_empty() {
        return Ok(stats);
    }
    Err(JobError::Unfinished { missing, altered, shards }.into())
}
