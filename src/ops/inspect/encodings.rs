//! What the weights of a quantised checkpoint are stored as.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Result;
use crate::format::Checkpoint;
use crate::weight::{Weight, Weights};

/// Weights of a quantised checkpoint that are stored alike.
#[derive(Debug, Default, Serialize)]
pub struct EncodingItem {
    /// The encoding's name; `plain` for what is not quantised.
    pub encoding: &'static str,
    /// Bits and groups, or the dtype.
    pub detail: String,
    /// How many weights.
    pub weights: usize,
    /// Their values.
    pub parameters: u64,
    /// Bytes of their codes, scales and all else.
    pub bytes: u64,
    /// Bits that a value takes.
    pub bits: f64,
    /// The first of them, by name.
    pub first: String,
}

/// The weights of a checkpoint by encoding, and their values; `None`, if none is quantised.
///
/// # Errors
/// If its quantised weights cannot be read.
pub(super) fn encodings(file: &Checkpoint) -> Result<Option<(Vec<EncodingItem>, u64)>> {
    let weights = Weights::of(file)?;
    if weights.quantised().next().is_none() {
        return Ok(None);
    }
    let values = |weight: &Weight| weight.elements() as u64;
    let mut encodings: BTreeMap<(&str, &str), EncodingItem> = BTreeMap::new();
    for weight in weights.iter() {
        let new = || EncodingItem {
            encoding: weight.encoding,
            detail: weight.detail.clone(),
            first: weight.name.clone(),
            ..EncodingItem::default()
        };
        let item = encodings.entry((weight.encoding, &weight.detail)).or_insert_with(new);
        item.weights += 1;
        item.parameters += values(weight);
        item.bytes += weight.stored_bytes();
        item.bits = item.bytes as f64 * 8.0 / item.parameters.max(1) as f64;
    }
    Ok(Some((encodings.into_values().collect(), weights.iter().map(values).sum())))
}
