//! Reports of `combine`, `resize` and `compare` as text.

use lora_tool::ops::combine::{Plan, Report};
use lora_tool::ops::compare;

use super::render::{Lines, bytes, count, percent, table};

/// What a combination will be.
pub(crate) fn plan(plan: &Plan, modules: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("would write {}", plan.output.display()));
    lines.add("method", format!("{}, rank {}", plan.method, plan.rank));
    lines.add("convention", plan.convention);
    lines.add("modules", plan.modules.len());
    if !plan.replacements.is_empty() {
        lines.add("replaces", format!("{} tensors of the base", plan.replacements.len()));
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

/// What a combination did.
pub(crate) fn combine(report: &Report, verb: &str, modules: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("{verb} {}", report.output.display()));
    lines.add("method", format!("{}, rank {}", report.method, report.rank));
    let highest = report.modules.iter().map(|module| module.rank).max().unwrap_or(0);
    let lowest = report.modules.iter().map(|module| module.rank).min().unwrap_or(0);
    let ranks =
        if highest == lowest { highest.to_string() } else { format!("{lowest} to {highest}") };
    lines.add("modules", format!("{}, rank {ranks}", report.modules.len()));
    let (before, after) = (count(report.parameters_before), count(report.parameters_after));
    lines.add("parameters", format!("{before} before, {after} now, {}", bytes(report.bytes)));
    lines.add(
        "kept",
        format!(
            "{} of the energy, relative error {:.2e}",
            percent(report.energy_kept, 4),
            report.relative_error
        ),
    );
    for input in report.inputs.iter().filter(|_| report.inputs.len() > 1) {
        let (path, weight) = (input.path.display(), input.weight);
        lines.add(
            "input",
            format!("{path}  weight {weight}: {} of it survived", percent(input.survived, 1)),
        );
    }
    if modules {
        let head = ["module", "rank before", "rank", "energy kept", "relative error"];
        let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        rows.extend(report.modules.iter().map(|module| {
            vec![
                module.name.clone(),
                module.rank_before.to_string(),
                module.rank.to_string(),
                percent(module.energy_kept, 4),
                format!("{:.2e}", module.relative_error),
            ]
        }));
        lines.text(&table(&rows));
    }
    lines.into_text()
}

/// How adapters get along.
pub(crate) fn compare(report: &compare::Report, modules: bool) -> String {
    let mut lines = Lines::default();
    for (at, adapter) in report.adapters.iter().enumerate() {
        lines.plain(format!("[{}] {}", at + 1, adapter.path.display()));
        lines.add("modules", adapter.modules);
        lines.add("norm", format!("{:.4}, weight {}", adapter.norm, adapter.weight));
        lines.add("survives", format!("{} in the weighted sum", percent(adapter.survives, 1)));
    }
    let head = [
        "pair",
        "modules",
        "cosine",
        "out overlap",
        "in overlap",
        "sign conflict",
        "interference",
        "norm ratio",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for pair in &report.pairs {
        let name = format!("[{}] [{}]", pair.a + 1, pair.b + 1);
        rows.push(row(name, pair.shared_modules.to_string(), &pair.measures));
        for module in pair.modules.iter().filter(|_| modules) {
            rows.push(row(format!("  {}", module.name), String::new(), &module.measures));
        }
    }
    lines.text(&table(&rows));
    lines.add("interference", format!("{:.3} of all together", report.interference));
    lines.add("advice", format!("{} (rule: {})", report.advice.text, report.advice.rule));
    lines.into_text()
}

fn row(name: String, modules: String, measures: &compare::Measures) -> Vec<String> {
    vec![
        name,
        modules,
        format!("{:+.3}", measures.cosine),
        format!("{:.3}", measures.output_overlap),
        format!("{:.3}", measures.input_overlap),
        format!("{:.3}", measures.sign_conflict),
        format!("{:.3}", measures.interference),
        format!("{:.3}", measures.norm_ratio),
    ]
}
