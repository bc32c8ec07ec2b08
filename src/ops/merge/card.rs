//! The model card of a merge.

use crate::format::json::model_config;
use crate::ops::merge::{Merge, Report};
use crate::ops::shared::card::{Card, CardInput, base_name, licence, percent};
use crate::ops::shared::provenance;

/// What the card says of what was merged and what came of it.
pub(super) fn card(merge: &Merge, report: &Report) -> Card {
    let plan = &merge.plan;
    let inputs = plan.adapters.iter().map(|adapter| CardInput {
        name: provenance::name(&adapter.path),
        weight: match adapter.by_module {
            true => format!("{}, by module", adapter.weight),
            false => adapter.weight.to_string(),
        },
        used: format!("{} of {} modules", adapter.applied, adapter.total),
        licence: licence(&adapter.path),
    });
    let inputs: Vec<_> = inputs.collect();
    let base = base_name(&plan.base);
    let is_transformers = merge
        .inputs
        .base
        .directory()
        .and_then(|directory| model_config(directory).ok()?)
        .is_some_and(|config| config.contains_key("architectures"));
    Card {
        title: provenance::name(&plan.output),
        summary: format!(
            "{base} with {} merged into its weights. It needs no adapter to be loaded beside it.",
            if inputs.len() == 1 {
                "an adapter".to_owned()
            } else {
                format!("{} adapters", inputs.len())
            }
        ),
        bases: vec![base],
        relation: "merge",
        library: is_transformers.then_some("transformers"),
        base_licence: licence(&plan.base),
        inputs,
        how: how(merge),
        figures: figures(report),
    }
}

fn how(merge: &Merge) -> Vec<(&'static str, String)> {
    let method = merge.options.method.as_deref().unwrap_or("linear");
    let mut how = vec![("method", method.to_owned())];
    how.extend(
        merge.options.params.iter().map(|(name, value)| ("parameter", format!("{name} {value}"))),
    );
    if let Some(dtype) = merge.options.dtype {
        how.push(("dtype", dtype.to_string()));
    }
    how.push(("tool", format!("lora-tool {}", env!("CARGO_PKG_VERSION"))));
    if merge.options.provenance {
        how.push((
            "inputs",
            "their SHA-256 stand in the header of the weights; `lora-tool verify` holds the result to them".to_owned(),
        ));
    }
    how
}

fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("tensors changed", report.tensors_changed.to_string()),
        ("tensors copied byte for byte", report.tensors_copied.to_string()),
    ];
    if let Some(effective) = &report.effective {
        // |x - y|² = |x|² + |y|² - 2 |x| |y| cos, relative to |x|.
        let (ratio, cosine) = (effective.norm_ratio, effective.cosine);
        let error = (1.0 + ratio * ratio - 2.0 * ratio * cosine).max(0.0).sqrt();
        figures.push(("error of the update after rounding", percent(error)));
        figures.push(("changes lost to rounding", percent(effective.unchanged)));
    }
    figures
}
