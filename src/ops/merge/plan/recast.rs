//! A base whose result is in the other container: GGUF as transformers' checkpoint, or the other way round.

use std::path::Path;
use std::sync::Arc;

use super::options::{Options, Quantized};
use super::quantised::{Base, read};
use crate::adapter::recast::{Recast, as_gguf, as_transformers};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::ops::shared::base::open_stored;
use crate::weight::{Weights, numbers};

/// The base that is merged into: the stored one, or with `--reference` the one that the result is like.
///
/// # Errors
/// As [`read`]; if the reference is none, or its model is another.
pub(in crate::ops::merge) fn open(options: &Options, stored: Checkpoint) -> Result<Base> {
    let Some(path) = &options.reference else { return read(stored) };
    let bad = |reason: &str| Err(ErrorKind::BadOption(reason.to_owned())).in_file(path);
    if options.receipt.is_some() {
        return bad(
            "a receipt is of a result with the base's names: leave out --receipt, and keep the base",
        );
    }
    if options.quantized != Quantized::SixteenBit {
        return bad("with --reference all weights are written anew: leave out --quantized");
    }
    let reference = open_stored(path, "a reference", &[], options.open.access)?;
    match (stored.is_gguf(), options.is_gguf(), reference.is_gguf()) {
        (true, false, false) => {
            let weights = Weights::of(&stored)?;
            let found = as_transformers(numbers(stored)?, numbers(reference)?)?;
            Ok(base(found, Some(weights)))
        }
        (false, true, true) => Ok(base(as_gguf(numbers(stored)?, reference)?, None)),
        (true, false, true) => bad("a GGUF base takes the names of a checkpoint of transformers'"),
        (false, true, false) => bad(
            "a result in GGUF takes names, metadata and tokenizer of a GGUF file of the same base",
        ),
        _ => bad(
            "--reference does nothing here: it is for a base in GGUF whose result is not, or for -o OUT.gguf",
        ),
    }
}

fn base(found: Recast, stored: Option<Weights>) -> Base {
    let Recast { checkpoint, weights, source } = found;
    Base::recast(checkpoint, stored.unwrap_or(weights), Arc::clone(&source))
}

/// What is copied from where a result in GGUF keeps bytes.
pub(in crate::ops::merge) fn kept_from(options: &Options) -> &Path {
    options.reference.as_deref().filter(|_| options.is_gguf()).unwrap_or(&options.base)
}
