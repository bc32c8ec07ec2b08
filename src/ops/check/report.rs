//! What `check` answers.

use std::path::PathBuf;

use serde::Serialize;

use super::place::Place;
use super::rule::Effect;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The program refuses the adapter, or its numbers are none.
    Breaks,
    /// The program loads it, and computes something else.
    Changes,
    /// Nobody knows.
    Unknown,
    /// Nothing is wrong.
    Note,
}

impl From<Effect> for Severity {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Refused => Self::Breaks,
            Effect::Unknown => Self::Unknown,
            Effect::Note => Self::Note,
            _ => Self::Changes,
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The program; none where it is the adapter's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<&'static str>,
    /// The rule's name.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What the program does with it.
    pub effect: Effect,
    /// What it is.
    pub says: String,
    /// Where: modules, tensors and fields by name; empty for the adapter as a whole.
    pub places: Vec<Place>,
    /// Where the program's source says so.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub source: &'static str,
    /// The command that puts it right, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Whether it breaks or changes what a program makes of the adapter.
    pub(super) fn is_grave(&self) -> bool {
        matches!(self.severity, Severity::Breaks | Severity::Changes)
    }
}

/// An answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Nothing is wrong.
    Yes,
    /// Something is.
    No,
    /// Nobody knows.
    Unknown,
}

/// What one program makes of the adapter.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The program.
    pub program: &'static str,
    /// The version that was judged.
    pub version: String,
    /// Whether it loads the adapter right.
    pub answer: Answer,
    /// What it does: `loads`, or the gravest of what its rules found.
    pub verdict: &'static str,
    /// Modules that it would not load as they were trained, and all.
    pub modules: (usize, usize),
    /// Flags that the server needs.
    pub needs: Vec<String>,
    /// The one command that puts all of it right, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The adapter.
    pub adapter: PathBuf,
    /// The base it was held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<PathBuf>,
    /// The adapter's convention; none if it could not be read.
    pub convention: &'static str,
    /// Whether all is well.
    pub ok: bool,
    /// The answer that the exit code gives.
    pub answer: Answer,
    /// Each program's verdict.
    pub programs: Vec<Verdict>,
    /// All findings, the adapter's own first.
    pub findings: Vec<Finding>,
}
