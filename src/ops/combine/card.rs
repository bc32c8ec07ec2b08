//! The model card of a combination.

use std::collections::BTreeSet;

use super::open::Combine;
use super::report::Report;
use crate::adapter::{Adapter, convention};
use crate::ops::shared::card::{Card, CardInput, licence, percent};
use crate::ops::shared::provenance;

/// What the card says of what was combined and what came of it.
pub(super) fn card(combine: &Combine, report: &Report) -> Card {
    let used = combine.adapters.iter().map(|adapter| format!("{} modules", adapter.modules.len()));
    let inputs = report.inputs.iter().zip(used).map(|(input, used)| CardInput {
        name: provenance::name(&input.path),
        weight: match input.by_module {
            true => format!("{}, by module", input.weight),
            false => input.weight.to_string(),
        },
        used,
        licence: licence(&input.path),
    });
    let inputs: Vec<_> = inputs.collect();
    let bases: BTreeSet<&str> = combine.adapters.iter().filter_map(Adapter::base_model).collect();
    let mut how = vec![
        ("method", report.method.to_owned()),
        ("rank", report.rank.clone()),
        ("convention", report.convention.to_owned()),
    ];
    let params = combine.options.params.iter();
    how.extend(params.map(|(name, value)| ("parameter", format!("{name} {value}"))));
    how.push(("tool", format!("lora-tool {}", env!("CARGO_PKG_VERSION"))));
    how.push(("inputs", "their SHA-256 stand in the header of the weights".to_owned()));
    Card {
        title: provenance::name(&combine.options.output),
        summary: format!("One LoRA adapter made of {}.", inputs.len()),
        bases: bases.into_iter().map(str::to_owned).collect(),
        relation: "adapter",
        library: std::ptr::eq(combine.target, convention::peft()).then_some(combine.target.name),
        base_licence: None,
        inputs,
        how,
        figures: vec![
            ("modules", report.modules.len().to_string()),
            ("parameters", report.parameters_after.to_string()),
            ("energy of the combined update that was kept", percent(report.energy_kept)),
            ("error of the combined update", percent(report.relative_error)),
            ("distance from the exact weighted sum", percent(report.distance_from_sum)),
        ],
    }
}
