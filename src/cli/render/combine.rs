//! What `combine` and `resize` will do, and what they did.

use lora_tool::error::counted;
use lora_tool::ops::combine::{Plan, Report};
use lora_tool::ops::shared::advice::Advice;

use super::compare::{both_ways, spill};
use super::{Lines, bytes, count, percent, table, weight};

/// Energy kept below which a rank is told to be low.
const LITTLE: f64 = 0.9;

/// What a combination will be.
pub(crate) fn plan(plan: &Plan, modules: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("would write {}", plan.output.display()));
    lines.add("method", method(plan.method, plan.space, &plan.rank));
    chosen(&mut lines, plan.chosen.as_ref());
    lines.add("convention", plan.convention);
    lines.add("modules", plan.modules.len());
    if !plan.stored.is_empty() {
        lines.add("stored", format!("{}, summed whole", counted(plan.stored.len(), "difference")));
    }
    if !plan.replacements.is_empty() {
        lines
            .add("replaces", format!("{} of the base", counted(plan.replacements.len(), "tensor")));
    }
    if modules {
        let rows = plan.modules.iter().map(|module| {
            let ranks: Vec<_> = module.ranks.iter().map(ToString::to_string).collect();
            vec![
                module.name.clone(),
                format!("{} × {}", module.outputs, module.inputs),
                ranks.join(" + "),
            ]
        });
        lines.text(&table(&rows.collect::<Vec<_>>()));
    }
    for warning in &plan.warnings {
        lines.add("warning", warning);
    }
    lines.into_text()
}

/// Why a method was chosen.
pub(crate) fn chosen(lines: &mut Lines, advice: Option<&Advice>) {
    if let Some(advice) = advice {
        lines.add("chosen", format!("{} (rule: {})", advice.text, advice.rule));
    }
}

fn method(method: &str, space: Option<&str>, rank: &str) -> String {
    let space = space.map_or(String::new(), |space| format!(" in {space} space"));
    format!("{method}{space}, rank {rank}")
}

/// What a combination did.
pub(crate) fn report(report: &Report, command: &str, modules: bool) -> String {
    let mut lines = Lines::default();
    let done = if command == "resize" { "resized" } else { "combined" };
    lines.plain(format!("{done} into {}", report.output.display()));
    lines.add("method", method(report.method, report.space, &report.rank));
    chosen(&mut lines, report.chosen.as_ref());
    let highest = report.modules.iter().map(|module| module.rank).max().unwrap_or(0);
    let lowest = report.modules.iter().map(|module| module.rank).min().unwrap_or(0);
    let ranks =
        if highest == lowest { highest.to_string() } else { format!("{lowest} to {highest}") };
    lines.add("modules", format!("{}, rank {ranks}", report.modules.len()));
    if !report.stored.is_empty() {
        lines.add("stored", format!("{} differences, summed whole", report.stored.len()));
    }
    if report.energy_kept < LITTLE {
        let (kept, error) = (percent(report.energy_kept, 0), super::error(report.relative_error));
        lines.add("warning", format!(
            "the rank keeps only {kept} of the energy (error {error}): a higher --rank, or energy:0.95, keeps more"
        ));
    }
    let (before, after) = (count(report.parameters_before), count(report.parameters_after));
    lines.add("parameters", format!("{before} before, {after} now, {}", bytes(report.bytes)));
    lines.add(
        "kept",
        format!(
            "{} of the energy; error {} of the update",
            percent(report.energy_kept, 1),
            super::error(report.relative_error)
        ),
    );
    for input in report.inputs.iter().filter(|_| report.inputs.len() > 1) {
        let path = input.path.display();
        let weight = weight(input.weight, input.by_module);
        lines.add("input", format!("{path}  {weight}"));
        lines.add("spill", spill(input.spill));
    }
    for pair in report.spills.iter().filter(|_| report.inputs.len() > 2) {
        let (a, b) = (pair.a + 1, pair.b + 1);
        lines.add("spill", format!("inputs {a} / {b} over each other: {}", both_ways(pair)));
    }
    if modules {
        let head = ["module", "rank before", "rank", "energy kept", "error"];
        let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        rows.extend(report.modules.iter().map(|module| {
            vec![
                module.name.clone(),
                module.rank_before.to_string(),
                module.rank.to_string(),
                percent(module.energy_kept, 4),
                super::error(module.relative_error),
            ]
        }));
        lines.text(&table(&rows));
    }
    lines.into_text()
}
