//! collect: many adapters of one model in little space, as what their updates share and a small core each.
//!
//! `build` finds the directions that the updates of a module share (`math/linalg/joint.rs`) and writes a store;
//! `add` puts an adapter into one, `export` takes one out as a plain adapter, `info` says what is there.
//! `docs/collections.md` describes the files.

mod add;
mod bases;
mod batch;
mod build;
mod codes;
mod common;
mod cores;
mod document;
mod export;
mod fit;
mod info;
mod members;
mod options;
mod report;
mod sources;
mod survey;

pub use add::{AddOptions, add};
pub use build::{Collect, plan};
pub use export::{ExportOptions, Exported, export};
pub use info::info;
pub use options::{Number, Options};
pub use report::{Entry, Info, Planned, Report};
