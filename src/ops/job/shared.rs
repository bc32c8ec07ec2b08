//! What a verb says of work that is shared out.

use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::InputFile;
use super::note::{Note, State};
use crate::error::{Error, ErrorKind, JobError, Result};
use crate::format::shared_staging::SharedStaging;
use crate::format::staging::is_there;
use crate::ops::{Progress, check_output};

/// What was asked, of a verb whose work can be shared out.
pub(in crate::ops) trait Shared: Serialize + DeserializeOwned {
    /// The verb, as the document names it.
    const KIND: &'static str;
    /// What will be made, as data.
    type Plan: Serialize + DeserializeOwned;
    /// The same with its inputs open.
    type Open: Parts<Plan = Self::Plan>;

    /// Opens the inputs and plans again; `planned` is what was planned before, and `document` the file that says so.
    ///
    /// # Errors
    /// Whatever planning says.
    fn open(&self, planned: Self::Plan, document: &Path) -> Result<Self::Open>;

    /// Whether an output that is there may be replaced.
    fn force(&self) -> bool;
}

/// A plan whose parts can be made, its inputs open.
pub(in crate::ops) trait Parts {
    /// What will be made, as data.
    type Plan;
    /// What was done.
    type Report;

    /// What will be made, as data.
    fn plan(&self) -> &Self::Plan;

    /// All parts, with the bytes by which they are shared out.
    fn parts(&self) -> Vec<PartOf>;

    /// The path beside which the parts wait.
    fn place(&self) -> &Path;

    /// Whether what is planned stands where it is to be.
    fn is_committed(&self) -> bool {
        is_there(self.place())
    }

    /// Fails if an output is there and was not to be replaced, or cannot be where it is to be.
    ///
    /// # Errors
    /// [`JobError::Exists`], and those of [`check_output`].
    fn check_output(&self, force: bool) -> Result<()>;

    /// Makes a part, and says what was made; a file of it lies in its place when it is whole.
    ///
    /// # Errors
    /// Reading and writing, and what the verb says of values.
    fn make(&self, number: usize, at: &Workplace<'_>) -> Result<Note>;

    /// What has become of a part that was noted so.
    fn look(&self, number: usize, note: &Note, staging: &SharedStaging) -> State;

    /// How many parts are made at once by so many threads.
    fn at_once(&self, threads: usize) -> usize;

    /// Why a part could not be made, if that is what was noted.
    fn why_failed(&self, note: &Note) -> Option<String> {
        let _ = note;
        None
    }

    /// Puts all parts in place; their notes are in the order of the parts.
    ///
    /// # Errors
    /// An output that is there, reading and writing; nothing is lost then.
    fn finish(self, notes: Vec<Note>, staging: SharedStaging, force: bool) -> Result<Self::Report>;
}

/// One part of the work.
#[derive(Debug)]
pub(in crate::ops) struct PartOf {
    /// What it makes, in a few words.
    pub(in crate::ops) name: String,
    /// Bytes by which parts are shared out.
    pub(in crate::ops) bytes: u64,
}

/// Where a part is made, and with what.
pub(in crate::ops) struct Workplace<'a> {
    pub(in crate::ops) staging: &'a SharedStaging,
    pub(in crate::ops) pool: &'a ThreadPool,
    /// Threads for each of the parts that are made at once.
    pub(in crate::ops) threads: usize,
    pub(in crate::ops) progress: &'a dyn Progress,
}

/// Fails if an output is not where one may be, or is there and was not to be replaced.
///
/// # Errors
/// [`JobError::Exists`], and those of [`check_output`].
pub(in crate::ops) fn check_free(output: &Path, inputs: &[PathBuf], force: bool) -> Result<()> {
    let inputs = inputs.iter().map(PathBuf::as_path);
    check_output(output, inputs, force).map_err(|error| match error.kind() {
        ErrorKind::OutputExists => Error::from(JobError::Exists).in_file(output),
        _ => error,
    })
}

/// What a verb gives to be written down.
pub(in crate::ops) struct ToShare<S: Shared> {
    pub(in crate::ops) options: S,
    pub(in crate::ops) inputs: Vec<InputFile>,
    pub(in crate::ops) open: S::Open,
    /// Where the result will be.
    pub(in crate::ops) output: PathBuf,
    /// What a user should know.
    pub(in crate::ops) warnings: Vec<String>,
}
