//! A 16-bit base as an adapter was trained on it (QLoRA): its linear layers as their codes would be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::quantised::{self, Base, Origin};
use crate::adapter::orientation::Orientations;
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::ops::merge::Options;
use crate::ops::shared::names::{is_embedding, is_head};
use crate::weight::{TRAINED, Trained, Weights, as_trained, tied};

/// What of a base is as an adapter was trained on it, and no longer as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AsTrained {
    /// What the trainer kept the base in.
    pub scheme: String,
    /// How many weights it had quantised.
    pub weights: usize,
    /// Matrices that it had not: embeddings, the head, routers.
    pub others: Vec<String>,
    /// ‖as trained − stored‖ / ‖stored‖ of these weights, once they have been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<f64>,
}

/// The base as it was trained on, and what was made so.
///
/// # Errors
/// If the base is quantised already or a GGUF file; if nothing in it would be quantised, or a layer lies the other
/// way round.
pub(in crate::ops::merge) fn read(
    options: &Options,
    scheme: &str,
    base: Checkpoint,
) -> Result<(Base, AsTrained, Trained)> {
    let path = base.path.clone();
    let unfit = |reason: String| Err(ErrorKind::BadOption(reason)).in_file(&path);
    let setting = TRAINED.iter().find(|setting| setting.name == scheme);
    let Some(setting) = setting else {
        let names: Vec<&str> = TRAINED.iter().map(|setting| setting.name).collect();
        return unfit(format!("--as-trained takes {}, not `{scheme}`", names.join(", ")));
    };
    let base = quantised::read(base)?;
    if base.checkpoint.is_gguf() || base.weights.quantised().next().is_some() {
        let reason = "--as-trained is for the 16-bit base that was quantised while the adapter was trained; a \
                      quantised one needs no option";
        return unfit(reason.to_owned());
    }
    let checkpoint = base.decoded()?;
    let (mut quantised, mut others) = (BTreeSet::new(), Vec::new());
    let known = Orientations::of(&checkpoint, &options.open.orientation)?;
    let tied = tied::find(&checkpoint)?;
    for name in checkpoint.names() {
        let Some(view) = checkpoint.tensor(name) else { continue };
        let (module, [_, _]) = (name.strip_suffix(".weight"), view.spec.shape.as_slice()) else {
            continue;
        };
        let is_tied = tied
            .as_ref()
            .is_some_and(|tied| [&tied.head, &tied.embedding].contains(&&name.to_owned()));
        match module.filter(|module| is_linear(module) && !is_tied) {
            Some(_) if element_type(view.spec.dtype).is_none() => {}
            Some(_) if known.weight(name)? => {
                let mut reason = format!("`{name}` is stored as inputs × outputs, ");
                let _ = write!(reason, "of which bitsandbytes quantises the transpose");
                return unfit(reason);
            }
            Some(_) => {
                quantised.insert(name.to_owned());
            }
            None => others.push(name.to_owned()),
        }
    }
    if quantised.is_empty() {
        return unfit(format!("--as-trained {scheme} finds no linear layer in it"));
    }
    let named = checkpoint
        .names()
        .filter_map(|name| Some((name.to_owned(), checkpoint.tensor(name)?.spec.dtype)));
    let named: BTreeMap<_, _> = named.filter(|(name, _)| quantised.contains(name)).collect();
    let (checkpoint, trained) = as_trained(checkpoint, setting, |name| quantised.contains(name))?;
    let origin = Origin::Trained;
    let base = Base { origin, named, ..Base::new(checkpoint, Weights::default(), None) };
    let weights = trained.count();
    let report = AsTrained { scheme: scheme.to_owned(), weights, others, moved: None };
    Ok((base, report, trained))
}

/// Whether a module with a matrix is a linear layer that transformers has bitsandbytes quantise: no table of vectors,
/// no output head, no router of experts (which transformers holds as a parameter).
fn is_linear(module: &str) -> bool {
    const ROUTERS: [&str; 2] = ["gate", "router"];
    let last = module.rsplit(['.', '/']).next().unwrap_or(module);
    !is_embedding(last) && !is_head(last) && !ROUTERS.contains(&last)
}
