//! The values of one checkpoint under the names, and in the files, of another: a model before it was quantised, laid
//! out as its quantised sibling is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Stored;
use crate::error::{ErrorKind, Locate, PairError, Result};
use crate::format::{Checkpoint, Computed, TensorSpec, TensorView};

/// `sibling`, each of whose tensors has the values of that of `values` which `names` has for it. What `names` does
/// not have keeps its own.
///
/// # Errors
/// [`PairError::Sibling`], if the shapes of two differ.
pub(crate) fn relabelled(
    sibling: Checkpoint,
    values: &Checkpoint,
    names: &BTreeMap<String, String>,
) -> Result<Checkpoint> {
    let mut headers = Vec::with_capacity(sibling.shards.len());
    for (number, shard) in sibling.shards.iter().enumerate() {
        let prefix = sibling.component_of(number).map_or("", |found| found.prefix.as_str());
        let (mut header, mut computed) = (shard.header.clone(), shard.computed.clone());
        for spec in &mut header.tensors {
            let full = format!("{prefix}{}", spec.name);
            let Some(name) = names.get(&full) else { continue };
            let view = values.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            if view.spec.shape != spec.shape {
                let (sibling, base) = (spec.shape.clone(), view.spec.shape.clone());
                return Err(PairError::Sibling { sibling, base })
                    .in_tensor(&full)
                    .in_file(&shard.path);
            }
            *spec = TensorSpec {
                dtype: view.spec.dtype,
                end: spec.start + view.spec.bytes(),
                ..spec.clone()
            };
            computed.insert(spec.name.clone(), lent(name, view));
        }
        headers.push((header, computed));
    }
    sibling.with_headers(headers)
}

/// A tensor's bytes, apart from the checkpoint that it is in.
fn lent(name: &str, view: TensorView<'_>) -> Arc<dyn Computed> {
    let computed = view.shard.computed.get(&view.spec.name);
    computed.cloned().unwrap_or_else(|| Arc::new(Lent(Stored::new(name, view))))
}

/// Bytes as they are stored elsewhere.
#[derive(Debug)]
struct Lent(Stored);

impl Computed for Lent {
    fn bytes(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = self.0.bytes(range.start as usize..range.end as usize, &mut scratch)?;
        out.clear();
        out.extend_from_slice(bytes);
        Ok(())
    }
}
