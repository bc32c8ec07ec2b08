//! merge: bake adapters into base weights, W' = round(W + Σ wᵢ·sᵢ·Bᵢ·Aᵢ), in one pass.
//!
//! [`plan`] opens everything and decides every output tensor; [`Merge::run`] streams the outputs in
//! memory that does not grow with the model. A [`Plan`] is plain data, and each of its shards can be
//! made without the others.

pub(super) mod check;
pub(super) mod compute;
pub(super) mod plan;
pub(super) mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use crate::ops::shared::inputs::AdapterInput;
pub use plan::change::{
    Action, BlendPart, BlendStep, Change, Difference, ReplaceStep, RowsStep, Source, Term,
    TransformStep,
};
pub use plan::layout::{OutputShard, OutputTensor};
pub use plan::options::{Options, Quantized};
pub use plan::quantised::Dequantised;
pub use plan::region::Region;
pub use plan::side::{NotCarried, SideFile};
pub(super) use plan::side::{beside, relaid};
pub(super) use write::stream::{Sink, header_bytes, work_through};

use crate::adapter::{Adapter, promised};
use crate::error::{ErrorKind, Locate, Result, UnmatchedName};
use crate::format::staging::{free_space, left_over};
use crate::format::{Access, Checkpoint, Metadata, access};
use crate::math::DeltaStats;
pub use crate::method::Compat;
use crate::ops::shared::base::open_stored;
use crate::ops::{Progress, check_output, files_of, receipt, verify};
use plan::{bind, consensus, inputs, layout, method_choice, origin, quantised, side};
use write::{resume, stream};

/// An adapter's part in a plan.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PlannedAdapter {
    /// Its path.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
    /// Whether rules multiply it, module by module.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_module: bool,
    /// Its convention.
    pub convention: &'static str,
    /// Modules and replacements in it.
    pub total: usize,
    /// Of those, what is applied.
    pub applied: usize,
    /// Of those, what `--include`, `--exclude` or a weight of 0 leave out.
    pub left_out: usize,
}

/// Everything that will be written, decided before a byte is.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The base.
    pub base: PathBuf,
    /// The adapters.
    pub adapters: Vec<PlannedAdapter>,
    /// The output.
    pub output: PathBuf,
    /// Whether the output is one file.
    pub one_file: bool,
    /// Weight files to write.
    pub shards: Vec<OutputShard>,
    /// Other files to write.
    pub side_files: Vec<SideFile>,
    /// Files beside the base's weights that the output will not have, and why.
    pub not_carried: Vec<NotCarried>,
    /// Adapter tensors that fit nothing, if that was allowed.
    pub unmatched: Vec<UnmatchedName>,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Quantised weights of the base that are written as plain numbers, if they are.
    pub dequantised: Option<Dequantised>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Tensors of all shards.
    pub fn tensors(&self) -> impl Iterator<Item = &OutputTensor> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    fn count(&self, wanted: fn(&Action) -> bool) -> usize {
        self.tensors().filter(|tensor| wanted(&tensor.action)).count()
    }
}

/// A plan with its inputs open.
#[derive(Debug)]
pub struct Merge {
    /// What will be written.
    pub plan: Plan,
    pub(super) base: Checkpoint,
    pub(super) adapters: Vec<Adapter>,
    pub(super) tuned: Vec<Checkpoint>,
    pub(super) rule: Option<method_choice::Rule>,
    /// The text of the recipe that asked for it.
    recipe: Option<String>,
    force: bool,
    verify: bool,
    receipt: Option<PathBuf>,
    access: Access,
    threads: usize,
    pub(super) block_rows: Option<usize>,
    /// What kept shards must have been made for, if they are kept.
    resume: Option<String>,
}

/// What the rounded result added, against what was asked.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct Effective {
    /// Cosine of added and asked.
    pub cosine: f64,
    /// ‖added‖ / ‖asked‖.
    pub norm_ratio: f64,
    /// Of the merged tensors' elements that should have changed, the share that rounding left as they
    /// were.
    pub unchanged: f64,
    /// Share of the merged tensors' elements to which nothing was added: sparse methods leave many alone.
    pub untouched: f64,
}

