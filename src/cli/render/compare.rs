//! How adapters get along.

use lora_tool::ops::compare::{self, Measures};
use lora_tool::ops::shared::spills::PairSpill;

use super::{Lines, percent, table};

/// How adapters get along.
pub(crate) fn report(report: &compare::Report, modules: bool) -> String {
    let mut lines = Lines::default();
    for (at, adapter) in report.adapters.iter().enumerate() {
        lines.plain(format!("[{}] {}", at + 1, adapter.path.display()));
        lines.add("modules", adapter.modules);
        lines.add("norm", format!("{:.4}, weight {}", adapter.norm, adapter.weight));
        lines.add("spill", spill(adapter.spill));
    }
    let head = [
        "pair",
        "modules",
        "cosine",
        "out overlap",
        "in overlap",
        "sign conflict",
        "spill",
        "norm ratio",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for (pair, spill) in report.pairs.iter().zip(&report.spills) {
        let name = format!("[{}] [{}]", pair.a + 1, pair.b + 1);
        rows.push(row(name, pair.shared_modules.to_string(), &pair.measures, both_ways(spill)));
        for module in pair.modules.iter().filter(|_| modules) {
            let name = format!("  {}", module.name);
            rows.push(row(name, String::new(), &module.measures, String::new()));
        }
    }
    lines.text(&table(&rows));
    lines.add("advice", format!("{} (rule: {})", report.advice.text, report.advice.rule));
    lines.into_text()
}

/// What is written over an adapter, in words.
pub(crate) fn spill(spill: Option<f64>) -> String {
    match spill {
        Some(spill) => {
            format!("where it writes, the others write {} of what it does", percent(spill, 1))
        }
        None => "it writes nothing itself".to_owned(),
    }
}

/// What is written over the first of a pair and over the second.
pub(crate) fn both_ways(pair: &PairSpill) -> String {
    let of = |spill: Option<f64>| spill.map_or("-".to_owned(), |spill| percent(spill, 1));
    format!("{} / {}", of(pair.on_a), of(pair.on_b))
}

fn row(name: String, modules: String, measures: &Measures, spill: String) -> Vec<String> {
    vec![
        name,
        modules,
        format!("{:+.3}", measures.cosine),
        format!("{:.3}", measures.output_overlap),
        format!("{:.3}", measures.input_overlap),
        format!("{:.3}", measures.sign_conflict),
        spill,
        format!("{:.3}", measures.norm_ratio),
    ]
}
