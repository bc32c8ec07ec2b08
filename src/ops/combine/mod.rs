//! combine: several adapters → one adapter, by the exact low-rank engine; `resize` is the same with
//! one input. Nothing of the size of a weight is ever formed.

pub(super) mod align;
pub(super) mod auto;
pub(super) mod carry;
mod choose;
mod compute;
mod elements;
pub(super) mod group;
mod sum;

use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Serialize;

pub(super) use choose::{is_sum, named, peer_weights};

pub use carry::OnConflict;
pub use compute::ModuleReport;

pub use crate::math::RankPolicy;
pub use crate::method::{Compat, Space};

use crate::adapter::block_weights::BlockWeights;
use crate::adapter::convention::Convention;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Result};
use crate::format::{Checkpoint, Dtype};
use crate::math::linalg::spill::Spill;
use crate::method::params::{Given, LAMBDA};
use crate::method::{Method, Settings};
use crate::ops::shared::advice::Advice;
use crate::ops::shared::base::check_reference;
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::param_rules::ParamRule;
use crate::ops::shared::selection::Selection;
use crate::ops::shared::spills::PairSpill;
use crate::ops::thread_pool;
use crate::ops::{Progress, check_output, files_of, open_adapters, write};

use group::Group;

/// Which modules a rank for convolutions is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConvScope {
    /// Kernels larger than one element, as kohya's `svd_merge_lora.py` has it.
    #[default]
    Spatial,
    /// All convolutions, 1 × 1 too, as kohya's `resize_lora.py` has it.
    All,
}

/// What to combine, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapters, in order.
    pub adapters: Vec<AdapterInput>,
    /// Where the result goes.
    pub output: PathBuf,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// The method's name; `linear` if `None`.
    pub method: Option<String>,
    /// The method's parameters, as text.
    pub params: Given,
    /// Those that are not the same for all modules.
    pub param_rules: Vec<ParamRule>,
    /// Where an elementwise method looks; at the deltas, or where the peer does, if `None`.
    pub space: Option<Space>,
    /// A peer whose arithmetic is to be reproduced.
    pub compat: Option<Compat>,
    /// Rank policy; `lossless`, or the method's own factors, if `None`.
    pub rank: Option<RankPolicy>,
    /// Rank policy of convolutions; as `rank` if `None`.
    pub conv_rank: Option<RankPolicy>,
    /// Which modules `conv_rank` is for.
    pub conv_scope: ConvScope,
    /// The highest rank of any module.
    pub max_rank: Option<usize>,
    /// The highest rank of the modules that `conv_scope` names; as `max_rank` if `None`.
    pub conv_max_rank: Option<usize>,
    /// Fill all modules up to one rank with zeros.
    pub uniform: bool,
    /// Write the scale of the first input's module; else 1 (alpha = rank).
    pub keep_scale: bool,
    /// Only modules that match.
    pub include: Option<Regex>,
    /// No modules that match.
    pub exclude: Option<Regex>,
    /// Factors for the weight of modules that match; the last match wins.
    pub module_weights: Vec<(Regex, f64)>,
    /// kohya's block weights, one list an adapter, in order.
    pub block_weights: Vec<Vec<f64>>,
    /// Dtype of the factors; the widest among the inputs if `None`.
    pub dtype: Option<Dtype>,
    /// The convention to write; the first input's if `None`.
    pub to: Option<String>,
    /// A base to take names from, and what llama.cpp has to know, where `to` needs it.
    pub reference: Option<PathBuf>,
    /// What the result is called in its header; by its file's name if `None`, where inputs have titles.
    pub title: Option<String>,
    /// The words that call up what was trained; those of all inputs if `None`.
    pub trigger: Option<String>,
    /// Combine adapters too that nothing shows to be of one model.
    pub allow_disjoint: bool,
    /// What to do with replaced tensors that differ; an error if `None`.
    pub on_conflict: Option<OnConflict>,
    /// The text of the recipe that asks for this, for the output's metadata.
    pub recipe: Option<String>,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
    /// Rows of deltas that are computed together, by their size if `None`: no bit of the output depends
    /// on it.
    pub block_rows: Option<usize>,
}

impl Options {
    /// Which modules the options are for, by their names.
    fn selection(&self) -> Selection<'_> {
        Selection {
            include: self.include.as_ref(),
            exclude: self.exclude.as_ref(),
            module_weights: &self.module_weights,
        }
    }
}

/// What a combination will be.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The method.
    pub method: &'static str,
    /// Why it was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
    /// Where it looks, if it is an elementwise one.
    pub space: Option<&'static str>,
    /// The rank policy.
    pub rank: String,
    /// The convention to be written.
    pub convention: &'static str,
    /// The output.
    pub output: PathBuf,
    /// Modules of the result, with each input's rank (0 where it has none).
    pub modules: Vec<PlannedModule>,
    /// Modules that are differences stored whole, summed element by element.
    pub stored: Vec<String>,
    /// Tensors that replace the base's, carried over.
    pub replacements: Vec<String>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// One module of a plan.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PlannedModule {
    /// Its name, in the convention of the inputs that it is computed in.
    pub name: String,
    /// Outputs.
    #[serde(rename = "out")]
    pub outputs: usize,
    /// Inputs.
    #[serde(rename = "in")]
    pub inputs: usize,
    /// Rank in each adapter.
    pub ranks: Vec<usize>,
}

