//! What a combination did.

use std::path::PathBuf;

use serde::Serialize;

use super::compute::{ModuleReport, ModuleSums};
use super::open::Combine;
use crate::format::natural::natural;
use crate::math::linalg::spill::Spill;
use crate::ops::shared::advice::Advice;
use crate::ops::shared::spills::PairSpill;

/// Share of the energy below which a user should know that the rank is low for the method.
const MOST_ENERGY_KEPT: f64 = 0.9;

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
    /// Whether nothing was written: the rest is what would be.
    pub dry_run: bool,
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

impl Combine {
    /// The report, from the sums of all modules and the bytes of the file.
    pub(super) fn report(&self, done: &[ModuleSums], bytes: u64) -> Report {
        let sum = |of: fn(&ModuleSums) -> f64| done.iter().map(of).sum::<f64>();
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
        let mut modules: Vec<_> = done.iter().map(|done| done.report.clone()).collect();
        modules.sort_by(|a, b| natural(&a.name, &b.name));
        Report {
            dry_run: false,
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
            modules,
            warnings,
        }
    }
}
