//! A quantised checkpoint as an unquantised one: what reads checkpoints reads this the same way. Its quantised weights
//! are F32 tensors whose bytes are decoded when they are asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::format::{Access, Checkpoint, Computed, Dtype, Metadata, TensorSpec};

use super::model::COMFY_METADATA;
use super::{Weight, Weights};

/// Bytes of one element of a decoded weight.
const SIZE: u64 = 4;

/// Scales of quantised keys and values.
const CACHE_SCALES: [&str; 2] = [".k_scale", ".v_scale"];

/// Opens a checkpoint, its quantised weights decoded.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Weights::of`].
pub fn open(path: &Path, access: Access) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(path, access)?;
    let weights = Weights::of(&checkpoint)?;
    decoded(checkpoint, &weights)
}

/// The same checkpoint, its quantised weights decoded and their companions gone. One without any is left as it is.
///
/// # Errors
/// If two weights have one name.
pub fn decoded(checkpoint: Checkpoint, weights: &Weights) -> Result<Checkpoint> {
    if weights.quantised().next().is_none() {
        return Ok(checkpoint);
    }
    // A weight takes the place of its codes, in the order of the file's tensors.
    let mut by_codes = BTreeMap::new();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for weight in weights.quantised() {
        for (at, part) in weight.parts.iter().enumerate() {
            if at == 0 {
                by_codes.insert(part.name.as_str(), weight);
            } else {
                gone.insert(&part.name);
            }
        }
    }
    let mut headers = Vec::with_capacity(checkpoint.shards.len());
    for (number, shard) in checkpoint.shards.iter().enumerate() {
        let prefix = checkpoint.component_of(number).map_or("", |found| found.prefix.as_str());
        let mut header = shard.header.clone();
        let mut computed = BTreeMap::new();
        header.blocks.clear();
        header.tensors.clear();
        for spec in &shard.header.tensors {
            let full = format!("{prefix}{}", spec.name);
            let gone = gone.contains(full.as_str()) || weights.markers.contains(&full);
            if gone || (!by_codes.contains_key(full.as_str()) && is_of_the_cache(spec)) {
                continue;
            }
            let Some(weight) = by_codes.get(full.as_str()) else {
                header.tensors.push(spec.clone());
                continue;
            };
            let name = weight.name.strip_prefix(prefix).unwrap_or(&weight.name).to_owned();
            let length = weight.elements() as u64 * SIZE;
            header.tensors.push(TensorSpec {
                name: name.clone(),
                dtype: Dtype::F32,
                shape: weight.shape.clone(),
                start: spec.start,
                end: spec.start + length,
            });
            let tensor = Arc::new(Panels { weight: (*weight).clone() }) as Arc<dyn Computed>;
            computed.insert(name, tensor);
        }
        headers.push((header, computed));
    }
    checkpoint.with_headers(headers)
}

/// Whether it is a scale of the keys' or values' cache, which only loaders of the scheme know.
fn is_of_the_cache(spec: &TensorSpec) -> bool {
    spec.elements() == 1 && CACHE_SCALES.iter().any(|ending| spec.name.ends_with(ending))
}

/// What a file's metadata says of it once its weights are plain numbers; of a GGUF file nothing but that it is a
/// model's, since its pairs describe another container.
pub fn plain_metadata(checkpoint: &Checkpoint, metadata: &Metadata) -> Metadata {
    if checkpoint.is_gguf() {
        return Metadata::from_iter([("format".to_owned(), "pt".to_owned())]);
    }
    let mut metadata = metadata.clone();
    metadata.shift_remove(COMFY_METADATA);
    metadata
}

/// Puts the bytes of `range` into `out`, of numbers from that on in whose bytes it begins.
pub(super) fn put(values: &[f32], range: &Range<u64>, out: &mut Vec<u8>) {
    let (length, within) = ((range.end - range.start) as usize, (range.start % SIZE) as usize);
    let count = (within + length).div_ceil(SIZE as usize);
    let values = values.get(..count).unwrap_or(values);
    out.resize(values.len() * SIZE as usize, 0);
    // Four bytes at a time: byte for byte it takes longer than all decoding.
    for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    out.drain(..within.min(out.len()));
    out.truncate(length);
}

thread_local! {
    /// The panel that a thread has decoded last: its room serves for the next one.
    static VALUES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A weight's bytes as F32.
#[derive(Debug)]
struct Panels {
    weight: Weight,
}

impl Computed for Panels {
    fn bytes(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let columns = self.weight.matrix().1.max(1);
        let first = (range.start / SIZE) as usize / columns;
        let end = (range.end.div_ceil(SIZE) as usize).div_ceil(columns);
        let skip = (range.start / SIZE) as usize - first * columns;
        VALUES.with_borrow_mut(|values| {
            values.resize((end - first) * columns, 0.0);
            self.weight.rows(first..end, values)?;
            put(values.get(skip..).unwrap_or_default(), &range, out);
            Ok(())
        })
    }

    fn grain(&self) -> usize {
        self.weight.grain()
    }
}
