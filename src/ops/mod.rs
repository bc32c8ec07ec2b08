//! Verbs, one a file: `Options` (plain data) → `plan()` → `run()` → `Report`.
//!
//! **Invariants:** `plan` reads headers and the adapters' factors, never base data, and raises every
//! error a user can cause. The library never prints: warnings are values in the report. Nothing here
//! knows clap, colours, or stdout.

mod base;
pub mod check;
pub mod combine;
pub mod compare;
pub mod convert;
pub mod diff;
pub mod extract;
pub mod inspect;
pub mod merge;
pub mod metadata;
pub mod options;
pub mod param_rules;
mod provenance;
mod receipt;
pub mod resize;
pub mod rules;
pub mod run;
mod selection;
pub mod undo;
pub mod verify;
mod write;

use std::path::{Path, PathBuf};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::adapter::scale::{ScaleOverride, ScaleSource};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::staging::check_target;
use merge::AdapterInput;

pub use crate::math::amount;

/// What a running verb tells of its progress. `()` is silent.
pub trait Progress: Sync {
    /// Work of so many bytes begins.
    fn begin(&self, _bytes: u64) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
}

impl Progress for () {}

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

/// Threads that compute; one a core for 0.
///
/// # Errors
/// [`ErrorKind::Threads`], if the system does not start them.
pub(crate) fn thread_pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| ErrorKind::Threads(error.to_string()).into())
}

/// Every file that is read of an adapter: its tensors, and its config.
pub(crate) fn files_of(adapter: &Adapter) -> Vec<PathBuf> {
    let shards = adapter.file.shards.iter().map(|shard| shard.path.clone());
    shards.chain(adapter.config_path.clone()).collect()
}

/// Fails if the output is, contains, or lies inside an input, or could not be started.
///
/// # Errors
/// [`ErrorKind::OutputInInput`], and those of [`check_target`].
pub fn check_output<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
    force: bool,
) -> Result<()> {
    let real = resolve_new(output);
    for input in inputs {
        let Ok(other) = input.canonicalize() else { continue };
        if real.starts_with(&other) || other.starts_with(&real) {
            return Err(ErrorKind::OutputInInput { input: input.to_path_buf() }).in_file(output);
        }
    }
    check_target(output, force)
}

/// The absolute path of something that may not exist yet: its nearest existing ancestor resolved.
fn resolve_new(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut current = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    loop {
        if let Ok(real) = current.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (current.file_name().map(ToOwned::to_owned), current.parent()) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                current = parent.to_path_buf();
            }
            _ => return path.to_path_buf(),
        }
    }
}
