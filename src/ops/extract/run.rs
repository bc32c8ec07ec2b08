//! An extraction from the options to the report.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::compute::{self, Extracted, Fate};
use super::open::{Extract, Plan};
use super::options::{Options, RankChoice};
use super::report::{LeftOut, Report};
use super::{depth, pair};
use crate::adapter::convention::{self, Convention, Names, Part};
use crate::adapter::module::Replaces;
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement, PartTensor};
use crate::error::{Error, ErrorKind, PairError, Result};
use crate::format::Dtype;
use crate::format::natural::natural;
use crate::math::RankPolicy;
use crate::ops::shared::base::{open_base, open_model};
use crate::ops::{Progress, check_output, thread_pool, write};

/// Relative error above which a warning is due.
const LARGE_ERROR: f64 = 0.5;

/// Opens both checkpoints and pairs their tensors.
///
/// # Errors
/// Everything a user can get wrong, as far as headers tell, and what the convention that is asked for
/// cannot hold; nothing has been computed then.
pub fn plan(options: &Options) -> Result<Extract> {
    depth::check(options)?;
    let inputs = [options.base.as_path(), options.tuned.as_path()];
    check_output(&options.output, inputs, options.force)?;
    let extract = prepare(options)?;
    let files = extract.files();
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    extract.rehearse()?;
    Ok(extract)
}

/// As [`plan`], without a look at the output's path, or at values: what a worker starts from.
///
/// # Errors
/// Those of headers.
pub(super) fn prepare(options: &Options) -> Result<Extract> {
    let [base, tuned] = [options.base.as_path(), options.tuned.as_path()];
    let (base, tuned) = (
        open_base(base, &[tuned], options.access)?,
        open_model(tuned, "a fine-tuned", &[base], options.access)?,
    );
    let target = write::convention(options.to.as_deref(), None, &options.output)?;
    let convention = native(target);
    let bytes = matches!(options.rank, RankChoice::Policy(RankPolicy::Size(_)));
    if convention != target && bytes {
        let reason = "a budget of bytes is for the peft, kohya and comfyui conventions";
        return Err(ErrorKind::BadOption(reason.to_owned()).into());
    }
    let pairs = pair::pairs(options, &base, &tuned, convention)
        .map_err(|error| error.in_file(&options.tuned))?;
    let plan = Plan {
        rank: options.rank.to_string(),
        convention: target.name.to_owned(),
        output: options.output.clone(),
        pairs,
    };
    let dtype = options.dtype.unwrap_or(Dtype::F32);
    Ok(Extract { plan, base, tuned, convention, target, dtype, options: options.clone() })
}