impl Effective {
    fn is_finite(&self) -> bool {
        self.cosine.is_finite() && self.norm_ratio.is_finite()
    }
}

impl From<&DeltaStats> for Effective {
    fn from(stats: &DeltaStats) -> Self {
        Self {
            cosine: stats.cosine(),
            norm_ratio: stats.norm_ratio(),
            unchanged: stats.lost_share(),
            untouched: stats.untouched_share(),
        }
    }
}

/// One merged tensor of a report.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// What rounding left of its update.
    #[serde(flatten)]
    pub effective: Effective,
}

/// What a merge did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Where the result is.
    pub output: PathBuf,
    /// The base.
    pub base: PathBuf,
    /// The adapters, with what was applied of each.
    pub adapters: Vec<PlannedAdapter>,
    /// Modules and replacements in all adapters.
    pub modules: usize,
    /// Of those, applied.
    pub modules_applied: usize,
    /// Tensors that changed.
    pub tensors_changed: usize,
    /// Tensors that were only converted to another dtype.
    pub tensors_converted: usize,
    /// Tensors with the base's very bytes.
    pub tensors_copied: usize,
    /// Weight files.
    pub shards: usize,
    /// Of those, finished by an earlier run that was interrupted.
    pub shards_reused: usize,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Quantised weights of the base that were written as plain numbers, if they were.
    pub dequantised: Option<Dequantised>,
    /// What rounding left of the updates, over all merged tensors; `None` if nothing was added.
    pub effective: Option<Effective>,
    /// The same for each tensor.
    pub tensors: Vec<TensorReport>,
    /// Files beside the base's weights that the output does not have, and why.
    pub not_carried: Vec<NotCarried>,
    /// Adapter tensors that fit nothing, if that was allowed.
    pub unmatched: Vec<UnmatchedName>,
    /// The verification, if it was asked for.
    pub verification: Option<verify::Report>,
    /// Bytes of the receipt, if one was kept.
    pub receipt_bytes: Option<u64>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Cosine of the effective delta below which a warning is due.
const COSINE_WARNING: f64 = 0.99;

/// Opens all inputs and decides the whole output.
///
/// # Errors
/// Everything a user can get wrong; nothing has been written then.
pub fn plan(options: &Options) -> Result<Merge> {
    let inputs = options.adapters.iter().map(|adapter| adapter.path.as_path());
    let inputs = inputs.chain([options.base.as_path()]);
    check_output(&options.output, inputs, options.force)?;
    if options.output.extension().is_some_and(|end| end == "gguf") {
        let reason = "a merge writes safetensors: give a .safetensors file or a directory";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&options.output);
    }
    let mut merge = prepare(options)?;
    let files = merge.input_files();
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    if let Some(receipt) = &options.receipt {
        receipt::check_place(receipt, &options.output)?;
        check_output(receipt, files.iter().map(PathBuf::as_path), options.force)?;
    }
    let target = options.output.symlink_metadata();
    if merge.plan.one_file && target.is_ok_and(|target| target.is_dir()) {
        let reason = "it is a directory, which one file does not replace".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    if options.resume {
        merge.resume = Some(resume::key(options, &merge.plan, &files)?);
    }
    for left in left_over(&options.output) {
        merge.plan.warnings.push(format!(
            "{} is left of a run that was killed, if none is under way; remove it to have its space back",
            left.display()
        ));
    }
    let kept = if options.resume { resume::kept_bytes(&merge.plan) } else { 0 };
    let needed = merge.plan.bytes.saturating_sub(kept);
    if let Some(free) = free_space(&options.output)
        && free < needed
    {
        return Err(ErrorKind::DiskFull { needed, free }).in_file(&options.output);
    }
    Ok(merge)
}

