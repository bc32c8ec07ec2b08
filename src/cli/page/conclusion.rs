//! What singular values come to, in a sentence.

use lora_tool::error::counted;
use lora_tool::ops::inspect::{Item, ModuleItem};

use crate::cli::render::inspect::is_base;
use crate::cli::render::percent;

/// Shares of the energy that a lower rank is asked to keep.
const SHARES: [f64; 2] = [0.90, 0.99];

/// The share of the energy Σσ² of all modules that ranks up to `rank` hold; none where nothing is known of it.
fn kept(modules: &[ModuleItem], rank: usize) -> Option<f64> {
    let (mut kept, mut all) = (0.0, 0.0);
    for module in modules {
        let values = &module.spectrum.as_ref()?.singular_values;
        let square = |value: &f64| value * value;
        kept += values.iter().take(rank).map(square).sum::<f64>();
        all += values.iter().map(square).sum::<f64>();
    }
    Some(kept / all).filter(|share| share.is_finite())
}

/// The lowest rank of all modules that keeps a share of the energy.
fn rank_for(modules: &[ModuleItem], share: f64) -> Option<usize> {
    let highest = modules.iter().map(|module| module.rank).max()?;
    (1..=highest).find(|rank| kept(modules, *rank).is_some_and(|kept| kept >= share))
}

/// What an adapter is and what a lower rank would keep of it.
pub(super) fn conclusion(item: &Item) -> Option<String> {
    let modules = item.modules.as_deref().filter(|modules| !modules.is_empty())?;
    let model = item
        .model
        .as_deref()
        .filter(|model| !is_base(item, model))
        .map(|model| format!(" for {model}"))
        .unwrap_or_default();
    let what = format!("an adapter{model} of {}", counted(modules.len(), "module"));
    let highest = modules.iter().map(|module| module.rank).max()?;
    let ranks: Vec<_> =
        SHARES.iter().filter_map(|share| Some((*share, rank_for(modules, *share)?))).collect();
    let lower: Vec<_> = ranks.iter().filter(|(_, rank)| *rank < highest).collect();
    let path = item.path.display();
    let advice = match (ranks.is_empty(), lower.first()) {
        (true, _) => return Some(format!("{what}.")),
        (false, None) => format!(
            "it needs its rank of {highest}: a lower one keeps less than 90 % of its energy"
        ),
        (false, Some((share, _))) => {
            let told: Vec<_> = lower
                .iter()
                .map(|(share, rank)| {
                    format!("rank {rank} keeps {} of its energy", percent(*share, 0))
                })
                .collect();
            format!(
                "of its rank of {highest}, {}: `lora-tool resize {path} --rank energy:{share} -o OUT`",
                told.join(", ")
            )
        }
    };
    Some(format!("{what}; {advice}."))
}
