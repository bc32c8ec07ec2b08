//! What a merge reports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::check::verdict;
use super::open::Merge;
use super::plan::kept::OutputShard;
use super::plan::output::PlannedAdapter;
use super::plan::predicted::Prediction;
use super::plan::quantised::{Dequantised, Requantised};
use super::plan::side::NotCarried;
use super::plan::tensor_plan::TensorPlan;
use super::plan::trained::AsTrained;
use super::residual::Residual;
use crate::error::UnmatchedName;
use crate::math::DeltaStats;
use crate::ops::shared::advice::Advice;
use crate::weight::Trained;

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

/// What survived of an update whose weight was quantised again.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Survival {
    /// The weight's name.
    pub name: String,
    /// ⟨added, asked⟩ / ⟨asked, asked⟩: 1 if all of it did.
    pub gain: f64,
    /// Cosine of added and asked.
    pub cosine: f64,
    /// Share of the elements that the update is for whose code changed; whose value did, where scales lie among the
    /// codes.
    pub changed: f64,
}

/// A weight file of the result.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WeightFile {
    /// Its path below the result; empty if the result is this file.
    pub name: String,
    /// How many tensors are in it.
    pub tensors: usize,
    /// Bytes of these.
    pub bytes: u64,
}

/// What a merge did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether nothing was written: the rest is what would be.
    pub dry_run: bool,
    /// Where the result is.
    pub output: PathBuf,
    /// The base.
    pub base: PathBuf,
    /// Why the method was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
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
    /// The same by name, with the tensors in each.
    pub files: Vec<WeightFile>,
    /// Other files beside them.
    pub side_files: Vec<String>,
    /// Of those, finished by an earlier run that was interrupted.
    pub shards_reused: usize,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Weights of the base that were quantised again, if any were.
    pub requantised: Option<Requantised>,
    /// What of their updates was expected to survive that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// Weights of the base that are as the adapter was trained on them, if any are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_trained: Option<AsTrained>,
    /// Of each weight that was quantised again, what survived of its update.
    pub survival: Vec<Survival>,
    /// The adapter that gives back what quantising took, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<Residual>,
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
    pub verification: Option<verdict::Report>,
    /// Bytes of the receipt, if one was kept.
    pub receipt_bytes: Option<u64>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Cosine of the effective delta below which a warning is due.
const COSINE_WARNING: f64 = 0.99;

impl Merge {
    /// Tensors that turned out to be the same in all checkpoints, and whether their dtype changed.
    fn equal_tensors(&self, stats: &[(String, DeltaStats)]) -> BTreeMap<&str, bool> {
        let stats: BTreeMap<_, _> =
            stats.iter().map(|(name, stats)| (name.as_str(), stats)).collect();
        let equal = self.plan.tensors().filter(|tensor| {
            let asked = stats.get(tensor.full_name.as_str()).map_or(0.0, |stats| stats.asked);
            tensor.plan.differences().is_some() && asked == 0.0
        });
        let dtype = |name: &str| self.inputs.base.tensor(name).map(|view| view.spec.dtype);
        equal
            .map(|tensor| (tensor.full_name.as_str(), dtype(&tensor.base) != Some(tensor.dtype)))
            .collect()
    }

    /// What survived of the updates of weights that were quantised again.
    fn survival(&self, stats: &[(String, DeltaStats)]) -> Vec<Survival> {
        let of = |(name, gain): (&str, f64)| {
            let (_, stats) = stats.iter().find(|(own, _)| own == name)?;
            let (cosine, changed) = (stats.cosine(), 1.0 - stats.lost_share());
            Some(Survival { name: name.to_owned(), gain, cosine, changed })
        };
        self.plan.survival(stats).into_iter().filter_map(of).collect()
    }

    /// What the merge would do: all that is known before a tensor is computed.
    pub fn preview(&self) -> Report {
        Report { dry_run: true, ..self.report(&[]) }
    }

    /// What a merge did, from what rounding did to each tensor.
    pub(in crate::ops) fn report(&self, stats: &[(String, DeltaStats)]) -> Report {
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
        let is_rounded = plan.requantised.is_none();
        let low = effective.filter(|effective| is_rounded && effective.cosine < COSINE_WARNING);
        if let Some(low) = low {
            warnings.push(format!(
                "rounding lost part of the update: cosine {:.4} between what was asked and what the \
                 result holds; a wider --dtype keeps more",
                low.cosine
            ));
        }
        let changed = plan.count(TensorPlan::changes);
        let equal = self.equal_tensors(stats);
        let converted = equal.values().filter(|converted| **converted).count();
        let file = |shard: &OutputShard| WeightFile {
            name: shard.relative.clone(),
            tensors: shard.tensors.len(),
            bytes: shard.bytes(),
        };
        Report {
            dry_run: false,
            output: plan.output.clone(),
            base: plan.base.clone(),
            chosen: plan.chosen.clone(),
            adapters: plan.adapters.clone(),
            modules: plan.adapters.iter().map(|adapter| adapter.total).sum(),
            modules_applied: plan.adapters.iter().map(|adapter| adapter.applied).sum(),
            tensors_changed: changed - equal.len(),
            tensors_converted: plan.count(|plan| matches!(plan, TensorPlan::Convert)) + converted,
            tensors_copied: plan.count(|plan| matches!(plan, TensorPlan::Copy)) + equal.len()
                - converted,
            shards: plan.shards.len(),
            shards_reused: 0,
            files: plan.shards.iter().map(file).collect(),
            side_files: plan.side_files.iter().map(|file| file.relative.clone()).collect(),
            bytes: plan.bytes,
            requantised: plan.requantised.clone(),
            prediction: plan.prediction.clone(),
            as_trained: plan.as_trained.clone().map(|found| AsTrained {
                moved: self.inputs.trained.as_ref().and_then(Trained::moved),
                ..found
            }),
            survival: self.survival(stats),
            residual: None,
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
