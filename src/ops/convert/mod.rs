//! convert: the same update in another convention's file. Tensors are carried as they are wherever the
//! target can hold them; scales that it cannot say go into the factors; what would be lost is an error.

mod fit;
mod fold;
mod kept;
mod native;
mod one;
mod restate;
mod rotations;
mod rows;
mod shape;
mod stored;
mod verify;

use std::path::PathBuf;

use serde::Serialize;

pub(super) use restate::{Base, Checked, How, Restated, restate};

use super::{Progress, check_output, files_of};
use crate::adapter::convention::{self, Convention};
use crate::adapter::layout::Source;
use crate::adapter::save::NewAdapter;
use crate::adapter::write::check_ending;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Result};

/// A program that shall load the result, where it takes less than the convention can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// vLLM: one rank, one scale, factors only.
    Vllm,
}

/// What to convert, and to what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The convention's name.
    pub to: String,
    /// A program with limits of its own.
    pub program: Option<For>,
    /// A base to take names and heads from.
    pub reference: Option<PathBuf>,
    /// Where the result goes.
    pub output: PathBuf,
    /// Leave out what the target cannot hold.
    pub allow_loss: bool,
    /// How the adapter is opened.
    pub open: OpenOptions,
    /// Replace an existing output.
    pub force: bool,
}

/// One module of the result.
#[derive(Debug, Clone, Serialize)]
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

/// What a conversion will do, or did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the result is.
    pub output: PathBuf,
    /// The adapter's convention.
    pub from: &'static str,
    /// The result's.
    pub to: &'static str,
    /// The modules.
    pub modules: Vec<ModuleReport>,
    /// The largest relative error of a module's delta.
    pub max_relative_error: f64,
    /// What the target cannot hold and was left out.
    pub lost: Vec<String>,
    /// Bytes of the result's tensor file.
    pub bytes: u64,
}

/// A conversion with its adapter open.
#[derive(Debug)]
pub struct Convert {
    /// What will be, or is.
    pub report: Report,
    adapter: Adapter,
    target: &'static Convention,
    new: NewAdapter,
    sources: Vec<Source>,
    base: Base,
    options: Options,
}

/// Opens the adapter and decides every module's name, tensors and scale.
///
/// # Errors
/// What is wrong with the adapter, names that cannot be known, what would be lost, and an output that
/// cannot be started.
pub fn plan(options: &Options) -> Result<Convert> {
    let target = convention::by_name(&options.to).ok_or_else(|| {
        let names = convention::names(true);
        ErrorKind::BadOption(format!("convention `{}` is unknown; there are {names}", options.to))
    })?;
    check_ending(target, &options.output)?;
    check_output(&options.output, [options.adapter.as_path()], options.force)?;
    let how = How {
        target,
        program: options.program,
        reference: options.reference.as_deref(),
        allow_loss: options.allow_loss,
        access: options.open.access,
    };
    let base = how.base()?;
    let open = OpenOptions { heads: base.heads, experts: base.experts, ..options.open.clone() };
    let mut adapter = Adapter::open(&options.adapter, &open)?;
    adapter.sound()?;
    adapter.check_finite()?;
    if let Some(reference) = &options.reference {
        shape::complete(&mut adapter, reference, options.open.access)?;
    }
    let files = files_of(&adapter);
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    let Restated { new, reports, sources, lost } = restate(&adapter, how, base)?;
    let report = Report {
        output: options.output.clone(),
        from: adapter.convention.name,
        to: target.name,
        modules: reports,
        max_relative_error: 0.0,
        lost,
        bytes: 0,
    };
    Ok(Convert { report, adapter, target, new, sources, base, options: options.clone() })
}

impl Convert {
    /// Writes the result, opens it again, and compares every module before it takes its place.
    ///
    /// # Errors
    /// I/O; [`crate::error::ConvertError::Differs`], if a delta is not what it was. Nothing is left then.
    pub fn run(mut self, progress: &dyn Progress) -> Result<Report> {
        progress.begin(self.report.modules.len() as u64);
        let checked = Checked {
            from: &self.adapter,
            target: self.target,
            sources: &self.sources,
            base: self.base,
            access: self.options.open.access,
        };
        let (output, force) = (&self.options.output, self.options.force);
        let (staging, bytes) =
            checked.stage(&self.new, &mut self.report.modules, (output, force), progress)?;
        let errors = self.report.modules.iter().map(|module| module.relative_error);
        self.report.max_relative_error = errors.fold(0.0, f64::max);
        self.adapter.file.check_unchanged()?;
        staging.commit()?;
        self.report.bytes = bytes;
        Ok(self.report)
    }
}