/// Share of the energy below which a user should know that the rank is low for the method.
const MOST_ENERGY_KEPT: f64 = 0.9;

/// A plan with its inputs open.
#[derive(Debug)]
pub struct Combine {
    /// What will be written.
    pub plan: Plan,
    adapters: Vec<Adapter>,
    groups: Vec<Group>,
    sums: Vec<sum::Sum>,
    method: &'static Method,
    space: Space,
    settings: Settings,
    /// The convention that modules are computed in, and the one that is written.
    convention: &'static Convention,
    target: &'static Convention,
    dtype: Dtype,
    carried: carry::Carried,
    options: Options,
}

/// What became of one input.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct InputReport {
    /// Its path.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
    /// Whether rules multiply it, module by module.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_module: bool,
    /// What the others together write where it writes, relative to it, at their weights: 0 is nothing. None of an
    /// adapter that adds nothing.
    pub spill: Option<f64>,
}

/// What a combination did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Where the result is.
    pub output: PathBuf,
    /// The method.
    pub method: &'static str,
    /// Why it was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
    /// Where it looked, if it is an elementwise one.
    pub space: Option<&'static str>,
    /// The rank policy.
    pub rank: String,
    /// The convention written.
    pub convention: &'static str,
    /// ‖written‖² / ‖combined‖², over all modules.
    pub energy_kept: f64,
    /// ‖combined − written‖ / ‖combined‖, over all modules.
    pub relative_error: f64,
    /// ‖combined − Σ wᵢΔᵢ‖ / ‖Σ wᵢΔᵢ‖: how far the method itself is from the exact weighted sum.
    pub distance_from_sum: f64,
    /// The inputs.
    pub inputs: Vec<InputReport>,
    /// What each pair of inputs writes over each other.
    pub spills: Vec<PairSpill>,
    /// Parameters of all inputs' modules.
    pub parameters_before: u64,
    /// Parameters of the result's modules.
    pub parameters_after: u64,
    /// Bytes of the result's tensor file.
    pub bytes: u64,
    /// Modules that are differences stored whole, summed element by element.
    pub stored: Vec<String>,
    /// The modules.
    pub modules: Vec<ModuleReport>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Opens all adapters and decides the result's modules.
