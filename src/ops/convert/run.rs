//! A conversion from the options to the report.

use std::path::PathBuf;

use serde::Serialize;

use super::input::{self, Input, target};
use super::options::Options;
use crate::adapter::Adapter;
use crate::adapter::convention::Convention;
use crate::adapter::convert::{BaseFacts, Checked, Conversion, Goal, ModuleReport, reexpress};
use crate::adapter::layout::MadeOf;
use crate::adapter::save::NewAdapter;
use crate::adapter::write;
use crate::error::{ErrorKind, Locate, Result};
use crate::ops::check::program::ProgramVersion;
use crate::ops::{Progress, check};

/// What a conversion will do, or did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether nothing was written: the rest is what would be.
    pub dry_run: bool,
    /// Where the result is.
    pub output: PathBuf,
    /// The adapter's convention.
    pub from: &'static str,
    /// The result's.
    pub to: &'static str,
    /// The program that it is written for, if it is for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The modules.
    pub modules: Vec<ModuleReport>,
    /// The largest relative error of a module's delta; none if anything was left out, since then only
    /// the base could tell.
    pub max_relative_error: Option<f64>,
    /// The same of what was kept.
    pub kept_relative_error: f64,
    /// What the target cannot hold and was left out.
    pub lost: Vec<String>,
    /// Bytes of the result's tensor file.
    pub bytes: u64,
    /// Flags that the program's server needs for the result; known once it is written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// A conversion with its adapter open.
#[derive(Debug)]
pub struct Convert {
    /// What will be, or is.
    pub report: Report,
    adapter: Adapter,
    target: &'static Convention,
    new: NewAdapter,
    sources: Vec<MadeOf>,
    base: BaseFacts,
    modelfile: bool,
    options: Options,
}

/// Opens the adapter and decides every module's name, tensors and scale.
///
/// # Errors
/// What is wrong with the adapter, names that cannot be known, what would be lost, and an output that
/// cannot be started.
pub fn plan(options: &Options) -> Result<Convert> {
    let Input { program, convention, base, mut adapter } = input::open(options)?;
    let target = target(convention, program.as_ref(), adapter.convention)?;
    let takes = program.as_ref().map(ProgramVersion::takes);
    let modelfile = takes.is_some_and(|takes| takes.modelfile);
    check_ending(target, modelfile, options)?;
    let reference = options.reference.as_deref();
    let (allow_loss, access) = (options.allow_loss, options.open.access);
    let goal = Goal { target, program: takes, reference, allow_loss, access };
    input::check(options, &mut adapter)?;
    let Conversion { new, reports, sources, lost } = reexpress(&adapter, goal, &base)?;
    let report = Report {
        dry_run: false,
        output: options.output.clone(),
        from: adapter.convention.name,
        to: target.name,
        program: options.program.clone(),
        modules: reports,
        max_relative_error: None,
        kept_relative_error: 0.0,
        lost,
        bytes: 0,
        needs: Vec::new(),
    };
    Ok(Convert { report, adapter, target, new, sources, base, modelfile, options: options.clone() })
}

/// Fails unless the output is called as what will be written.
fn check_ending(target: &'static Convention, modelfile: bool, options: &Options) -> Result<()> {
    let output = &options.output;
    if !modelfile {
        return write::check_ending(target, output);
    }
    let reason = if options.reference.is_none() {
        "a Modelfile names the base; give it: --reference BASE"
    } else if output.extension().is_some_and(|end| end == "gguf" || end == "safetensors") {
        "for this program a directory is written, of adapter.gguf and a Modelfile; give a path without an ending, or --to gguf without --for"
    } else {
        return Ok(());
    };
    Err(ErrorKind::BadOption(reason.to_owned())).in_file(output)
}

impl Convert {
    /// What would be written, and how large it would be; how exact only a result can tell.
    ///
    /// # Errors
    /// What the convention cannot hold.
    pub fn preview(mut self) -> Result<Report> {
        self.report.bytes = self.new.encode(self.target)?.file_bytes()?;
        self.report.dry_run = true;
        Ok(self.report)
    }

    /// Writes the result, opens it again, and compares every module before it takes its place.
    ///
    /// # Errors
    /// I/O; [`crate::error::ConvertError::Differs`], if a delta is not what it was. Nothing is left then.
    pub fn run(mut self, progress: &dyn Progress) -> Result<Report> {
        progress.begin(self.report.modules.len() as u64);
        let checked = Checked {
            from: &self.adapter,
            inputs: &[&self.adapter.file],
            target: self.target,
            sources: &self.sources,
            base: &self.base,
            access: self.options.open.access,
            modelfile: self.options.reference.as_deref().filter(|_| self.modelfile),
        };
        let (output, force) = (&self.options.output, self.options.force);
        let (staging, bytes) =
            checked.stage(&self.new, &mut self.report.modules, (output, force), &|| {
                progress.advance(1);
            })?;
        let errors = self.report.modules.iter().map(|module| module.relative_error);
        let worst = errors.fold(0.0, f64::max);
        self.report.kept_relative_error = worst;
        self.report.max_relative_error = self.report.lost.is_empty().then_some(worst);
        self.adapter.file.check_unchanged()?;
        staging.commit()?;
        self.report.bytes = bytes;
        if let Some(program) = &self.report.program {
            self.report.needs = check::needs(&self.report.output, program);
        }
        Ok(self.report)
    }
}