/// As [`plan`], without a look at the output's path: what [`verify`] compares with.
pub(super) fn prepare(options: &Options) -> Result<Merge> {
    let with: Vec<_> = options.adapters.iter().map(|input| input.path.as_path()).collect();
    let open = || open_stored(&options.base, "a base", &with, options.open.access);
    let mut quantised = quantised::read(open()?)?;
    let rule = method_choice::choose(options)?;
    let base = &quantised.checkpoint;
    let options = &method_choice::peer_weights(&options.over_layers(base))?;
    let inputs = inputs::open(options, base)?;
    let bound = bind::bind(&inputs.adapter_options(options), base, &inputs.adapters);
    let mut bound = bound.map_err(|error| quantised.explain(error))?;
    let base = &quantised.checkpoint;
    inputs.add_tuned(options, base, &mut bound)?;
    if let Some(rule) = &rule {
        consensus::bind(options, &inputs, &mut bound)?;
        consensus::settle(options, (rule, &inputs), base, &mut bound)?;
    }
    options.check_selection(&bound.usage, &bound.adapters)?;
    quantised.settle(options, &bound, open)?;
    let (one_file, dtypes) = (is_file(&options.output), quantised.dtypes(options)?);
    let base = &quantised.checkpoint;
    let shards = layout::shards(options, (base, &dtypes), &bound, one_file)?;
    let sides = side::collect((base, &dtypes), &bound, &shards, one_file)?;
    for adapter in &inputs.adapters {
        let missing = promised::missing(adapter, Some(base.names()));
        bound.warnings.extend(missing.map(|text| format!("{}: {text}", adapter.path.display())));
    }
    let plan = Plan {
        base: options.base.clone(),
        adapters: bound.adapters,
        output: options.output.clone(),
        one_file,
        bytes: shards.iter().map(OutputShard::bytes).sum(),
        dequantised: quantised
            .dequantised(shards.iter().flat_map(|shard| &shard.tensors).map(OutputTensor::source)),
        shards,
        side_files: sides.carried,
        not_carried: sides.not_carried,
        unmatched: bound.unmatched,
        warnings: bound.warnings,
    };
    let &Options { force, verify, threads, block_rows, .. } = options;
    let (access, receipt, recipe) =
        (options.open.access, options.receipt.clone(), options.recipe.clone());
    Ok(Merge {
        plan,
        base: quantised.checkpoint,
        adapters: inputs.adapters,
        tuned: inputs.tuned,
        rule,
        recipe,
        force,
        verify,
        receipt,
        access,
        threads,
        block_rows,
        resume: None,
    })
}

/// The name of the output head that a checkpoint does not store, because its input embedding is it.
///
/// # Errors
/// If there is a config that cannot be read.
pub(super) fn tied_head(base: &Checkpoint) -> Result<Option<String>> {
    Ok(crate::weight::tied::find(base)?.map(|tied| tied.head))
}

/// Whether an output path means one file.
fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "safetensors")
}

impl Merge {
    /// Every file that is read, also those that no option names: shards, configs, side files.
    fn input_files(&self) -> Vec<PathBuf> {
        let base = self.base.shards.iter().map(|shard| shard.path.clone());
        let side_files = self.plan.side_files.iter().filter_map(|file| file.source.clone());
        let tuned = self.tuned.iter().flat_map(|tuned| &tuned.shards);
        let tuned = tuned.map(|shard| shard.path.clone());
        base.chain(self.adapters.iter().flat_map(files_of)).chain(tuned).chain(side_files).collect()
    }

    /// All weight files that are read.
    fn sources(&self) -> impl Iterator<Item = &access::Source> {
        let adapters = self.adapters.iter().map(|adapter| &adapter.file);
        let files = std::iter::once(&self.base).chain(adapters).chain(&self.tuned);
        files.flat_map(|file| &file.shards).map(|shard| &shard.source)
    }

