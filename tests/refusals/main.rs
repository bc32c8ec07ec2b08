//! What is refused, and what is left on disk when a run fails, is killed or is attacked.
#![allow(clippy::disallowed_methods, reason = "tests read what they have written")]

#[path = "../common/mod.rs"]
mod common;

mod adapters;
#[cfg(unix)]
mod attacks;
mod base;
mod clean;
mod combine;
mod configs;
#[cfg(unix)]
mod faults;
mod files;
#[cfg(unix)]
mod hostile;
#[cfg(unix)]
mod interrupt;
mod merge;
mod outputs;
mod paths;
#[cfg(unix)]
mod permissions;
mod recipes;
#[cfg(unix)]
mod resume;
mod selection;
