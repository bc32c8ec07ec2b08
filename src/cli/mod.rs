//! The binary: arguments → Options, Report → text or JSON, progress, errors. Sees only what is public
//! in the library, and knows no LoRA mathematics.

mod args;
mod command_line;
mod interrupt;
mod method_args;
mod options;
mod outcome;
mod page;
mod render;
mod screen;
mod session;
mod spelling;
mod terminal;
mod verb;

pub(crate) use command_line::{command, parse};
pub(crate) use interrupt::{interruptible, open_many_files};
pub(crate) use outcome::{Answer, FAILED, Failure, Outcome};
pub(crate) use session::Session;
pub(crate) use verb::Verb;
