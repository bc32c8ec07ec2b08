//! One adapter of a collection as a plain adapter.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::bases::Bases;
use super::document::VERSION;
use super::members::Stored;
use crate::adapter::save::{NewAdapter, NewModule};
use crate::error::{Locate, Result};
use crate::format::{Access, Dtype, Metadata};
use crate::math::LowRank;
use crate::math::linalg::matrix::{product, product_transposed};
use crate::ops::{Progress, check_output, thread_pool, write};

/// What to take out of which collection.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// The collection.
    pub store: PathBuf,
    /// The adapter's name in it.
    pub name: String,
    /// Where the adapter goes.
    pub output: PathBuf,
    /// The convention to write; the collection's if `None`.
    pub to: Option<String>,
    /// A base to take names from, where `to` needs it.
    pub reference: Option<PathBuf>,
    /// The factors' dtype; that of the collection's directions if `None`, f32 where these are codes.
    pub dtype: Option<Dtype>,
    /// How the collection is read.
    pub access: Access,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Exported {
    /// Where the adapter is.
    pub output: PathBuf,
    /// Its name in the collection.
    pub name: String,
    /// ‖the adapter's own update − what the collection holds of it‖ / ‖its own update‖.
    pub relative_error: f64,
    /// Modules.
    pub modules: usize,
    /// The largest rank of a module.
    pub rank: usize,
    /// The convention.
    pub convention: &'static str,
    /// Bytes of the tensor file.
    pub bytes: u64,
}

/// Writes an adapter of a collection.
///
/// # Errors
/// What is wrong with the collection, a name that it does not have, an output that cannot be written.
pub fn export(options: &ExportOptions, progress: &dyn Progress) -> Result<Exported> {
    check_output(&options.output, [options.store.as_path()], options.force)?;
    let bases = Bases::open(&options.store, options.access)?;
    let stored = Stored::open(&options.store, &bases, options.access)?;
    let member = stored.member(&options.name)?;
    let native = bases.convention;
    let target = write::convention(options.to.as_deref(), Some(native), &options.output)?;
    let dtype = options.dtype.unwrap_or_else(|| match bases.number.dtype() {
        Dtype::I8 => Dtype::F32,
        dtype => dtype,
    });
    let pool = thread_pool(options.threads)?;
    let modules: Vec<Option<NewModule>> = pool.install(|| {
        let cores = stored.cores(&bases, member)?;
        let modules = cores.par_iter().enumerate().map(|(number, core)| {
            let Some(core) = core else { return Ok(None) };
            let spec = bases.module(number)?;
            let (left, right) = bases.vectors(member.cluster, number)?;
            // Its singular values are shared out over both sides, as every rank that is cut is.
            let core = core.svd().truncate(core.rank());
            let factors =
                LowRank::new(product(&left, &core.up), product_transposed(&core.down, &right));
            let module = NewModule::new(&spec.name, &spec.kind, &factors, 1.0, None, dtype);
            Ok(Some(module.in_tensor(&spec.name)?))
        });
        modules.collect::<Result<_>>()
    })?;
    let modules: Vec<NewModule> = modules.into_iter().flatten().collect();
    let said = json!({ "version": VERSION, "adapter": member.name, "error": member.error });
    let metadata = Metadata::from_iter([
        ("format".to_owned(), "pt".to_owned()),
        ("lora_tool.collection".to_owned(), said.to_string()),
    ]);
    let (count, rank) = (modules.len(), modules.iter().map(|module| module.rank).max());
    let new = NewAdapter {
        modules,
        replacements: Vec::new(),
        metadata,
        config: member.config.clone(),
        stacks: std::collections::BTreeMap::new(),
        target_modules: None,
        kept: None,
    };
    let destination = write::Destination {
        native,
        target,
        program: None,
        reference: options.reference.as_deref(),
        output: &options.output,
        beside: &bases.file.path,
        force: options.force,
    };
    let bytes = destination.write(new, &[&bases.file, &stored.file], progress)?;
    Ok(Exported {
        output: options.output.clone(),
        name: member.name.clone(),
        relative_error: member.error,
        modules: count,
        rank: rank.unwrap_or(0),
        convention: target.name,
        bytes,
    })
}
