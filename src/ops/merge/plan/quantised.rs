//! A quantised base: read as its numbers, and written as plain numbers where anything changes one of its quantised
//! weights. Where nothing does, every tensor keeps its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::binder::Bound;
use super::gguf_types::Type;
use super::options::{Options, Quantized};
use super::recoding::Recoding;
use super::step::Change;
use crate::error::{Error, ErrorKind, QuantError, Result};
use crate::format::{Checkpoint, Component, Dtype, TensorView, json};
use crate::weight::element::{is_float, of_torch_name};
use crate::weight::{Stored, Weight, Weights, Writing, decoded};

/// Quantised weights that are written as plain numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dequantised {
    /// How many.
    pub weights: usize,
    /// What they are stored as in the base.
    pub encodings: Vec<String>,
    /// Bytes of their codes, scales and all else in the base.
    pub stored_bytes: u64,
    /// Their bytes in the result.
    pub written_bytes: u64,
    /// Their dtypes in the result.
    pub dtypes: Vec<String>,
}

/// Weights that are quantised again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Requantised {
    /// How many.
    pub weights: usize,
    /// What they are stored as.
    pub encodings: Vec<String>,
    /// The quantised checkpoint whose scheme they have, where the base's are not quantised so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<PathBuf>,
    /// How they are written.
    #[serde(flatten)]
    pub writing: Writing,
    /// What of each one's update must survive.
    pub min_survival: f64,
    /// What types of a GGUF file become, and of how many weights each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, usize>,
}

/// A base, its quantised weights decoded.
#[derive(Debug)]
pub(in crate::ops::merge) struct Base {
    /// What is read: the decoded checkpoint, or the stored one once it is settled that nothing has to be decoded.
    pub(in crate::ops::merge) checkpoint: Checkpoint,
    pub(super) weights: Weights,
    /// Where weights keep their codes though some change: which do.
    pub(in crate::ops::merge) recoding: Option<Recoding>,
    /// Why its quantised weights cannot be decoded.
    pub(super) unread: Option<Error>,
    /// Whose numbers it has.
    pub(super) origin: Origin,
    /// Dtypes of tensors of the result that are not those of what is read.
    pub(super) named: BTreeMap<String, Dtype>,
    /// Where its numbers are, if it has the names of another checkpoint than it is stored in.
    pub(in crate::ops::merge) recast: Option<Arc<Checkpoint>>,
}

/// Whose the numbers of a base are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its own.
    #[default]
    Stored,
    /// Those of a 16-bit base, under the names of its quantised sibling.
    Sibling,
    /// Its own, as an adapter was trained on them.
    Trained,
}

/// Decodes a base's quantised weights. One in a scheme that is known and not read stays as it is stored: what is not
/// quantised in it can still change.
///
/// # Errors
/// If the quantised weights are damaged; the tensor is named.
pub(in crate::ops::merge) fn read(stored: Checkpoint) -> Result<Base> {
    let unsupported =
        |error: &Error| matches!(error.kind(), ErrorKind::Quant(QuantError::Unsupported { .. }));
    match Weights::of(&stored) {
        Ok(weights) => {
            let checkpoint = decoded(stored, &weights)?;
            Ok(Base::new(checkpoint, weights, None))
        }
        Err(error) if unsupported(&error) && !stored.is_gguf() => {
            let weights = Weights::default();
            Ok(Base::new(stored, weights, Some(error)))
        }
        Err(error) => Err(error),
    }
}

impl Base {
    pub(super) fn new(checkpoint: Checkpoint, weights: Weights, unread: Option<Error>) -> Self {
        let (origin, named) = (Origin::Stored, BTreeMap::new());
        Self { checkpoint, weights, recoding: None, unread, origin, named, recast: None }
    }

    /// One with the names of another checkpoint: its weights as they are written, or as they were stored.
    pub(super) fn recast(
        checkpoint: Checkpoint,
        weights: Weights,
        source: Arc<Checkpoint>,
    ) -> Self {
        Self { recast: Some(source), ..Self::new(checkpoint, weights, None) }
    }

    /// Of a base that cannot be decoded, what is to be said where something does not fit it.
    pub(in crate::ops::merge) fn explain(&mut self, error: Error) -> Error {
        self.unread.take().unwrap_or(error)
    }

