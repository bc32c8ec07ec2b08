//! The Hugging Face Hub: its repositories in the local cache, and with the feature `hub` their download into it.

mod repository;

#[cfg(feature = "hub")]
mod blob;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;

#[cfg(feature = "hub")]
pub(in crate::format) use download::download;
pub use repository::Say;
pub(in crate::format) use repository::{Repository, roots};