/// The convention to compute in: one that calls modules as the base does, or as kohya's scripts do.
fn native(target: &'static Convention) -> &'static Convention {
    match target.names {
        Names::Flattened | Names::Checkpoint => target,
        Names::Component => convention::one_file(),
        Names::Dotted | Names::Gguf => convention::peft(),
    }
}

impl Extract {
    /// Computes and writes the adapter.
    ///
    /// # Errors
    /// I/O, values that are not finite, no difference at all, a budget that does not reach; nothing is
    /// left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let (fates, done) = self.computed(progress)?;
        self.write(fates, done)
    }

    /// Computes the adapter as [`Extract::run`] does, and writes nothing: what the ranks, the errors and the size
    /// would be.
    ///
    /// # Errors
    /// As [`Extract::run`], but for those of writing.
    pub fn preview(&self, progress: &dyn Progress) -> Result<Report> {
        let (fates, done) = self.computed(progress)?;
        let (adapter, report) = self.assembled(fates, done)?;
        let bytes = self.destination().file_bytes(adapter)?;
        Ok(Report { dry_run: true, bytes, ..report })
    }

    fn computed(&self, progress: &dyn Progress) -> Result<(Vec<Fate>, Vec<Extracted>)> {
        let pool = thread_pool(self.options.threads)?;
        pool.install(|| compute::all(self, progress))
    }

    /// Writes the adapter of what became of all pairs, in their order.
    ///
    /// # Errors
    /// No difference at all, and whatever writing says; nothing is left at the output's path then.
    pub(super) fn write(&self, fates: Vec<Fate>, done: Vec<Extracted>) -> Result<Report> {
        let (adapter, mut report) = self.assembled(fates, done)?;
        let inputs = [&self.base, &self.tuned];
        report.bytes = self.destination().write(adapter, &inputs, &())?;
        Ok(report)
    }

    /// The adapter, and its report without a size.
    fn assembled(&self, fates: Vec<Fate>, done: Vec<Extracted>) -> Result<(NewAdapter, Report)> {
        let equal = fates.iter().filter(|fate| matches!(fate, Fate::Equal)).count();
        let (mut left_out, mut replacements, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        for fate in fates {
            match fate {
                Fate::LeftOut(tensor) => left_out.push(tensor),
                Fate::Whole(replacement) => replacements.push(replacement),
                Fate::Stored(module, tensor) => stored.push((module, tensor)),
                Fate::Equal | Fate::Module(_) => {}
            }
        }
        if done.is_empty() && replacements.is_empty() && stored.is_empty() {
            return Err(self.nothing(equal, &left_out));
        }
        let labels = stored.iter().map(|(module, (part, ..))| {
            format!("{module}.{}", if *part == Part::Named("diff_b") { "diff_b" } else { "diff" })
        });
        let whole = replacements.iter().map(label).chain(labels).collect();
        let ties = self.ties_embeddings(|module| {
            done.iter().any(|done| done.module.name == module)
                || replacements.iter().any(|replacement| replacement.module == module)
        })?;
        let report = self.report(&done, equal, left_out, whole);
        let adapter = NewAdapter {
            stacks: BTreeMap::new(),
            modules: with_stored(done.into_iter().map(|done| done.module).collect(), stored),
            replacements,
            metadata: self.metadata(),
            config: Some(self.config(ties)?),
            target_modules: None,
            kept: None,
        };
        Ok((adapter, report))
    }

    fn nothing(&self, equal: usize, left_out: &[LeftOut]) -> Error {
        let reason = match left_out {
            [] if equal == 1 => "the only tensor is the same in both checkpoints".to_owned(),
            [] => format!("all {equal} tensors are the same in both checkpoints"),
            [LeftOut { tensor, reason, .. }] => {
                format!("1 tensor differs, and is not for an adapter (`{tensor}`: {reason})")
            }
            [LeftOut { tensor, reason, .. }, ..] => format!(
                "{} tensors differ, none of them for an adapter (`{tensor}`: {reason})",
                left_out.len(),
            ),
        };
        Error::from(PairError::Nothing(reason)).in_file(&self.options.tuned)
    }

    fn report(
        &self,
        done: &[Extracted],
        equal: usize,
        left_out: Vec<LeftOut>,
        whole: Vec<String>,
    ) -> Report {
        let sum = |of: fn(&Extracted) -> f64| done.iter().map(of).sum::<f64>();
        let (all, error) = (sum(|done| done.squared_norm), sum(|done| done.squared_error));
        let energy_kept = sum(|done| done.report.energy_kept * done.squared_norm);
        let share = |part: f64| if all > 0.0 { part / all } else { 0.0 };
        let relative_error = share(error).sqrt();
        let mut warnings = Vec::new();
        if relative_error > LARGE_ERROR {
            warnings.push(format!(
                "the difference is not of low rank: {:.0} % of its norm is not in the adapter",
                relative_error * 100.0
            ));
        }
        match left_out.len() {
            0 => {}
            1 => warnings.push("1 tensor differs and is not in the adapter".to_owned()),
            count => warnings.push(format!("{count} tensors differ and are not in the adapter")),
        }
        let mut modules: Vec<_> = done.iter().map(|done| done.report.clone()).collect();
        modules.sort_by(|a, b| natural(&a.name, &b.name));
        Report {
            dry_run: false,
            output: self.options.output.clone(),
            rank: self.plan.rank.clone(),
            convention: self.target.name,
            tensors: self.plan.pairs.len(),
            equal,
            energy_kept: share(energy_kept),
            relative_error,
            modules,
            whole,
            left_out,
            parameters: done.iter().map(|done| done.parameters).sum(),
            bytes: 0,
            warnings,
        }
    }
}

/// The modules with the differences that are stored beside them, or for themselves.
fn with_stored(mut modules: Vec<NewModule>, stored: Vec<(String, PartTensor)>) -> Vec<NewModule> {
    for (name, tensor) in stored {
        match modules.iter_mut().find(|module| module.name == name) {
            Some(module) => module.tensors.push(tensor),
            None => modules.push(NewModule::stored(name, vec![tensor])),
        }
    }
    modules
}

fn label(replacement: &NewReplacement) -> String {
    let bias = replacement.replaces == Replaces::Bias;
    format!("{}.{}", replacement.module, if bias { "bias" } else { "weight" })
}
