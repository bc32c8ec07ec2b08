//! What an adapter became as a LoRA.

use lora_tool::ops::as_lora::Report;

use super::{Lines, bytes, number, policy, table};

/// A conversion to plain factors in a few lines, each module in one more if asked for.
pub(crate) fn report(report: &Report, modules: bool) -> String {
    let mut lines = Lines::default();
    let verb = if report.dry_run { "would convert" } else { "converted" };
    let (from, to, output) = (report.from, report.to, report.output.display());
    lines.plain(format!("{verb} {from} to {to} as LoRA: {output}"));
    lines.add("rank", policy(&report.rank));
    if !report.lost.is_empty() {
        lines.add("lost", report.lost.len());
    }
    let exact = report.modules.iter().filter(|module| module.exact_factors).count();
    let decomposed = report.modules.len() - exact;
    lines.add("modules", format!("{exact} by their factors, {decomposed} decomposed"));
    let worst = report.modules.iter().map(|module| module.relative_error).fold(0.0, f64::max);
    lines.add(
        "error",
        format!(
            "{} of all updates, {} in any module",
            super::error(report.relative_error),
            super::error(worst)
        ),
    );
    lines.add("size", bytes(report.bytes));
    if modules {
        let head = ["module", "was", "rank", "norm", "error"].map(str::to_owned).to_vec();
        let rows = report.modules.iter().map(|module| {
            let (norm, error) = (number(module.norm), super::error(module.relative_error));
            vec![
                module.name.clone(),
                module.family.to_owned(),
                module.rank.to_string(),
                norm,
                error,
            ]
        });
        lines.text(&table(&[head].into_iter().chain(rows).collect::<Vec<_>>()));
    }
    lines.into_text()
}
