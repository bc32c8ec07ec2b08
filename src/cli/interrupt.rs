//! Ctrl-C and SIGTERM: the run ends at once, and its temporaries go with it.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

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
    listen(sender.clone());
    let run = move || {
        // The other end is gone only when a signal came first.
        let code = panic::catch_unwind(AssertUnwindSafe(verb)).unwrap_or(PANICKED);
        let _ = sender.send(End::Done(code));
    };
    if thread::Builder::new().stack_size(STACK).spawn(run).is_err() {
        return ExitCode::from(2);
    }
    match receiver.recv() {
        Ok(End::Done(code)) => ExitCode::from(code),
        Ok(End::Signal(number)) => {
            lora_tool::format::abandon();
            ExitCode::from(128 + number)
        }
        // Only a thread that never ran leaves nothing to receive.
        Err(_) => ExitCode::from(PANICKED),
    }
}

/// How a run ends.
enum End {
    /// The verb came to its end, with this exit code.
    Done(u8),
    /// A signal came first.
    Signal(u8),
}

#[cfg(unix)]
fn listen(sender: mpsc::Sender<End>) {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    // Without a handler the signals end the process as they always do.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for number in signals.forever() {
            let _ = sender.send(End::Signal(u8::try_from(number).unwrap_or(0)));
        }
    });
}

#[cfg(not(unix))]
fn listen(_: mpsc::Sender<End>) {}
