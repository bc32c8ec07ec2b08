//! What is refused, and what is left on disk when a run fails, is killed or is attacked.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
#[cfg(unix)]
mod attacks;
mod base;
mod combine;
mod configs;
#[cfg(unix)]
mod faults;
mod files;
#[cfg(unix)]
mod interrupt;
mod merge;
mod outputs;
mod paths;
mod recipes;
#[cfg(unix)]
mod resume;
