//! Adapters baked into base weights, held to golden files, laws and plain f64 references.

#[path = "../common/mod.rs"]
mod common;

mod components;
mod elementwise;
mod embeddings;
mod experts;
mod golden;
mod laws;
mod methods_merge;
mod places;
mod reference;
mod same_bytes;
mod tuned;
mod verifying;
