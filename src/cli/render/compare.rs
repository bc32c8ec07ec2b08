//! How adapters get along.

use lora_tool::ops::compare;

use super::{Lines, percent, table};

/// How adapters get along.
pub(crate) fn report(report: &compare::Report, modules: bool) -> String {
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
