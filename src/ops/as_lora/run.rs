//! From the options to the report.

use super::open::AsLora;
use super::options::Options;
use super::report::{ModuleReport, Report};
use super::{compute, origin};
use crate::adapter::Adapter;
use crate::adapter::save::{NewAdapter, NewModule};
use crate::adapter::sidecar::PeftConfig;
use crate::adapter::write::check_ending;
use crate::error::{ConvertError, ErrorKind, FamilyError, Locate, Result};
use crate::format::Checkpoint;
use crate::math::RankPolicy;
use crate::ops::check::program::ProgramVersion;
use crate::ops::combine::{self, align, replacements};
use crate::ops::convert::input::{self, Input, target};
use crate::ops::merge::{self, AdapterInput, Merge};
use crate::ops::{Progress, thread_pool, write};

/// Opens the adapter, and the base where a module needs it, and decides where every update comes from.
///
/// # Errors
/// What is wrong with the adapter, modules that need the base without `reference`, what would be lost, and an output
/// that cannot be started.
pub fn plan(options: &Options) -> Result<AsLora> {
    let Input { program, convention, mut adapter, .. } = input::open(&options.convert)?;
    input::check(&options.convert, &mut adapter)?;
    let native = align::common(std::slice::from_ref(&adapter));
    let target = match (convention, &program) {
        (None, None) => write::convention(None, Some(native), &options.convert.output)?,
        (_, program) => target(convention, program.as_ref(), native)?,
    };
    let takes = program.as_ref().map(ProgramVersion::takes);
    if !takes.is_some_and(|takes| takes.modelfile) {
        check_ending(target, &options.convert.output)?;
    }
    if matches!(options.rank, RankPolicy::Size(_))
        && (native.name != target.name || takes.is_some())
    {
        let reason = format!("a budget of bytes is for the {} convention alone", native.name);
        return Err(ErrorKind::BadOption(reason).into());
    }
    let merge = on_base(&adapter, options)?;
    let (modules, lost) = origin::of_all(&adapter, merge.as_ref(), native)?;
    if !lost.is_empty() && !options.convert.allow_loss {
        return Err(ConvertError::Losses { losses: lost, instead: None }).in_file(&adapter.path);
    }
    if modules.is_empty() {
        return Err(FamilyError::NoFactors).in_file(&adapter.path);
    }
    let carried = combine::Options::default();
    let carried = replacements::replacements(&carried, std::slice::from_ref(&adapter), native)?;
    let report = Report::planned(options, &adapter, target, lost);
    let replacements = carried.replacements;
    let options = options.clone();
    let plan =
        AsLora { report, adapter, merge, modules, replacements, native, target, takes, options };
    plan.destination().rehearse(plan.assemble(plan.zeros()?))?;
    Ok(plan)
}

/// The plan of merging the adapter, if a module's update depends on the base.
fn on_base(adapter: &Adapter, options: &Options) -> Result<Option<Merge>> {
    let dependent: Vec<_> = adapter.modules.iter().filter(|m| origin::needs_base(m)).collect();
    let Some(first) = dependent.first() else { return Ok(None) };
    let Some(reference) = &options.convert.reference else {
        let (modules, family) = (dependent.len(), first.family);
        return Err(ConvertError::NeedsBase { modules, family })
            .in_tensor(&first.name)
            .in_file(&adapter.path);
    };
    merge::prepare(&merge::Options {
        base: reference.clone(),
        adapters: vec![AdapterInput::new(&options.convert.adapter, 1.0)],
        output: options.convert.output.clone(),
        open: options.convert.open.clone(),
        ..merge::Options::default()
    })
    .map(Some)
}

impl AsLora {
    /// Computes all factors and writes the result.
    ///
    /// # Errors
    /// I/O, values that are not finite, a budget that does not reach; nothing is left at the output's path then.
    pub fn run(mut self, progress: &dyn Progress) -> Result<Report> {
        let (new, reports) = self.computed(progress)?;
        let mut inputs: Vec<&Checkpoint> = vec![&self.adapter.file];
        inputs.extend(self.merge.as_ref().map(|merge| &merge.inputs.base));
        let bytes = self.destination().write(new, &inputs, &())?;
        self.report.fill(reports, bytes);
        Ok(self.report)
    }

    /// Computes the result as [`AsLora::run`] does, and writes nothing: what the ranks, the errors and the size would
    /// be.
    ///
    /// # Errors
    /// As [`AsLora::run`], but for those of writing.
    pub fn preview(mut self, progress: &dyn Progress) -> Result<Report> {
        let (new, reports) = self.computed(progress)?;
        let bytes = self.destination().file_bytes(new)?;
        self.report.fill(reports, bytes);
        self.report.dry_run = true;
        Ok(self.report)
    }

    fn computed(&self, progress: &dyn Progress) -> Result<(NewAdapter, Vec<ModuleReport>)> {
        let pool = thread_pool(self.options.threads)?;
        let done = pool.install(|| compute::all(self, progress))?;
        let (modules, reports): (Vec<NewModule>, Vec<_>) = done.into_iter().unzip();
        Ok((self.assemble(modules), reports.into_iter().flatten().collect()))
    }

    fn destination(&self) -> write::Destination<'_> {
        write::Destination {
            native: self.native,
            target: self.target,
            program: self.takes,
            reference: self.options.convert.reference.as_deref(),
            output: &self.options.convert.output,
            beside: &self.adapter.file.path,
            force: self.options.convert.force,
        }
    }

    /// The modules that will be, all of rank 1 and zero.
    fn zeros(&self) -> Result<Vec<NewModule>> {
        self.modules.iter().map(|planned| planned.zero(self)).collect()
    }

    /// The modules with all that the adapter has beside them.
    fn assemble(&self, modules: Vec<NewModule>) -> NewAdapter {
        NewAdapter {
            modules,
            replacements: self.replacements.clone(),
            metadata: self.metadata(),
            config: self.adapter.config.as_ref().map(PeftConfig::as_lora),
            stacks: self.adapter.stacks.clone(),
            target_modules: None,
            kept: None,
        }
    }
}
