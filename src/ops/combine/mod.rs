//! combine: several adapters → one adapter, by the exact low-rank engine; `resize` is the same with
//! one input. Nothing of the size of a weight is ever formed.

pub(super) mod align;
pub(super) mod auto;
mod card;
mod carry;
mod choose;
mod compute;
mod elements;
mod explore;
pub(super) mod group;
mod module_inputs;
mod open;
mod options;
mod outcome;
mod plan;
mod rank;
pub(super) mod replacements;
mod report;
mod run;
mod stored;
mod sum;

pub use compute::ModuleReport;
pub use explore::Choice;
pub use open::Combine;
pub use options::{ConvScope, OnConflict, Options};
pub use plan::{Plan, PlannedModule};
pub use report::{InputReport, Report};
pub use run::plan;

pub use crate::math::RankPolicy;
pub use crate::method::{Compat, Space};
