//! convert: the same update in another convention's file. The engine is `adapter/convert/`; here
//! are its options, the order of its steps, and its report.

use std::path::PathBuf;

use serde::Serialize;

use super::check::program::{self, Program};
use super::shared::base::check_reference;
use super::{Progress, check_output, files_of};
use crate::adapter::convention::{self, Convention};
pub use crate::adapter::convert::ModuleReport;
use crate::adapter::convert::{BaseFacts, Checked, Conversion, Goal, complete, reexpress};
use crate::adapter::layout::Source;
use crate::adapter::save::NewAdapter;
use crate::adapter::write;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, Result};

/// What to convert, and to what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The convention's name; empty for the program's.
    pub to: String,
    /// The program that shall load the result, by name.
    pub program: Option<String>,
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

/// What a conversion will do, or did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Where the result is.
    pub output: PathBuf,
    /// The adapter's convention.
    pub from: &'static str,
    /// The result's.
    pub to: &'static str,
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
    let program = options.program.as_deref().map(program::by_name).transpose()?;
    let asked = named(&options.to)?;
    check_output(&options.output, [options.adapter.as_path()], options.force)?;
    let (reference, access) = (options.reference.as_deref(), options.open.access);
    check_reference(reference, access)?;
    let base = BaseFacts::of(reference, access)?;
    let open = OpenOptions { heads: base.heads, experts: base.experts, ..options.open.clone() };
    let mut adapter = Adapter::open(&options.adapter, &open)?;
    let target = target(asked, program, adapter.convention)?;
    let modelfile = program.is_some_and(|program| program.takes.modelfile);
    check_ending(target, modelfile, options)?;
    let takes = program.map(|program| &program.takes);
    let allow_loss = options.allow_loss;
    let goal = Goal { target, program: takes, reference, allow_loss, access };
    adapter.sound()?;
    adapter.check_finite()?;
    if let Some(reference) = &options.reference {
        complete(&mut adapter, reference, options.open.access)?;
    }
    let files = files_of(&adapter);
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    let Conversion { new, reports, sources, lost } = reexpress(&adapter, goal, &base)?;
    let report = Report {
        output: options.output.clone(),
        from: adapter.convention.name,
        to: target.name,
        modules: reports,
        max_relative_error: None,
        kept_relative_error: 0.0,
        lost,
        bytes: 0,
    };
    Ok(Convert { report, adapter, target, new, sources, base, modelfile, options: options.clone() })
}

/// The convention of a name; none of an empty one.
pub(super) fn named(name: &str) -> Result<Option<&'static Convention>> {
    let known = convention::by_name(name);
    if name.is_empty() || known.is_some() {
        return Ok(known);
    }
    let names = convention::names(true);
    Err(ErrorKind::BadOption(format!("convention `{name}` is unknown; there are {names}")).into())
}

/// The convention to write: the one asked for, else of the program's that of the adapter, else its first.
pub(super) fn target(
    asked: Option<&'static Convention>,
    program: Option<&'static Program>,
    own: &'static Convention,
) -> Result<&'static Convention> {
    let Some(program) = program else {
        return asked.ok_or_else(|| {
            ErrorKind::BadOption("neither a convention nor a program is given".to_owned()).into()
        });
    };
    let takes = program.takes.conventions;
    if let Some(asked) = asked {
        if takes.contains(&asked.name) {
            return Ok(asked);
        }
        let takes = takes.join(", ");
        let reason = format!("{} loads {takes}, not {}; leave out --to", program.name, asked.name);
        return Err(ErrorKind::BadOption(reason).into());
    }
    let name = takes.iter().find(|name| **name == own.name).or_else(|| takes.first());
    let found = name.and_then(|name| convention::by_name(name));
    found.ok_or_else(|| ErrorKind::NotFound.into())
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
        Ok(self.report)
    }
}
