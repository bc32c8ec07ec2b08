//! `diff` as text.

use lora_tool::ops::diff::{Compared, Report};

use super::{LISTED, Lines, table};

/// What differs.
pub(crate) fn report(report: &Report, all: bool) -> String {
    let mut lines = Lines::default();
    let what = match report.compared {
        Compared::Checkpoints => "tensors",
        Compared::Adapters => "modules, by their deltas",
        Compared::Tensors => "tensors (the deltas depend on the base)",
    };
    lines.plain(if report.same { "the same" } else { "different" });
    lines.add("compared", what);
    lines.add("equal", report.equal);
    lines.add("different", report.different.len());
    lines.add("apart", format!("{} of the larger", super::error(report.relative)));
    let shown = if all { usize::MAX } else { LISTED };
    for (label, names) in [("only in A", &report.only_a), ("only in B", &report.only_b)] {
        for name in names.iter().take(shown) {
            lines.add(label, name);
        }
        if names.len() > shown {
            lines.add(label, format!("… and {} more", names.len() - shown));
        }
    }
    if report.different.is_empty() {
        return lines.into_text();
    }
    let head = ["different", "apart", "largest", "elements", ""];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    let text = |value: Option<f64>, of: fn(f64) -> String| value.map_or(String::new(), of);
    rows.extend(report.different.iter().take(shown).map(|differs| {
        vec![
            differs.name.clone(),
            text(differs.relative, super::error),
            text(differs.largest, |value| format!("{value:.3e}")),
            differs.elements.map_or(String::new(), |count| count.to_string()),
            differs.what.clone().unwrap_or_default(),
        ]
    }));
    lines.text(&table(&rows));
    if report.different.len() > shown {
        lines.plain(format!("  … and {} more", report.different.len() - shown));
    }
    lines.into_text()
}
