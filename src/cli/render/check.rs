//! What programs would make of an adapter.

use lora_tool::ops::check::{Answer, Finding, Report, Severity, Verdict};

use super::{Lines, table};

/// The verdicts: of one program in full, of all in a table.
pub(crate) fn report(report: &Report, all: bool, verbose: bool) -> String {
    let mut lines = Lines::default();
    let own = report.findings.iter().filter(|finding| finding.program.is_none());
    if all {
        lines.plain(format!("{}: {} convention", report.adapter.display(), report.convention));
        own.for_each(|finding| one(&mut lines, finding, verbose));
        lines.text(&verdicts(report));
        lines.plain("in full: --for PROGRAM");
        return lines.into_text();
    }
    for verdict in &report.programs {
        let adapter = report.adapter.display();
        let (program, version) = (verdict.program, &verdict.version);
        lines.plain(match report.answer {
            Answer::Yes => format!("{adapter}: {program} {version} loads it right"),
            Answer::No if verdict.answer == Answer::Yes => {
                format!("{adapter}: {program} {version} loads it, and it is not sound")
            }
            Answer::No => format!("{adapter}: {program} {version}: {}", verdict.verdict),
            Answer::Unknown => format!("{adapter}: {program} {version}: nobody knows"),
        });
    }
    let fix = report.programs.iter().find_map(|verdict| verdict.fix.as_ref());
    for finding in &report.findings {
        one(&mut lines, finding, verbose);
        // Where no command mends all of it, some may mend a part.
        if let (None, Some(_), Some(part)) = (fix, finding.program, &finding.fix) {
            lines.add("fix of that", part);
        }
    }
    if let Some(fix) = fix {
        lines.add("fix", fix);
    }
    if report.against.is_none() && report.answer == Answer::Yes {
        lines.add("not checked", "names and shapes of a base: --against BASE");
    }
    lines.into_text()
}

/// A finding, with its places and source.
fn one(lines: &mut Lines, finding: &Finding, verbose: bool) {
    let shown = if verbose { usize::MAX } else { 4 };
    let label = match finding.severity {
        Severity::Breaks => "breaks",
        Severity::Changes => "changes",
        Severity::Unknown => "unknown",
        Severity::Note => "note",
    };
    let place = |place: &lora_tool::ops::check::Place| match place.factor {
        Some(factor) => format!("{} × {}", place.name, rounded(factor)),
        None => place.name.clone(),
    };
    let places: Vec<String> = finding.places.iter().take(shown).map(place).collect();
    let more = if finding.places.len() > shown { ", …" } else { "" };
    let places = match places.as_slice() {
        [] => String::new(),
        names => format!(" ({}: {}{more})", finding.places.len(), names.join(", ")),
    };
    lines.add(label, format!("{}{places}", finding.says));
    if !finding.source.is_empty() {
        lines.add("", format!("{}: {}", finding.rule, finding.source));
    }
    if finding.program.is_none()
        && let Some(fix) = &finding.fix
    {
        lines.add("hint", fix);
    }
}

/// A row for each program.
fn verdicts(report: &Report) -> String {
    let head = ["program", "version", "verdict", "modules", "why, or what it needs"];
    let head = head.map(str::to_owned).to_vec();
    let row = |verdict: &Verdict| {
        let (wrong, all) = verdict.modules;
        let own = report.findings.iter().filter(|finding| {
            finding.program == Some(verdict.program) && finding.severity != Severity::Note
        });
        let why = own.max_by_key(|finding| finding.effect).map(|finding| finding.says.clone());
        let why = why.unwrap_or_else(|| verdict.needs.join(", "));
        let count = if verdict.answer == Answer::Unknown {
            String::new()
        } else {
            format!("{} of {all}", all - wrong)
        };
        let verdict_word = verdict.verdict.to_owned();
        vec![verdict.program.to_owned(), verdict.version.clone(), verdict_word, count, why]
    };
    let rows = report.programs.iter().map(row);
    table(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

/// A factor with four digits that matter.
fn rounded(factor: f64) -> String {
    let text = format!("{factor:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "0" || text == "-0" {
        format!("{factor:.1e}")
    } else {
        text.to_owned()
    }
}
