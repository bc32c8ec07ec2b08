//! Adapters as verbs are given them, and how they are opened.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rules::ModuleRules;
use crate::adapter::scale::{ScaleOverride, ScaleSource};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, Result};

/// An adapter as a verb is given it, and how strongly it takes part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterInput {
    /// Its file or directory.
    pub path: PathBuf,
    /// Multiplies its scale.
    pub weight: f64,
    /// What holds for some of its modules only.
    pub rules: ModuleRules,
}

impl AdapterInput {
    /// An adapter whose modules all have one weight.
    pub fn new(path: impl Into<PathBuf>, weight: f64) -> Self {
        Self { path: path.into(), weight, rules: ModuleRules::default() }
    }
}

/// Opens adapters whole: every module sound, every value finite, every weight a number.
///
/// # Errors
/// The first thing that is wrong with any of them, and a scale option that none of them takes.
pub(crate) fn open_adapters(
    inputs: &[AdapterInput],
    options: &OpenOptions,
) -> Result<Vec<Adapter>> {
    open_known(inputs, options, Adapter::sound)
}

/// As [`open_adapters`], for a verb that lists keys of no known grammar as what fits nothing.
///
/// # Errors
/// As [`open_adapters`], but for such keys.
pub(crate) fn open_adapters_for_base(
    inputs: &[AdapterInput],
    options: &OpenOptions,
) -> Result<Vec<Adapter>> {
    open_known(inputs, options, Adapter::modules_sound)
}

fn open_known(
    inputs: &[AdapterInput],
    options: &OpenOptions,
    sound: fn(&mut Adapter) -> Result<()>,
) -> Result<Vec<Adapter>> {
    let mut adapters = Vec::with_capacity(inputs.len());
    for input in inputs {
        if !input.weight.is_finite() {
            return Err(ErrorKind::BadWeight(input.weight)).in_file(&input.path);
        }
        let mut adapter = Adapter::open(&input.path, options)?;
        sound(&mut adapter)?;
        adapter.check_finite()?;
        adapters.push(adapter);
    }
    let given = options.scale != ScaleOverride::default();
    let mut modules = adapters.iter().flat_map(|adapter| &adapter.modules);
    if given && modules.all(|module| module.scale.source != ScaleSource::Option) {
        let reason = "an alpha or scale is given, but every adapter says its own scale".to_owned();
        return Err(ErrorKind::BadOption(reason).into());
    }
    Ok(adapters)
}

/// Every file that is read of an adapter: its tensors, and its config.
pub(crate) fn files_of(adapter: &Adapter) -> Vec<PathBuf> {
    let shards = adapter.file.shards.iter().map(|shard| shard.path.clone());
    shards.chain(adapter.config_path.clone()).collect()
}