///
/// # Errors
/// Everything a user can get wrong; nothing has been written then.
pub fn plan(options: &Options) -> Result<Combine> {
    let (mut options, chosen) = auto::settle(options)?;
    let choose::Choice { method, space, settings } = choose::choose(&options)?;
    peer_weights(options.compat, options.method.as_deref(), &mut options.adapters)?;
    let options = &options;
    let paths = options.adapters.iter().map(|input| input.path.as_path());
    check_output(&options.output, paths, options.force)?;
    let adapters = open_adapters(&options.adapters, &options.open)?;
    let files: Vec<_> = adapters.iter().flat_map(files_of).collect();
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    let (convention, target) = choose::conventions(options, &adapters)?;
    check_reference(options.reference.as_deref(), options.open.access)?;
    let adapters = align::align(adapters, convention, options.reference.as_deref())?;
    align::check_related(options, &adapters)?;
    let lists = options.block_weights.iter().map(|list| BlockWeights::new(list));
    let blocks: Vec<BlockWeights> = lists.collect::<Result<_>>()?;
    if !blocks.is_empty() && blocks.len() != adapters.len() {
        let reason = format!(
            "there are {} lists of block weights for {} adapters; give --lbw once an adapter, in order",
            blocks.len(),
            adapters.len()
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    let (groups, stored) = group::sort(options, &adapters, &blocks)?;
    let mut groups = group::name_for(groups, &adapters, convention)?;
    group::settle(options, &adapters, &settings, &mut groups)?;
    let sums = sum::sums(&stored, &groups, &adapters, method, convention)?;
    let dtype = options.dtype.unwrap_or_else(|| group::widest(&adapters));
    let carried = carry::replacements(options, &adapters, convention)?;
    let policy = options.rank.map(|rank| rank.to_string());
    let default = match (method.elementwise(), space) {
        (Some(_), Space::Delta) => "the inputs' highest",
        (Some(_), Space::Factors) => "as the method leaves it",
        _ if method.keeps_factors => "as the method leaves it",
        _ => "lossless",
    };
    let plan = Plan {
        method: method.name,
        chosen,
        space: method.elementwise().map(|_| space.name()),
        rank: policy.unwrap_or_else(|| default.to_owned()),
        convention: target.name,
        output: options.output.clone(),
        modules: groups.iter().map(|group| group.planned(adapters.len())).collect(),
        stored: sums.iter().map(|sum| sum.name.clone()).collect(),
        replacements: carried.labels(),
        warnings: carried.warnings.clone(),
    };
    let options = options.clone();
    let combine = Combine {
        plan,
        adapters,
        groups,
        sums,
        method,
        space,
        settings,
        convention,
        target,
        dtype,
        carried,
        options,
    };
    compute::check(&combine)?;
    combine.destination().rehearse(carry::rehearsal(&combine)?)?;
    Ok(combine)
}

impl Combine {
    /// Whether elements of the deltas themselves are looked at.
    fn by_elements(&self) -> bool {
        self.method.elementwise().is_some() && self.space == Space::Delta
    }

    /// The method's parameters in a group.
    fn settings<'a>(&'a self, group: &'a Group) -> &'a Settings {
        group.settings.as_ref().unwrap_or(&self.settings)
    }

    /// Whether the factors themselves are the result, unless a rank is asked for.
    fn keeps_factors(&self) -> bool {
        let apart = self.method.elementwise().is_some() && self.space == Space::Factors;
        self.method.keeps_factors || apart
    }

    /// Whether the method is a sum that is not quite one, as a peer has it.
    fn reproduces_a_peers_sum(&self) -> bool {
        self.method.name.starts_with("peft-") || self.method.name.starts_with("kohya-")
    }

    fn destination(&self) -> write::Destination<'_> {
        write::Destination {
            native: self.convention,
            target: self.target,
            program: None,
            reference: self.options.reference.as_deref(),
            output: &self.options.output,
            // There is at least one adapter, and each is at least one file.
            beside: self.adapters.first().map_or(Path::new(""), |adapter| &adapter.file.path),
            force: self.options.force,
        }
    }

    /// Computes and writes the result.
    ///
    /// # Errors
    /// I/O, a method that cannot combine these inputs, a budget that does not reach, an overflow of
    /// the dtype; nothing is left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let pool = thread_pool(self.options.threads)?;
        let (mut modules, done) = pool.install(|| compute::all(self, progress))?;
        let lambda = self.settings.number(&LAMBDA);
        for sum in &self.sums {
            modules.push(sum.add(&self.adapters, lambda, self.dtype)?);
        }
        let new = carry::assemble(self, modules)?;
        let inputs: Vec<&Checkpoint> = self.adapters.iter().map(|adapter| &adapter.file).collect();
        let bytes = self.destination().write(new, &inputs, &())?;
        Ok(self.report(&done, bytes))
    }

    fn report(&self, done: &[compute::Done], bytes: u64) -> Report {
        let sum = |of: fn(&compute::Done) -> f64| done.iter().map(of).sum::<f64>();
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
        let combined = sum(|done| done.combined);
        let none = Spill::new(self.adapters.len());
        let spill = done.iter().fold(none, |spill, done| spill.plus(&done.spill));
        let inputs = self.options.adapters.iter().enumerate().map(|(at, input)| InputReport {
            path: input.path.clone(),
            weight: input.weight,
            by_module: input.rules.weighs(),
            spill: spill.on(at),
        });
        let mut warnings = self.plan.warnings.clone();
        let distance = share(sum(|done| done.off_sum), sum(|done| done.exact)).sqrt();
        let exact = sum(|done| done.exact) == 0.0;
        let distance_from_sum = if exact { 0.0 } else { distance };
        // Methods that mean to be something else need no warning.
        if distance_from_sum > 1e-3 && self.reproduces_a_peers_sum() {
            warnings.push(format!(
                "`{}` is {:.1} % away from the exact weighted sum of the deltas; --method linear is exact",
                self.method.name,
                distance_from_sum * 100.0
            ));
        }
        let dropped = sum(|done| done.dropped);
        let kept = share(sum(|done| done.kept), combined);
        if self.by_elements() && kept < MOST_ENERGY_KEPT {
            warnings.push(format!(
                "{:.0} % of what `{}` made did not fit into the rank; a higher --rank keeps more, --space \
                 core stays within the adapters' own ranks, `merge --method {}` adds all of it to the base",
                (1.0 - kept) * 100.0,
                self.method.name,
                self.method.name
            ));
        }
        Report {
            output: self.options.output.clone(),
            method: self.method.name,
            chosen: self.plan.chosen.clone(),
            space: self.plan.space,
            rank: self.plan.rank.clone(),
            convention: self.target.name,
            energy_kept: kept,
            relative_error: if combined > 0.0 { (dropped / combined).sqrt() } else { 0.0 },
            distance_from_sum,
            inputs: inputs.collect(),
            spills: PairSpill::of_all(&spill, self.adapters.len()),
            parameters_before: done.iter().map(|done| done.parameters_before).sum(),
            parameters_after: done.iter().map(|done| done.parameters_after).sum(),
            bytes,
            stored: self.plan.stored.clone(),
            modules: done.iter().map(|done| done.report.clone()).collect(),
            warnings,
        }
    }
}