    /// The checkpoint alone, which must have been decoded.
    ///
    /// # Errors
    /// If it could not be.
    pub(super) fn decoded(self) -> Result<Checkpoint> {
        self.unread.map_or(Ok(self.checkpoint), Err)
    }

    /// Takes the base as it is stored, if nothing changes any of its quantised weights.
    ///
    /// # Errors
    /// If one changes and that was to be refused; if tensors of a scheme that is not read
    /// would be converted; if the base cannot be opened again.
    pub(in crate::ops::merge) fn settle(
        &mut self,
        options: &Options,
        bound: &Bound,
        raised: &BTreeMap<String, Type>,
        open: impl Fn() -> Result<Checkpoint>,
    ) -> Result<()> {
        if let Some(error) = self.unread.take_if(|_| options.dtype.is_some()) {
            return Err(error);
        }
        if self.origin == Origin::Trained {
            return options.check_writing();
        }
        if self.origin == Origin::Sibling {
            options.check_writing()?;
            let all = self.weights.quantised().map(|weight| weight.name.clone()).collect();
            let sibling = (open()?, self.weights.clone());
            self.recoding = Some(Recoding::new(options, sibling, &all, (bound, raised))?);
            return Ok(());
        }
        if self.recast.is_some() && !options.is_gguf() {
            return options.check_writing();
        }
        let touched = self.touched(bound);
        let may_change = options.quantized != Quantized::Refuse || touched.is_empty();
        if options.is_gguf() && self.checkpoint.is_gguf() && may_change {
            options.check_writing()?;
            let touched = touched.iter().map(|weight| weight.name.clone()).collect();
            let base = (open()?, self.weights.clone());
            self.recoding = Some(Recoding::new(options, base, &touched, (bound, raised))?);
            return Ok(());
        }
        let Some(first) = touched.first() else {
            // GGUF's blocks have no place in a safetensors file.
            if self.checkpoint.is_computed() && !self.checkpoint.is_gguf() {
                self.checkpoint = open()?;
            }
            return Ok(());
        };
        options.check_writing()?;
        if options.quantized == Quantized::Refuse {
            let reason = format!(
                "the base's `{}` changes and is quantised ({}, {}), which --quantized refuse does not allow",
                first.name, first.encoding, first.detail
            );
            return Err(ErrorKind::BadOption(reason).into());
        }
        if matches!(options.quantized, Quantized::Requantize | Quantized::Hybrid) {
            let touched = touched.iter().map(|weight| weight.name.clone()).collect();
            let base = (open()?, self.weights.clone());
            self.recoding = Some(Recoding::new(options, base, &touched, (bound, raised))?);
        }
        Ok(())
    }

    /// The quantised weights that the result holds otherwise than the base.
    fn touched(&self, bound: &Bound) -> Vec<&Weight> {
        if self.recast.is_some() {
            return self.weights.iter().collect();
        }
        let changed = bound.changes.iter().filter(|(_, change)| !Change::is_empty(change));
        let untied = bound.untied.iter().map(|tied| &tied.embedding);
        let names = changed.map(|(name, _)| name).chain(untied);
        let weights = names.filter_map(|name| {
            self.checkpoint.tensor(name).filter(TensorView::is_computed)?;
            self.weights.get(name)
        });
        weights.collect()
    }

