//! A base that is quantised once, as a quantised checkpoint of the same model is: its values under the names, and in
//! the files, of that sibling. Everything else of a merge then sees a quantised base all of whose weights change.

use std::collections::BTreeMap;

use super::quantised::{self, Base, Origin};
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, PairError, Result};
use crate::format::{Checkpoint, Dtype};
use crate::ops::shared::pairing;
use crate::weight::{Weights, decoded, relabelled};

/// The base as its sibling lays it out, and the checkpoint that its values are in.
///
/// # Errors
/// If the two are not of one model, or nothing in the sibling is quantised; if either is damaged.
pub(in crate::ops::merge) fn read(
    base: Checkpoint,
    sibling: Checkpoint,
) -> Result<(Base, Checkpoint)> {
    let values = quantised::read(base)?.decoded()?;
    let (path, is_gguf) = (sibling.path.clone(), sibling.is_gguf());
    let weights = Weights::of(&sibling)?;
    if weights.quantised().next().is_none() {
        let reason = "--quantize-like names a checkpoint that is not quantised".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&path);
    }
    if is_gguf && !values.is_gguf() {
        let reason = "a base in safetensors has other names than a quantised GGUF file: convert it with \
                      llama.cpp's convert_hf_to_gguf.py --outtype f16 and merge into that";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&path);
    }
    let form = decoded(sibling, &weights)?;
    let names = names(&form, &values).in_file(&path)?;
    let named = dtypes(&form);
    let checkpoint = relabelled(form, &values, &names)?;
    let origin = Origin::Sibling;
    let base = Base { origin, named, ..Base::new(checkpoint, weights, None) };
    Ok((base, values))
}

/// The base's name of every tensor that the sibling has as numbers.
fn names(sibling: &Checkpoint, base: &Checkpoint) -> Result<BTreeMap<String, String>> {
    let paired = pairing::paired(sibling, base)?;
    // A head of its own in the base is lost where the sibling has it as its embedding.
    let parted = paired.head.as_ref().filter(|head| head.parted).map(|head| &head.tuned);
    let (missing, extra) = (paired.only_base.len(), paired.only_tuned.len());
    let first = paired.only_base.first().or(paired.only_tuned.first()).or(parted);
    if let Some(first) = first.cloned() {
        let extra = extra + usize::from(parted.is_some());
        return Err(PairError::SiblingNames { missing, extra, first }.into());
    }
    Ok(paired.pairs.into_iter().map(|pair| (pair.base, pair.tuned)).collect())
}

/// The dtypes of what the sibling does not quantise.
fn dtypes(sibling: &Checkpoint) -> BTreeMap<String, Dtype> {
    let named = sibling.names().filter_map(|name| Some((name, sibling.tensor(name)?)));
    let plain = named.filter(|(_, view)| !view.is_computed());
    let plain = plain.map(|(name, view)| (name.to_owned(), view.spec.dtype));
    plain.filter(|(_, dtype)| element_type(*dtype).is_some()).collect()
}
