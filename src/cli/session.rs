//! One run of the command: what holds for every verb, and the ways in which a verb speaks.

use std::time::Instant;

use lora_tool::ops::Progress;
use serde::Serialize;

use super::Failure;
use super::outcome::Said;
use super::terminal::{Shown, Terminal, Unit};

/// What a verb is given beside its arguments.
pub(crate) struct Session {
    terminal: Terminal,
    started: Instant,
    asked: Asked,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(flatten)]
    report: &'a T,
}

impl<'a, T: Serialize> Named<'a, T> {
    /// A report by this version; `command` is unknown where the command line names none.
    fn new(command: Option<&'a str>, report: &'a T) -> Self {
        Self { tool: "lora-tool", version: env!("CARGO_PKG_VERSION"), command, report }
    }
}

/// What holds of an answer before the verb has begun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Whether the answer is to be JSON.
    pub(crate) json: bool,
    /// The verb, where the command line names one.
    pub(crate) command: Option<String>,
    /// The command line, as a shell reads it.
    pub(crate) line: String,
}

impl Asked {
    /// Prints why there is no report, where JSON was asked for: who reads it finds one object in any case.
    pub(crate) fn refuse(&self, said: &Said) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        Terminal::json(&Named::new(self.command.as_deref(), said))
    }
}

impl Session {
    pub(crate) fn new(
        quiet: bool,
        progress: Shown,
        verbose: bool,
        threads: usize,
        asked: Asked,
    ) -> Self {
        let terminal = Terminal::new(quiet, progress);
        Self { terminal, started: Instant::now(), asked, threads, verbose }
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
            Terminal::json(&Named::new(Some(command), report))
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

    /// The command line, as a shell reads it.
    pub(crate) fn line(&self) -> &str {
        &self.asked.line
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

    /// Shows what went wrong on standard error, and as JSON where the report was to be that.
    pub(crate) fn error(&self, failure: &Failure) {
        if let Failure::Tool(error) = failure {
            // What cannot be printed on standard output stands on standard error below.
            let _ = self.asked.refuse(&error.into());
        }
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