    /// What becomes of its quantised weights, for the report; `None` if they are not decoded. `tensors` are the
    /// result's: the base tensor that each is made of, its dtype and its bytes.
    pub(in crate::ops::merge) fn dequantised<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a str, Dtype, u64)>,
    ) -> Option<Dequantised> {
        let is_whole = self.recast.is_some() && self.recoding.is_some();
        if !self.checkpoint.is_computed() || self.origin != Origin::Stored || is_whole {
            return None;
        }
        let computed = |base: &str| self.checkpoint.tensor(base).is_some_and(|v| v.is_computed());
        let written: Vec<_> = tensors.filter(|(base, ..)| computed(base)).collect();
        let names: BTreeSet<&str> = written.iter().map(|(base, ..)| *base).collect();
        if names.is_empty() && self.recoding.is_some() {
            return None;
        }
        let all = || self.weights.quantised();
        let quantised = || all().filter(|weight| is_whole || names.contains(weight.name.as_str()));
        let name = |weight: &Weight| format!("{}, {}", weight.encoding, weight.detail);
        let distinct = |texts: BTreeSet<String>| texts.into_iter().collect();
        Some(Dequantised {
            weights: quantised().count(),
            encodings: distinct(quantised().map(name).collect()),
            stored_bytes: quantised().map(Weight::stored_bytes).sum(),
            written_bytes: written.iter().map(|(_, _, bytes)| bytes).sum(),
            dtypes: distinct(written.iter().map(|(_, dtype, _)| dtype.to_string()).collect()),
        })
    }

    /// Weights that are quantised again, for the report; `None` if none are.
    pub(in crate::ops::merge) fn requantised(&self, options: &Options) -> Option<Requantised> {
        let again: Vec<&Weight> = self.recoding.as_ref()?.again().collect();
        let names = again.iter().map(|weight| format!("{}, {}", weight.encoding, weight.detail));
        (!again.is_empty()).then(|| Requantised {
            weights: again.len(),
            encodings: names.collect::<BTreeSet<_>>().into_iter().collect(),
            like: options.quantize_like.clone(),
            writing: options.writing,
            min_survival: options.min_survival.0,
            types: self.recoding.as_ref().map(Recoding::raised).unwrap_or_default(),
        })
    }

    /// The dtypes of the result's tensors.
    ///
    /// # Errors
    /// If a config cannot be read.
    pub(in crate::ops::merge) fn dtypes(&self, options: &Options) -> Result<Dtypes> {
        let is_decoded = self.checkpoint.is_computed();
        let lone = self.checkpoint.directory().is_none();
        let components = self.checkpoint.components.iter().filter(|_| is_decoded);
        let plain = components.map(|component| plain_dtype(component, lone));
        let is_own = self.origin == Origin::Stored;
        let is_kept = !is_decoded || self.recoding.is_some() || !is_own;
        let parts = self.weights.quantised().filter(|_| is_kept);
        let parts = parts.flat_map(|weight| &weight.parts).map(|part: &Stored| part.name.clone());
        Ok(Dtypes {
            asked: options.dtype,
            plain: plain.collect::<Result<_>>()?,
            parts: parts.collect(),
            named: self.named.clone(),
            is_kept,
        })
    }
}

/// What decides the dtype of each tensor of a result.
#[derive(Debug)]
pub(in crate::ops::merge) struct Dtypes {
    asked: Option<Dtype>,
    /// Of each component's quantised weights, where they are written as numbers and no dtype is asked for.
    plain: Vec<Dtype>,
    /// Codes and scales that stay as they are stored.
    parts: BTreeSet<String>,
    /// Of tensors whose dtype is another checkpoint's.
    named: BTreeMap<String, Dtype>,
    /// Whether any weights of the result are quantised, if any of the base are.
    is_kept: bool,
}

impl Dtypes {
    /// The dtype of what is made of a base tensor.
    pub(in crate::ops::merge) fn of(
        &self,
        component: usize,
        name: &str,
        base: TensorView<'_>,
    ) -> Dtype {
        let stored = base.spec.dtype;
        match self.asked {
            _ if self.parts.contains(name) && !base.is_computed() => stored,
            None if self.named.contains_key(name) => {
                self.named.get(name).copied().unwrap_or(stored)
            }
            Some(asked) if is_float(stored) => asked,
            _ if base.is_computed() => self.plain.get(component).copied().unwrap_or(stored),
            _ => stored,
        }
    }

    /// The dtype that a component's config has to name, if it may be another than it names.
    pub(in crate::ops::merge) fn of_config(&self, component: usize) -> Option<Dtype> {
        self.asked.or_else(|| self.plain.get(component).copied().filter(|_| !self.is_kept))
    }

    /// Whether the result still has quantised weights, and is to be described so.
    pub(in crate::ops::merge) fn is_kept(&self) -> bool {
        self.is_kept
    }
}

/// The dtype that a component's config names for its weights, if it is one of plain numbers; BF16 otherwise.
fn plain_dtype(component: &Component, lone: bool) -> Result<Dtype> {
    let config = if lone { None } else { json::model_config(&component.directory)? };
    let text = config.as_ref().and_then(|config| config.get("text_config")?.as_object());
    let mut places = config.iter().chain(text);
    let named = places.find_map(|config| {
        ["torch_dtype", "dtype"].iter().find_map(|key| config.get(*key)?.as_str())
    });
    Ok(named.and_then(of_torch_name).unwrap_or(Dtype::BF16))
}
