//! What a conversion will do, or did.

use lora_tool::error::counted;
use lora_tool::ops::convert::Report;

use super::{Lines, bytes, table, tidy};

/// A conversion in a few lines, each module in one more if asked for.
pub(crate) fn report(report: &Report, modules: bool) -> String {
    let mut lines = Lines::default();
    let verb = if report.dry_run { "would convert" } else { "converted" };
    let (from, to, output) = (report.from, report.to, tidy(&report.output));
    lines.plain(match &report.program {
        Some(program) => format!("{verb} {from} for {program} ({to}): {}", output.display()),
        None => format!("{verb} {from} to {to}: {}", output.display()),
    });
    lines.add("modules", report.modules.len());
    let folded = report.modules.iter().filter(|module| module.folded != 1.0).count();
    if folded > 0 {
        lines
            .add("folded", format!("the scale of {}, into the factors", counted(folded, "module")));
    }
    let factored = report.modules.iter().filter(|module| module.factored.is_some()).count();
    if factored > 0 {
        lines
            .add("factored", format!("{} of other families, exactly", counted(factored, "module")));
    }
    if !report.lost.is_empty() {
        lines.add("lost", report.lost.len());
    }
    if !report.dry_run {
        let kept = report.kept_relative_error;
        lines.add("error", match report.max_relative_error {
            Some(error) => format!("{} in any module, read again and compared", super::error(error)),
            None => format!(
                "unknown, for part of the update was left out; {} in any module of the rest, compared",
                super::error(kept)
            ),
        });
    }
    lines.add("size", bytes(report.bytes));
    for flag in &report.needs {
        lines.add("note", format!("it has to be started with {flag}"));
    }
    if modules {
        let head = ["module", "becomes", "folded", "error"].map(str::to_owned).to_vec();
        let rows = report.modules.iter().map(|module| {
            let folded = module.folded.to_string();
            let error = super::error(module.relative_error);
            vec![module.from.join(" + "), module.to.clone(), folded, error]
        });
        lines.text(&table(&[head].into_iter().chain(rows).collect::<Vec<_>>()));
    }
    lines.into_text()
}
