//! One run of the command: what holds for every verb, and the ways in which a verb speaks.

use std::time::Instant;

use lora_tool::ops::Progress;
use serde::Serialize;

use super::Failure;
use super::terminal::{Shown, Terminal, Unit};

/// What a verb is given beside its arguments.
pub(crate) struct Session {
    terminal: Terminal,
    started: Instant,
    /// Threads that compute; 0 for one a core.
    pub(crate) threads: usize,
    /// Say more: every module and tensor.
    pub(crate) verbose: bool,
}

/// A report with the command it belongs to.
#[derive(Serialize)]
struct Named<'a, T> {
    tool: &'static str,
    version: &'static str,
    command: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

impl Session {
    pub(crate) fn new(quiet: bool, progress: Shown, verbose: bool, threads: usize) -> Self {
        Self { terminal: Terminal::new(quiet, progress), started: Instant::now(), threads, verbose }
    }

    /// Prints a report: as one JSON object if that was asked for, else as `text` makes it.
    pub(crate) fn answer<T: Serialize>(
        &self,
        command: &'static str,
        json: bool,
        report: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if json {
            let (tool, version) = ("lora-tool", env!("CARGO_PKG_VERSION"));
            self.terminal.json(&Named { tool, version, command, report })
        } else {
            self.terminal.print(&text(report))
        }
    }

    /// Prints a line or more for people.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        self.terminal.print(text)
    }

    /// Prints bytes as they are: what another program reads.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.terminal.raw(bytes)
    }

    /// Shows warnings on standard error.
    pub(crate) fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.terminal.warning(warning);
        }
    }

    /// Shows a line of progress on standard error.
    pub(crate) fn note(&self, text: &str) {
        self.terminal.note(text);
    }

    /// Shows what went wrong on standard error.
    pub(crate) fn error(&self, failure: &Failure) {
        self.terminal.error(failure);
    }

    /// Says on standard error how long the run took, where that is long enough to be told.
    pub(crate) fn took(&self) {
        self.terminal.took(self.started.elapsed());
    }

    /// A bar of bytes on a terminal, a line every ten seconds elsewhere.
    pub(crate) fn bytes(&self, what: &'static str) -> Box<dyn Progress> {
        self.terminal.progress(what, Unit::Bytes)
    }

    /// A bar of work that is not measured in bytes.
    pub(crate) fn steps(&self, what: &'static str) -> Box<dyn Progress> {
        self.terminal.progress(what, Unit::Steps)
    }
}
