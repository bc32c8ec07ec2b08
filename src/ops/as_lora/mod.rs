//! Any adapter as plain LoRA, whatever its family: every module's update as factors of a rank.
//!
//! Where an update has exact factors (`origin.rs` says so), their SVD is cut to the rank. An update that is stored
//! whole, or that the base's weights go into (DoRA, OFT, IA3, …), is read by rows and decomposed without ever being
//! held, the latter through the same steps as a merge. The error that is reported is the measured one.

mod compute;
mod modules;
mod open;
mod options;
mod origin;
mod report;
mod run;

pub use open::AsLora;
pub use options::Options;
pub use report::{ModuleReport, Report};
pub use run::plan;
