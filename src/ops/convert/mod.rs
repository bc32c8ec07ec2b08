//! convert: the same update in another convention's file. The engine is `adapter/convert/`; here
//! are its options, the order of its steps, and its report.

pub(super) mod input;
mod options;
mod run;

pub use crate::adapter::convert::ModuleReport;
pub use options::Options;
pub use run::{Convert, Report, plan};
