//! A candidate's score, by a command of the user's that prints a number.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::quoted;
use crate::error::{ErrorKind, Result};

/// What stands for the candidate adapter in the command.
pub(super) const ADAPTER: &str = "{adapter}";
/// What stands for the base with the candidate merged in.
pub(super) const MODEL: &str = "{model}";

/// Bytes of the command's output that an error shows.
const SHOWN: usize = 300;

/// Runs the command on a candidate: the last word that it prints is the score.
///
/// # Errors
/// A command that cannot be started or fails, or whose last word is no finite number.
pub(super) fn score(command: &str, adapter: &Path, model: &Path) -> Result<f64> {
    let line = command.replace(ADAPTER, &quoted(adapter)).replace(MODEL, &quoted(model));
    let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
    shell.args([if cfg!(windows) { "/C" } else { "-c" }, &line]);
    let failed = |reason: String| ErrorKind::BadOption(format!("--score `{line}`: {reason}"));
    let done = shell.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.map_err(|error| failed(format!("cannot be started: {error}")))?;
    if !done.status.success() {
        return Err(failed(format!("ended with {}", done.status)).into());
    }
    let printed = String::from_utf8_lossy(&done.stdout);
    let last = printed.split_whitespace().next_back().unwrap_or_default();
    match last.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => {
            let shown: String = printed.trim().chars().take(SHOWN).collect();
            let reason =
                format!("its last word is to be the score, a number; it printed `{shown}`");
            Err(failed(reason).into())
        }
    }
}
