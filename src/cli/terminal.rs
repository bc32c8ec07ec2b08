//! Talking to the user: results on stdout, everything else on stderr, colours and bars only where
//! they are wanted, and hostile names made harmless.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use lora_tool::error::{harmless, short};
use lora_tool::format::remote::as_written;
use lora_tool::ops::Progress;
use serde::Serialize;

use super::Failure;
use super::screen::{laid_out, width};

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
    progress: Shown,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shown {
    /// A bar on a terminal, a line every ten seconds elsewhere
    Auto,
    /// A JSON object a line on standard error, a few a second, for programs
    Json,
    /// Not at all
    None,
}

impl Terminal {
    pub(crate) fn new(quiet: bool, progress: Shown) -> Self {
        Self { quiet, progress }
    }

    /// Prints a report.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        let text = laid_out(&harmless(&as_written(text)), width());
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a report as JSON, whatever else is quiet: it was asked for.
    pub(crate) fn json(report: &impl Serialize) -> Result<(), Failure> {
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
        Self::new(false, Shown::Auto).note(text);
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

    /// A bar on a terminal, a line every ten seconds elsewhere.
    pub(crate) fn progress(&self, what: &'static str, unit: Unit) -> Box<dyn Progress> {
        match (self.progress, std::io::stderr().is_terminal()) {
            (Shown::Json, _) => Box::new(Log::new(what, Log::FOR_PROGRAMS)),
            (Shown::None, _) => Box::new(()),
            _ if self.quiet => Box::new(()),
            (Shown::Auto, true) => Box::new(Bar::new(what, unit)),
            (Shown::Auto, false) => Box::new(Log::new(what, Log::FOR_PEOPLE)),
        }
    }

    /// How long a run took, where that is long enough to be told.
    pub(crate) fn took(&self, time: Duration) {
        const LONG: Duration = Duration::from_secs(2);
        if time >= LONG {
            self.note(&format!("in {}", seconds(time)));
        }
    }
}

/// `12.3 s`, `4 min 5 s`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        all => format!("{} min {} s", all / 60, all % 60),
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
        /// Of less work nobody can tell when all of it will be done.
        const FEW: f32 = 0.02;
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = match unit {
            Unit::Bytes => {
                "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {left}"
            }
            Unit::Steps => "{msg} {bar:30} {percent} % {left}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let left = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                let soon = state.eta() < Duration::from_secs(1);
                if (FEW..1.0).contains(&state.fraction()) && !soon {
                    // Nobody is left to tell of a text that cannot be written.
                    let _ = write!(text, "eta {}", seconds(state.eta()));
                }
            };
            bar.set_style(style.with_key("left", left));
        }
        bar.set_message(what);
        Self { bar }
    }
}

impl Progress for Bar {
    fn phase(&self, name: &'static str) {
        self.bar.set_message(name);
        self.bar.reset_elapsed();
        self.bar.reset_eta();
    }

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

/// Progress for a file or a pipe: a line every ten seconds, none of what is done before; for programs more often.
struct Log {
    /// Milliseconds between two lines.
    every: u64,
    started: Instant,
    phase: Mutex<&'static str>,
    all: AtomicU64,
    done: AtomicU64,
    /// Milliseconds after the start when the next line is due.
    due: AtomicU64,
}

impl Log {
    /// Between two lines that people read.
    const FOR_PEOPLE: u64 = 10_000;
    /// Between two objects that a program reads.
    const FOR_PROGRAMS: u64 = 100;

    fn new(what: &'static str, every: u64) -> Self {
        Self {
            every,
            started: Instant::now(),
            phase: Mutex::new(what),
            all: AtomicU64::new(0),
            done: AtomicU64::new(0),
            due: AtomicU64::new(every),
        }
    }

    /// The line that is due after so much time, if one is.
    fn line(&self, time: Duration) -> Option<String> {
        let (due, now) = (self.due.load(Ordering::Relaxed), time.as_millis() as u64);
        let next = now + self.every;
        let mine = now >= due
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !mine {
            return None;
        }
        let (done, all) = (self.done.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed));
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if self.every == Self::FOR_PROGRAMS {
            return Some(serde_json::json!({"phase": phase, "done": done, "all": all}).to_string());
        }
        let share = if all == 0 { 0.0 } else { done as f64 / all as f64 * 100.0 };
        Some(format!("{phase}: {share:.0} % after {}", seconds(time)))
    }
}

impl Progress for Log {
    fn phase(&self, name: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    fn begin(&self, bytes: u64) {
        self.all.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if let Some(line) = self.line(self.started.elapsed()) {
            Terminal::tell(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_line_every_ten_seconds() {
        let log = Log::new("reading", Log::FOR_PEOPLE);
        log.begin(200);
        log.phase("merging");
        log.done.store(50, Ordering::Relaxed);
        let at = |tenths: u64| log.line(Duration::from_millis(tenths * 100));
        assert_eq!(at(99), None);
        assert_eq!(at(104).as_deref(), Some("merging: 25 % after 10.4 s"));
        assert_eq!(at(150), None);
        assert_eq!(at(654).as_deref(), Some("merging: 25 % after 1 min 5 s"));
        let log = Log::new("merging", Log::FOR_PROGRAMS);
        log.begin(200);
        let line = log.line(Duration::from_millis(150));
        assert_eq!(line.as_deref(), Some(r#"{"phase":"merging","done":0,"all":200}"#));
    }
}
