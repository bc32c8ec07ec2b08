//! What became of the items of a batch.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Done; of a check, the answer is yes.
    Done,
    /// The answer of a check, or of a verification, is no.
    No,
    /// Nobody knows the answer.
    Unknown,
    /// It could not be done.
    Failed,
    /// Its output was there, and was not looked at.
    Skipped,
    /// It could be done, as far as can be told without doing it.
    Planned,
    /// It was not begun, since another failed.
    Stopped,
}

/// What became of one item.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ItemReport {
    /// Its verb and input.
    pub item: String,
    /// Its verb.
    pub verb: String,
    /// Its line in the file.
    pub line: usize,
    /// Where its result is, or would be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<PathBuf>,
    /// What became of it.
    pub status: Status,
    /// Why it failed, or what is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// What the verb reports.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub report: Option<Value>,
}

/// What became of all items.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The file, or the plan that was made of it.
    pub jobs: PathBuf,
    /// How many were done.
    pub done: usize,
    /// How many could not be done, are not known, or were not begun.
    pub failed: usize,
    /// The items, in the order of the file.
    pub items: Vec<ItemReport>,
}

impl Report {
    pub(super) fn new(jobs: PathBuf, items: Vec<ItemReport>) -> Self {
        let count = |of: &[Status]| items.iter().filter(|item| of.contains(&item.status)).count();
        let (done, failed) = (
            count(&[Status::Done, Status::Planned]),
            count(&[Status::Failed, Status::Unknown, Status::Stopped]),
        );
        Self { jobs, done, failed, items }
    }

    /// Whether an answer was no.
    pub fn has_no(&self) -> bool {
        self.items.iter().any(|item| item.status == Status::No)
    }
}
