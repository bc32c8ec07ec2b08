//! What a program would make of an adapter.

use lora_tool::ops::check::{Report, Severity};

use super::Lines;

/// The findings, each with its remedy.
pub(crate) fn report(report: &Report) -> String {
    const SHOWN: usize = 4;
    let mut lines = Lines::default();
    let (adapter, program) = (report.adapter.display(), report.program);
    lines.plain(match report.ok {
        true => format!("{adapter}: {program} loads it right"),
        false => format!("{adapter}: {program} does not load it right"),
    });
    for finding in &report.findings {
        let label = match finding.severity {
            Severity::Breaks => "breaks",
            Severity::Changes => "changes",
        };
        let places: Vec<&str> = finding.places.iter().take(SHOWN).map(String::as_str).collect();
        let more = if finding.places.len() > SHOWN { ", …" } else { "" };
        let places = match places.as_slice() {
            [] => String::new(),
            names => format!(" ({}: {}{more})", finding.places.len(), names.join(", ")),
        };
        lines.add(label, format!("{}{places}", finding.says));
        if let Some(fix) = &finding.fix {
            lines.add("fix", fix);
        }
    }
    lines.into_text()
}
