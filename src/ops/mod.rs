//! Verbs, one a file: `Options` (plain data) → `plan()` → `run()` → `Report`.
//!
//! **Invariants:** `plan` reads headers and the adapters' factors, never base data, and raises every
//! error a user can cause. The library never prints: warnings are values in the report. Nothing here
//! knows clap, colours, or stdout.

pub mod as_lora;
pub mod batch;
pub mod check;
pub mod clean;
pub mod collect;
pub mod combine;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod diff;
pub mod extract;
pub mod inspect;
pub mod job;
pub mod list;
pub mod merge;
pub mod metadata;
mod receipt;
pub mod resize;
pub mod run;
pub mod shared;
pub mod tune;
pub mod undo;
pub mod verify;
pub mod work;
mod write;

pub use crate::math::amount;
pub use shared::base::named_base;
pub(crate) use shared::inputs::{files_of, open_adapters, open_adapters_for_base};
pub use shared::output::check_output;
pub(crate) use shared::pool::thread_pool;
pub use shared::progress::Progress;
pub use shared::{param_rules, rules};
