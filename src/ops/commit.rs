//! commit: puts what workers have made of a plan ([`work`](super::work)) in place, if all of it is there and as it was
//! made.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::job::document::{self, Readable};
use super::job::note::{Note, State, name as note_name};
use super::job::shared::{PartOf, Parts, Shared};
use super::{Progress, batch, extract, merge, thread_pool};
use crate::error::{JobError, Locate, Result};
use crate::format::shared_staging::SharedStaging;

/// What to put in place.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file that `--plan` wrote.
    pub plan: PathBuf,
    /// Threads that read; 0 for one a core.
    pub threads: usize,
}

/// What was put in place, as the verb reports it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// A merge.
    Merge(Box<merge::Report>),
    /// An extraction.
    Extract(Box<extract::Report>),
    /// A batch.
    Batch(batch::Report),
}

/// Checks every part and puts all in place.
///
/// # Errors
/// A plan that is none, or not that of these inputs; parts that are missing or not as they were made, by name; an
/// output that is there, also from an earlier commit. Nothing changes then, and what workers have made stays.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let document = Readable::read(&options.plan)?;
    match document.kind.as_str() {
        merge::Options::KIND => commit::<merge::Options>(&document, options, progress)
            .map(|report| Report::Merge(Box::new(report))),
        extract::Options::KIND => commit::<extract::Options>(&document, options, progress)
            .map(|report| Report::Extract(Box::new(report))),
        batch::Items::KIND => {
            commit::<batch::Items>(&document, options, progress).map(Report::Batch)
        }
        kind => Err(document::unknown_kind(kind)).in_file(&options.plan),
    }
}

fn commit<S: Shared<Open: Sync>>(
    document: &Readable,
    options: &Options,
    progress: &dyn Progress,
) -> Result<<S::Open as Parts>::Report> {
    let job = document.job::<S>().in_file(&options.plan)?;
    let open = job.open(&options.plan, options.threads).in_file(&options.plan)?;
    let parts = open.parts.parts();
    progress.begin(parts.iter().map(|part| part.bytes).sum());
    let committed = || open.parts.is_committed();
    let staging = SharedStaging::of_others(open.parts.place(), &open.digest, committed)?;
    let look = |(number, part): (usize, &PartOf)| {
        let note = staging.recall(&note_name(number)).and_then(|text| Note::read(&text));
        let state = note.as_ref().map(|note| open.parts.look(number, note, &staging));
        progress.advance(part.bytes);
        (state.unwrap_or(State::Missing), note)
    };
    let pool = thread_pool(options.threads)?;
    let found: Vec<_> = pool.install(|| parts.par_iter().enumerate().map(look).collect());
    let notes = all_whole(&parts, found).in_file(&options.plan)?;
    open.parts.finish(notes, staging, open.force)
}

/// The notes of all parts, in their order.
///
/// # Errors
/// [`JobError::Unfinished`], which names all that are not whole.
fn all_whole(parts: &[PartOf], found: Vec<(State, Option<Note>)>) -> Result<Vec<Note>> {
    let (mut notes, mut missing, mut altered) = (Vec::new(), Vec::new(), Vec::new());
    for (part, (state, note)) in parts.iter().zip(found) {
        match (state, note) {
            (State::Whole | State::Failed, Some(note)) => notes.push(note),
            (State::Altered, _) => altered.push(part.name.clone()),
            _ => missing.push(part.name.clone()),
        }
    }
    if missing.is_empty() && altered.is_empty() {
        return Ok(notes);
    }
    Err(JobError::Unfinished { missing, altered, parts: parts.len() }.into())
}
