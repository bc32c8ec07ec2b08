//! Talking to the user: results on stdout, everything else on stderr, colours and bars only where
//! they are wanted, and hostile names made harmless.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lora_tool::error::{harmless, short};
use lora_tool::format::remote::as_written;
use lora_tool::ops::Progress;
use serde::Serialize;

use super::Failure;

/// What a bar counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// Bytes, with their rate.
    Bytes,
    /// Any other measure of work, as a share.
    Steps,
}

/// Where and how to print; decided once.
pub(crate) struct Terminal {
    quiet: bool,
}

impl Terminal {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// Prints a report.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        out.write_all(harmless(&as_written(text)).as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a report as JSON, whatever else is quiet: it was asked for.
    pub(crate) fn json(&self, report: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(report).map_err(std::io::Error::other)?;
        text.push('\n');
        let mut out = anstream::stdout().lock();
        out.write_all(as_written(&text).as_bytes())?;
        Ok(out.flush()?)
    }

    /// Writes bytes as they are, whatever else is quiet: another program reads them.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    pub(crate) fn warning(&self, text: &str) {
        if !self.quiet {
            label("warning", AnsiColor::Yellow, text);
        }
    }

    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            // With stderr gone there is nobody left to tell.
            let _ = writeln!(anstream::stderr().lock(), "{}", harmless(&as_written(text)));
        }
    }

    /// A note before anyone knows how the verb is to speak.
    pub(crate) fn tell(text: &str) {
        Self::new(false).note(text);
    }

    pub(crate) fn error(&self, failure: &Failure) {
        match failure {
            Failure::Output(error) => {
                label("error", AnsiColor::Red, &format!("standard output: {error}"));
                let done = lora_tool::format::committed();
                if !done.is_empty() {
                    let done: Vec<_> = done.iter().map(|path| path.display().to_string()).collect();
                    let hint = format!(
                        "only the report is lost: {} is complete and in place",
                        done.join(", ")
                    );
                    label("hint", AnsiColor::Cyan, &hint);
                }
            }
            Failure::Tool(error) => {
                label("error", AnsiColor::Red, &error.to_string());
                if let Some(hint) = error.hint() {
                    label("hint", AnsiColor::Cyan, &hint);
                }
            }
        }
    }

    /// A bar on a terminal, silence elsewhere.
    pub(crate) fn progress(&self, what: &'static str, unit: Unit) -> Box<dyn Progress> {
        if self.quiet || !std::io::stderr().is_terminal() {
            return Box::new(());
        }
        Box::new(Bar::new(what, unit))
    }
}

fn label(name: &str, color: AnsiColor, text: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    // Indented, what follows a line end cannot pose as a label.
    let text = harmless(&short(&as_written(text))).replace("\n  ", "\n").replace('\n', "\n  ");
    let mut err = anstream::stderr().lock();
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(err, "{style}{name}:{style:#} {text}");
}

struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new(what: &'static str, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = match unit {
            Unit::Bytes => {
                "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} eta {eta}"
            }
            Unit::Steps => "{msg} {bar:30} {percent} % eta {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar }
    }
}

impl Progress for Bar {
    fn begin(&self, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_position(0);
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
