//! What a conversion shall make of an adapter, and what it made of it.

use std::path::Path;

use serde::Serialize;

use super::base_facts::BaseFacts;
use super::requirements::Takes;
use super::stored::is_factor;
use crate::adapter::convention::{Convention, Key, Part, ScalePlace};
use crate::adapter::layout::MadeOf;
use crate::adapter::save::{NewAdapter, PartTensor};
use crate::error::Result;
use crate::format::Access;

/// What shall be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub(crate) target: &'static Convention,
    /// What a program wants that shall load the result.
    pub(crate) program: Option<&'static Takes>,
    /// A base to take names and heads from.
    pub(crate) reference: Option<&'a Path>,
    pub(crate) allow_loss: bool,
    pub(crate) access: Access,
}

impl Goal<'_> {
    /// What the reference says; nothing without one.
    ///
    /// # Errors
    /// As [`BaseFacts::of`].
    pub(crate) fn base(&self) -> Result<BaseFacts> {
        BaseFacts::of(self.reference, self.access)
    }

    /// Whether the result has a name for a part of a module, and its reader takes it.
    pub(super) fn spells(self, module: &str, part: Part) -> bool {
        let key = Key { module: module.to_owned(), part };
        let takes = self.program.is_none_or(|takes| !takes.factors_only) || is_factor(part);
        takes && self.target.spell(&key).is_some()
    }

    /// Whether all modules have one scale.
    pub(super) fn has_one_scale(self) -> bool {
        self.target.scale == ScalePlace::Uniform || self.program.is_some_and(|takes| takes.uniform)
    }
}

/// One module, before its scale is settled with the others'.
#[derive(Debug)]
pub(super) struct FittedModule {
    /// The modules that it is made of.
    pub(super) from: Vec<String>,
    pub(super) name: String,
    pub(super) rank: usize,
    pub(super) scale: f64,
    pub(super) alpha: Option<f64>,
    pub(super) tensors: Vec<PartTensor>,
    pub(super) factored: Option<&'static str>,
    /// What was folded into the factors of a part of it; 1 if nothing.
    pub(super) folded: f64,
}

/// What became of one module of the result.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ModuleReport {
    /// The modules of the adapter that it is made of; more than one where the target's layout has them
    /// in one, and one may be in several.
    pub from: Vec<String>,
    /// Its name in the result.
    pub to: String,
    /// Its family, where it was turned into plain factors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factored: Option<&'static str>,
    /// What was folded into its factors; 1 if nothing.
    pub folded: f64,
    /// ‖written − original‖ / ‖original‖, once it is written.
    pub relative_error: f64,
}

/// An adapter as it will be written.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub(crate) new: NewAdapter,
    pub(crate) reports: Vec<ModuleReport>,
    /// What each of the new modules is made of.
    pub(crate) sources: Vec<MadeOf>,
    pub(crate) lost: Vec<String>,
}
