//! One verb a file: its arguments, how they become the library's options, and how it runs.

pub(crate) mod batch;
pub(crate) mod check;
mod clean;
pub(crate) mod collect;
pub(crate) mod combine;
pub(crate) mod commit;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
mod definition;
pub(crate) mod diff;
pub(crate) mod extract;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod metadata;
pub(crate) mod methods;
mod registry;
pub(crate) mod resize;
pub(crate) mod run;
pub(crate) mod shared_work;
pub(crate) mod tune;
pub(crate) mod undo;
pub(crate) mod verify;
pub(crate) mod work;

pub(crate) use definition::Verb;
pub(crate) use registry::Command;
