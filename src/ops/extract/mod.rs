//! extract: a fine-tuned checkpoint minus its base → an adapter.
//!
//! The difference is streamed through a randomised SVD (`math/linalg/sketch.rs`) and never held; the
//! error that is reported is the true one, from the exact norm of the difference.

mod compute;
pub(super) mod depth;
mod note;
mod open;
mod options;
mod pair;
mod rehearse;
mod report;
mod run;
mod share;

pub(in crate::ops) use open::task;
pub use open::{Extract, Plan};
pub use options::{Options, RankChoice};
pub(in crate::ops) use pair::modules_of;
pub use pair::{Form, Pair};
pub use report::{LeftOut, ModuleReport, Report};
pub use run::plan;
