//! work: makes some parts of what was planned for several machines (`--plan` of `merge`, `extract` and `batch`).
//!
//! Workers do not talk: each makes its own parts beside the output, in temporaries that are renamed when they are
//! whole, and notes the hash of each. What is noted is not made again, so that a worker that was killed is simply run
//! once more, and two that do the same do no harm.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::job::document::{Open, Readable};
use super::job::note::{Note, State, name as note_name};
use super::job::shared::{PartOf, Parts, Shared, Workplace};
use super::job::{WorkerPart, document};
use super::shared::pool::spread;
use super::{Progress, batch, extract, merge, thread_pool};
use crate::error::{ErrorKind, JobError, Locate, Result};
use crate::format::shared_staging::SharedStaging;

/// What to work on.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file that `--plan` wrote.
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
    /// Which part of the work was its own, K/N.
    pub part: String,
    /// What was its own: shards, tensors or items by their names.
    pub parts: Vec<String>,
    /// How many of them it made.
    pub made: usize,
    /// How many were there, whole.
    pub reused: usize,
    /// Items that cannot be made, each with the reason.
    pub failed: Vec<Failed>,
    /// Bytes by which the work was shared out.
    pub bytes: u64,
    /// Where they wait for `commit`.
    pub place: PathBuf,
}

/// An item that cannot be made.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Failed {
    /// The item.
    pub part: String,
    /// Why.
    pub reason: String,
}

/// Makes the parts of a worker that are not there yet.
///
/// # Errors
/// A plan that is none, or not that of these inputs; an output that is there already; then reading and writing, and
/// what the verb says of values.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let document = Readable::read(&options.plan)?;
    match document.kind.as_str() {
        merge::Options::KIND => work::<merge::Options>(&document, options, progress),
        extract::Options::KIND => work::<extract::Options>(&document, options, progress),
        batch::Items::KIND => work::<batch::Items>(&document, options, progress),
        kind => Err(document::unknown_kind(kind)).in_file(&options.plan),
    }
}

fn work<S: Shared<Open: Sync>>(
    document: &Readable,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let job = document.job::<S>().in_file(&options.plan)?;
    let open = job.open(&options.plan, options.threads).in_file(&options.plan)?;
    open.parts.check_output(open.force)?;
    let staging = SharedStaging::join(open.parts.place(), &open.digest)?;
    make_all(&open, options, &staging, progress)
}

fn make_all<S: Shared<Open: Sync>>(
    open: &Open<S>,
    options: &Options,
    staging: &SharedStaging,
    progress: &dyn Progress,
) -> Result<Report> {
    let (all, numbers) = (open.parts.parts(), open.numbers_of(options.part));
    let own: Vec<_> = numbers.iter().filter_map(|at| Some((*at, all.get(*at)?))).collect();
    let bytes = own.iter().map(|(_, part)| part.bytes).sum();
    progress.begin(bytes);
    let pool = thread_pool(options.threads)?;
    let at_once = open.parts.at_once(pool.current_num_threads()).min(own.len()).max(1);
    let threads = (pool.current_num_threads() / at_once).max(1);
    let at = Workplace { staging, pool: &pool, threads, progress };
    let make = |number| make_one(open, number, &all, &at);
    let done = spread(&numbers, at_once, make, Result::is_err)?;
    let (mut made, mut failed) = (0, Vec::new());
    for done in done.into_iter().flatten() {
        match done? {
            Done::Made => made += 1,
            Done::Reused => {}
            Done::Failed(part) => failed.push(part),
        }
    }
    Ok(Report {
        plan: options.plan.clone(),
        part: options.part.to_string(),
        made,
        reused: own.len() - made - failed.len(),
        failed,
        parts: own.iter().map(|(_, part)| part.name.clone()).collect(),
        bytes,
        place: at.staging.place(),
    })
}

/// What came of a part.
enum Done {
    Made,
    Reused,
    Failed(Failed),
}

fn make_one<S: Shared>(
    open: &Open<S>,
    number: usize,
    all: &[PartOf],
    at: &Workplace<'_>,
) -> Result<Done> {
    let part = all.get(number).ok_or(ErrorKind::NotFound)?;
    let note = at.staging.recall(&note_name(number)).and_then(|text| Note::read(&text));
    let state = note.map(|note| open.parts.look(number, &note, at.staging));
    if state == Some(State::Whole) {
        at.progress.advance(part.bytes);
        return Ok(Done::Reused);
    }
    let note = open.parts.make(number, at)?;
    at.staging.note(&note_name(number), &note.text()?)?;
    Ok(match open.parts.why_failed(&note) {
        Some(reason) => Done::Failed(Failed { part: part.name.clone(), reason }),
        None => Done::Made,
    })
}

impl Options {
    /// Fails if there is no plan, before anything is asked of the worker.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn check_plan(plan: &Path) -> Result<()> {
        match plan.exists() {
            true => Ok(()),
            false => Err(ErrorKind::NotFound).in_file(plan),
        }
    }

    /// The part that is said, or the one that a scheduler says in the environment.
    ///
    /// # Errors
    /// If neither says it, or it is none.
    pub fn part(said: Option<&str>, get: impl Fn(&str) -> Option<String>) -> Result<WorkerPart> {
        let part = match said {
            Some(text) => Some(text.parse()?),
            None => WorkerPart::of_environment(get)?,
        };
        part.ok_or_else(|| ErrorKind::from(JobError::NoPart).into())
    }
}
