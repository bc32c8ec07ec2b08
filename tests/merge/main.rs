//! Adapters baked into base weights, held to golden files, laws and plain f64 references.
#![allow(clippy::disallowed_methods, reason = "tests read what they have written")]

#[path = "../common/mod.rs"]
mod common;

mod as_trained;
mod components;
mod elementwise;
mod embeddings;
mod experts;
mod factored;
#[cfg(feature = "hub")]
mod fetch;
mod field;
mod gguf_out;
mod gguf_recast;
mod gguf_sets;
mod golden;
mod laws;
mod locations;
mod many_machines;
mod methods_merge;
mod names;
mod orientation;
mod places;
mod plans;
mod provenance;
mod quantised;
mod quantised_once;
mod quantised_rules;
mod reference;
mod requantised;
mod residual;
mod same_bytes;
mod stacks;
mod touched;
mod tuned;
mod verifying;
