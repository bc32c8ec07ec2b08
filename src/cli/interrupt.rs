//! Signals: the run ends at once, and its temporaries go with it.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use lora_tool::ErrorKind;

use super::outcome::FAILED;
use super::terminal::{Shown, Terminal};

/// Stack of the thread that runs a verb: what a main thread has.
const STACK: usize = 8 << 20;
/// Exit code of a program that panicked, as Rust has it. The panic has said what it was.
const PANICKED: u8 = 101;

/// Runs `verb` and returns its exit code, or 128 and the number of the signal that came first.
///
/// The verb has a thread of its own, so that this one can leave it behind wherever it is. Returning
/// from `main` ends it; no temporary can appear in between (see [`lora_tool::format::abandon`]).
pub(crate) fn interruptible(verb: impl FnOnce() -> u8 + Send + 'static) -> ExitCode {
    let (sender, receiver) = mpsc::channel();
    listen(&sender);
    let run = move || {
        // The other end is gone only when a signal came first.
        let code = panic::catch_unwind(AssertUnwindSafe(verb)).unwrap_or(PANICKED);
        let _ = sender.send(End::Done(code));
    };
    if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(run) {
        return failed(ErrorKind::Threads(error.to_string()));
    }
    match receiver.recv() {
        Ok(End::Done(code)) => ExitCode::from(code),
        Ok(End::Signal(number)) => {
            lora_tool::format::abandon();
            ExitCode::from(128 + number)
        }
        Ok(End::LostBytes) => {
            lora_tool::format::abandon();
            failed(ErrorKind::CutWhileMapped)
        }
        // Only a thread that never ran leaves nothing to receive.
        Err(_) => ExitCode::from(PANICKED),
    }
}

/// Says what failed, outside any verb.
fn failed(kind: ErrorKind) -> ExitCode {
    Terminal::new(false, Shown::Auto).error(&kind.into());
    ExitCode::from(FAILED)
}

/// How a run ends.
enum End {
    /// The verb came to its end, with this exit code.
    Done(u8),
    /// A signal came first.
    Signal(u8),
    /// A mapped file lost the bytes that were just read.
    LostBytes,
}

/// Has signals sent to `sender`. One that cannot be listened to ends the process as it always does.
#[cfg(unix)]
fn listen(sender: &mpsc::Sender<End>) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;
    use std::io::Read;

    // What the caller ignores, as `nohup` does, stays ignored.
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| !is_ignored(*number));
    if let Ok(mut signals) = Signals::new(heard) {
        let sender = sender.clone();
        let listener = move || {
            for number in signals.forever() {
                let _ = sender.send(End::Signal(u8::try_from(number).unwrap_or(0)));
            }
        };
        let _ = thread::Builder::new().spawn(listener);
    }
    // With any handler, a write beyond the limit of file sizes is an error, which is said as such.
    let _ = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
    let Ok((mut reader, writer)) = std::io::pipe() else { return };
    let sender = sender.clone();
    let listener = move || {
        if reader.read_exact(&mut [0]).is_ok() {
            let _ = sender.send(End::LostBytes);
        }
    };
    if thread::Builder::new().spawn(listener).is_ok() {
        let _ = lora_tool::format::access::stop_at_lost_bytes(writer.into());
    }
}

/// Whether the process was started with this signal ignored; Linux alone can be asked.
#[cfg(unix)]
fn is_ignored(number: i32) -> bool {
    let status = lora_tool::format::access::read_small(std::path::Path::new("/proc/self/status"));
    let status = status.unwrap_or_default();
    let mask = String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen(_: &mpsc::Sender<End>) {}

/// Lets the process open as many files as its user may: a sharded model has hundreds.
#[cfg(unix)]
pub(crate) fn open_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A system that refuses leaves the limit as it was; a file beyond it is an error then.
    let _ = setrlimit(
        Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
}

#[cfg(not(unix))]
pub(crate) fn open_many_files() {}
