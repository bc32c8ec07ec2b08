//! `extract` as text.

use std::collections::BTreeMap;

use lora_tool::error::counted;
use lora_tool::ops::extract::Report;

use super::combine::LITTLE;
use super::{LISTED, Lines, bytes, count, kept, number, percent, policy, table, tidy};

/// What was extracted, and what was not.
pub(crate) fn report(report: &Report, modules: bool) -> String {
    let mut lines = Lines::default();
    let done = if report.dry_run { "would extract" } else { "extracted" };
    lines.plain(format!("{done} into {}", tidy(&report.output).display()));
    lines.add("kept", outcome(report));
    if report.energy_kept < LITTLE {
        let text = "that is little: a higher --rank, or --rank energy:0.95, keeps more";
        lines.add("warning", text);
    }
    lines.add("convention", report.convention);
    lines.add("tensors", format!("{}, {} of them equal", report.tensors, report.equal));
    let ranks = report.modules.iter().map(|module| module.rank);
    let (lowest, highest) = (ranks.clone().min().unwrap_or(0), ranks.max().unwrap_or(0));
    let ranks =
        if lowest == highest { highest.to_string() } else { format!("{lowest} to {highest}") };
    lines.add(
        "modules",
        format!("{}, rank {ranks} ({})", report.modules.len(), policy(&report.rank)),
    );
    lines.add("size", format!("{} parameters, {}", count(report.parameters), bytes(report.bytes)));
    if !report.whole.is_empty() {
        lines.add("whole", format!("{}, stored whole", counted(report.whole.len(), "tensor")));
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tensor in &report.left_out {
        reasons.entry(&tensor.reason).or_default().push(&tensor.tensor);
    }
    for (reason, tensors) in reasons {
        lines.add("left out", format!("{}: {reason}", counted(tensors.len(), "tensor")));
        let shown = if modules { tensors.len() } else { LISTED.min(3) };
        for tensor in tensors.iter().take(shown) {
            lines.add("", tensor);
        }
        if tensors.len() > shown {
            lines.add("", format!("… and {} more", tensors.len() - shown));
        }
    }
    if modules {
        let head = ["module", "rank", "norm", "energy kept", "error", "gap"];
        let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        rows.extend(report.modules.iter().map(|module| {
            vec![
                module.name.clone(),
                module.rank.to_string(),
                number(module.norm),
                percent(module.energy_kept, 4),
                super::error(module.relative_error),
                module.gap.map_or(String::new(), |gap| format!("{gap:.3}")),
            ]
        }));
        lines.text(&table(&rows));
    }
    lines.into_text()
}

/// How much of the difference is in the file.
fn outcome(report: &Report) -> String {
    // Below what f32 holds, the rest is rounding.
    if report.relative_error < 1e-6 {
        return "all of the difference".to_owned();
    }
    let (share, error) = (kept(report.energy_kept), super::error(report.relative_error));
    format!("{share} of the difference; error {error}")
}
