//! A quantised base of which some weights keep their codes: those that change are quantised again or become plain
//! numbers, all others are copied as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use super::binder::Bound;
use super::gguf_types::Type;
use super::options::Options;
use crate::error::{ErrorKind, Locate, QuantError, Result};
use crate::format::{Checkpoint, Component};
use crate::weight::{self, EightBit, Weight, Weights, Writing, fused};

/// Which weights of a base become what.
#[derive(Debug)]
pub(in crate::ops::merge) struct Recoding {
    /// The base as it is stored.
    pub(in crate::ops::merge) stored: Checkpoint,
    /// All its weights.
    pub(in crate::ops::merge) weights: Weights,
    /// How those that change are written again; as plain numbers if `None`.
    pub(super) writing: Option<Writing>,
    /// Names of those that change, or are loaded as one with some that do.
    pub(super) changed: BTreeSet<String>,
    /// Of a GGUF result the type of each weight that changes.
    types: BTreeMap<String, Type>,
    /// What those that change become beside others that keep their type.
    pub(super) eight_bit: Option<EightBit>,
    /// Names of those that had codes of another kind before.
    pub(super) retyped: BTreeSet<String>,
}

impl Recoding {
    /// What the options say, for weights that change.
    ///
    /// # Errors
    /// If one of them can only be read, or changes its shape; if the base is a GGUF file.
    pub(in crate::ops::merge) fn new(
        options: &Options,
        (stored, mut weights): (Checkpoint, Weights),
        touched: &BTreeSet<String>,
        (bound, raised): (&Bound, &BTreeMap<String, Type>),
    ) -> Result<Self> {
        let is_gguf = options.is_gguf();
        if stored.is_gguf() && !is_gguf {
            let reason = "a GGUF file's blocks have no place in a safetensors file: use --quantized 16bit, or \
                          -o OUT.gguf";
            return Err(ErrorKind::BadOption(reason.to_owned()).into());
        }
        let mut types = BTreeMap::new();
        for name in touched.iter().filter(|_| is_gguf) {
            let Some(weight) = weights.get(name) else { continue };
            let found = options.types.unwrap_or_default().of(weight, raised)?;
            let weight = weight.written_by(found.writer(weight)?);
            types.insert(name.clone(), found);
            weights.replace(weight);
        }
        let eight_bit = options.eight_bit();
        let again = (options.requantises() && eight_bit.is_none()) || is_gguf;
        for weight in touched.iter().filter(|_| again).filter_map(|name| weights.get(name)) {
            let error = |what: QuantError| match weight.parts.first() {
                Some(codes) => codes.error(what),
                None => what.into(),
            };
            let is_plain = matches!(types.get(&weight.name), Some(Type::Plain(_)));
            if weight.writer().is_none() && !is_plain {
                let encoding = format!("{}, {}", weight.encoding, weight.detail);
                return Err(error(QuantError::Unwritten { encoding }));
            }
            let tied = bound.untied.as_ref().is_some_and(|tied| tied.embedding == weight.name);
            if tied || bound.grown.contains_key(&weight.name) {
                let encoding = "a weight of another shape, or one that was two,".to_owned();
                return Err(error(QuantError::Unwritten { encoding }));
            }
        }
        let changed = if again {
            touched.clone()
        } else {
            let groups: BTreeSet<String> = touched.iter().map(|name| fused(name)).collect();
            let names = weights.quantised().map(|weight| &weight.name);
            names.filter(|name| groups.contains(&fused(name))).cloned().collect()
        };
        let retyped = match eight_bit {
            Some(eight_bit) => retype(&stored, &mut weights, &changed, eight_bit)?,
            None => BTreeSet::new(),
        };
        let writing = Some(options.writing).filter(|_| again || eight_bit.is_some());
        Ok(Self { stored, weights, writing, changed, types, eight_bit, retyped })
    }

    /// The weights that are quantised again.
    pub(in crate::ops::merge) fn again(&self) -> impl Iterator<Item = &Weight> {
        let names = self.changed.iter().filter(|_| self.writing.is_some());
        names.filter_map(|name| self.weights.get(name)).filter(|weight| weight.writer().is_some())
    }

    /// What the types of weights of a GGUF result become, and of how many each.
    pub(in crate::ops::merge) fn raised(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        let retyped = self.retyped.iter().filter_map(|name| self.weights.get(name));
        for (weight, to) in retyped.zip(self.eight_bit.map(EightBit::name).into_iter().cycle()) {
            *found.entry(moved(&weight.detail, to)).or_default() += 1;
        }
        for (name, to) in &self.types {
            let from = self.weights.get(name).map_or("", |weight| weight.detail.as_str());
            *found.entry(moved(from, &to.name())).or_default() += 1;
        }
        found
    }

    /// The type that a weight of a GGUF result has.
    pub(in crate::ops::merge) fn type_of(&self, name: &str) -> Option<Type> {
        self.types.get(name).copied()
    }

    /// Modules of a component that become plain numbers, as configs name them.
    pub(in crate::ops::merge) fn plain_modules(&self, component: &Component) -> Vec<String> {
        let none = BTreeSet::new();
        modules(component, if self.writing.is_none() { &self.changed } else { &none })
    }

    /// Modules of a component that have codes of 8 bits now, and these; `None`, if none have.
    pub(in crate::ops::merge) fn retyped(
        &self,
        component: &Component,
    ) -> Option<(EightBit, Vec<String>)> {
        let modules = modules(component, &self.retyped);
        Some((self.eight_bit?, modules)).filter(|(_, modules)| !modules.is_empty())
    }
}

/// From which type to which, in words.
fn moved(from: &str, to: &str) -> String {
    if from == to { format!("{from}, as before") } else { format!("{from} → {to}") }
}

/// Modules of weights of a component, as configs name them.
fn modules(component: &Component, names: &BTreeSet<String>) -> Vec<String> {
    let own = names.iter().filter_map(|name| name.strip_prefix(&component.prefix));
    own.map(|name| name.strip_suffix(".weight").unwrap_or(name).to_owned()).collect()
}

/// Has weights written in 8 bits. Returns the names of those that had other codes.
///
/// # Errors
/// If their container has no such type beside their own.
fn retype(
    stored: &Checkpoint,
    weights: &mut Weights,
    changed: &BTreeSet<String>,
    eight_bit: EightBit,
) -> Result<BTreeSet<String>> {
    let mut retyped = BTreeSet::new();
    for component in &stored.components {
        let config = match stored.directory() {
            Some(_) => weight::Config::read(&component.directory)?,
            None => weight::Config::default(),
        };
        for name in changed.iter().filter(|name| name.starts_with(&component.prefix)) {
            let Some(weight) = weights.get(name) else { continue };
            let writer = eight_bit.writer(&config, weight).map_err(ErrorKind::BadOption);
            if !eight_bit.is_of(weight) {
                retyped.insert(name.clone());
            }
            let weight = weight.written_by(Some(writer.in_tensor(name)?));
            weights.replace(weight);
        }
    }
    Ok(retyped)
}