    /// Writes the output.
    ///
    /// # Errors
    /// I/O, a base value that is not finite, an overflow of the output's dtype, an input that changed
    /// meanwhile; nothing is left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let written = stream::write(self, progress)?;
        let mut report = self.report(&written.stats);
        report.shards_reused = written.reused;
        report.receipt_bytes = written.receipt;
        if self.verify {
            let merged = Checkpoint::open(&self.plan.output, self.access)?;
            report.verification = Some(verify::check(self, &merged, None, progress)?);
        }
        Ok(report)
    }

    /// Threads that compute; 0 for one a core.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// What every header says of where the result comes from, if a recipe asked for it.
    ///
    /// # Errors
    /// If an input cannot be read for its hash.
    pub(super) fn origin(&self) -> Result<Option<Metadata>> {
        origin::metadata(self)
    }

    /// Takes a text for the recipe that asked for the merge, if there is none; whether it did.
    pub(super) fn take_recipe(&mut self, text: String) -> bool {
        let none = self.recipe.is_none();
        self.recipe.get_or_insert(text);
        none
    }

    /// Tensors that turned out to be the same in all checkpoints, and whether their dtype changed.
    fn equal_tensors(&self, stats: &[(String, DeltaStats)]) -> BTreeMap<&str, bool> {
        let stats: BTreeMap<_, _> =
            stats.iter().map(|(name, stats)| (name.as_str(), stats)).collect();
        let equal = self.plan.tensors().filter(|tensor| match &tensor.action {
            Action::Change(change) => {
                let asked = stats.get(tensor.full_name.as_str()).map_or(0.0, |stats| stats.asked);
                change.only_differences() && asked == 0.0
            }
            _ => false,
        });
        let dtype = |name: &str| self.base.tensor(name).map(|view| view.spec.dtype);
        equal
            .map(|tensor| (tensor.full_name.as_str(), dtype(&tensor.base) != Some(tensor.dtype)))
            .collect()
    }

    fn report(&self, stats: &[(String, DeltaStats)]) -> Report {
        let mut total = DeltaStats::default();
        for (_, tensor) in stats {
            total.add(tensor);
        }
        let measured = Some(Effective::from(&total)).filter(|_| total.asked > 0.0);
        // Sums of squares of an update beyond 1e19 leave the range of f32.
        let effective = measured.filter(Effective::is_finite);
        let plan = &self.plan;
        let mut warnings = plan.warnings.clone();
        if measured.is_some() && effective.is_none() {
            warnings.push(
                "the update is too large for its effect to be measured: is a weight or an alpha wrong?"
                    .to_owned(),
            );
        }
        if let Some(low) = effective.filter(|effective| effective.cosine < COSINE_WARNING) {
            warnings.push(format!(
                "rounding lost part of the update: cosine {:.4} between what was asked and what the \
                 result holds; a wider --dtype keeps more",
                low.cosine
            ));
        }
        let changed = plan.count(|action| matches!(action, Action::Change(_)));
        let equal = self.equal_tensors(stats);
        let converted = equal.values().filter(|converted| **converted).count();
        Report {
            output: plan.output.clone(),
            base: plan.base.clone(),
            adapters: plan.adapters.clone(),
            modules: plan.adapters.iter().map(|adapter| adapter.total).sum(),
            modules_applied: plan.adapters.iter().map(|adapter| adapter.applied).sum(),
            tensors_changed: changed - equal.len(),
            tensors_converted: plan.count(|action| matches!(action, Action::Convert)) + converted,
            tensors_copied: plan.count(|action| matches!(action, Action::Copy)) + equal.len()
                - converted,
            shards: plan.shards.len(),
            shards_reused: 0,
            bytes: plan.bytes,
            dequantised: plan.dequantised.clone(),
            effective,
            tensors: stats
                .iter()
                .filter(|(name, _)| !equal.contains_key(name.as_str()))
                .map(|(name, stats)| TensorReport { name: name.clone(), effective: stats.into() })
                .collect(),
            not_carried: plan.not_carried.clone(),
            unmatched: plan.unmatched.clone(),
            verification: None,
            receipt_bytes: None,
            warnings,
        }
    }
}
