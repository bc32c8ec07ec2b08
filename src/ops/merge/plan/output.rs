//! Everything that a merge will write, as plain data.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::layout::{OutputShard, OutputTensor};
use super::method_choice::MethodChoice;
use super::predicted::Prediction;
use super::quantised::{Dequantised, Requantised};
use super::side::NotCarried;
use super::tensor_plan::{Encode, TensorPlan};
use super::trained::AsTrained;
use crate::error::{Error, QuantError, Result, UnmatchedName};
use crate::format::Metadata;
use crate::math::DeltaStats;
use crate::ops::shared::advice::Advice;
use crate::ops::shared::card::CARD_NAME;
use crate::ops::shared::side_file::SideFile;

/// An adapter's part in a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedAdapter {
    /// Its path.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
    /// Whether rules multiply it, module by module.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_module: bool,
    /// Its convention.
    pub convention: String,
    /// Modules and replacements in it.
    pub total: usize,
    /// Of those, what is applied.
    pub applied: usize,
    /// Of those, what `--include`, `--exclude` or a weight of 0 leave out.
    pub left_out: usize,
}

/// Everything that will be written, decided before a byte is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The base.
    pub base: PathBuf,
    /// Why the method was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
    /// The adapters.
    pub adapters: Vec<PlannedAdapter>,
    /// The output.
    pub output: PathBuf,
    /// The method that combines the deltas; their weighted sum if none.
    pub method: Option<MethodChoice>,
    /// The text of the recipe that asked for it, for the headers of its files.
    pub recipe: Option<String>,
    /// The options that every header says, if the headers are to say what the result was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Map<String, Value>>,
    /// What every header says of where the result comes from, once the inputs were hashed for it.
    pub origin: Option<Metadata>,
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
    /// Weights of the base that are quantised again, if any are.
    pub requantised: Option<Requantised>,
    /// What of their updates is expected to survive that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// Weights of the base that are as the adapter was trained on them, if any are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_trained: Option<AsTrained>,
    /// Quantised weights of the base that are written as plain numbers, if they are.
    pub dequantised: Option<Dequantised>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Leaves out the base's own model card, in whose place the result's will stand.
    pub(in crate::ops::merge) fn make_room_for_card(&mut self) {
        let before = self.side_files.len();
        self.side_files.retain(|file| file.relative != CARD_NAME);
        if self.side_files.len() < before {
            let reason = "it describes the base; the result has a card of its own".to_owned();
            self.not_carried.push(NotCarried { file: CARD_NAME.to_owned(), reason });
        }
    }

    /// Fails if less of an update survived where its weight was quantised again than shall.
    ///
    /// # Errors
    /// [`QuantError::Survival`], which names the weight of which least survived.
    pub(in crate::ops) fn check_survival(&self, stats: &[(String, DeltaStats)]) -> Result<()> {
        self.check_gains(self.survival(stats))
    }

    /// As [`Plan::check_survival`], of the shares themselves.
    ///
    /// # Errors
    /// As [`Plan::check_survival`].
    pub(in crate::ops::merge) fn check_gains(&self, survival: Vec<(&str, f64)>) -> Result<()> {
        let Some(again) = &self.requantised else { return Ok(()) };
        let least = survival.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        // Where nothing has to survive, an update may even turn round.
        let least = least.filter(|_| again.min_survival > 0.0);
        match least.filter(|(_, gain)| *gain < again.min_survival) {
            None => Ok(()),
            Some((name, gain)) => {
                let percent = |share: f64| (share * 1000.0).round() / 10.0;
                let (kept, least) = (percent(gain), percent(again.min_survival));
                Err(Error::from(QuantError::Survival { kept, least }).in_tensor(name))
            }
        }
    }

    /// Of each weight that was quantised again the share of its update that survived: ⟨added, asked⟩ / ⟨asked, asked⟩.
    pub(in crate::ops::merge) fn survival<'a>(
        &self,
        stats: &'a [(String, DeltaStats)],
    ) -> Vec<(&'a str, f64)> {
        let again = self.tensors().filter_map(|tensor| match &tensor.plan {
            TensorPlan::Encode(Encode { part: 0, dense }) => Some(dense.full_name.as_str()),
            _ => None,
        });
        let again: BTreeSet<&str> = again.collect();
        let stats = stats.iter().filter(|(name, _)| again.contains(name.as_str()));
        let stats = stats.filter(|(_, stats)| stats.asked > 0.0);
        stats.map(|(name, stats)| (name.as_str(), stats.dot / stats.asked)).collect()
    }

    /// Tensors of all shards.
    pub fn tensors(&self) -> impl Iterator<Item = &OutputTensor> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    pub(in crate::ops::merge) fn count(&self, wanted: fn(&TensorPlan) -> bool) -> usize {
        self.tensors().filter(|tensor| wanted(&tensor.plan)).count()
    }
}
