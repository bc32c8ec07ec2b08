//! Adapters made from adapters or from checkpoints: `combine`, `resize`, `run`, `extract`, `undo`.
#![allow(clippy::disallowed_methods, reason = "tests read what they have written")]

#[path = "../common/mod.rs"]
mod common;

mod auto;
mod batches;
mod batches_refused;
mod collections;
mod combine_peft;
mod combining;
mod dynamic;
mod extract;
mod extract_shared;
mod golden_combine;
mod golden_extract;
mod laws_combine;
mod methods_combine;
mod one_model;
mod pairs;
mod recipe_options;
mod recipes;
mod tune;
mod undo;
mod undo_damage;
