//! What a header says, or what an edit changed.

use lora_tool::adapter::training;
use lora_tool::format::Metadata;
use lora_tool::ops::metadata::Report;

use super::Lines;

/// Entries of a header, a line each, long ones summarised.
fn entries(lines: &mut Lines, metadata: &Metadata) {
    for (key, value) in metadata {
        lines.plain(format!("  {key}: {}", training::summary(key, value)));
    }
}

/// What the header says, or what an edit changed.
pub(crate) fn report(report: &Report) -> String {
    let mut lines = Lines::default();
    if report.output.is_none() && !report.dry_run {
        lines.plain(report.file.display());
        entries(&mut lines, &report.metadata);
        return lines.into_text();
    }
    let place = report.output.as_ref().unwrap_or(&report.file);
    let count = match report.changes.len() {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let done = if report.dry_run { "would change" } else { "changed" };
    lines.plain(format!("{}: {count} {done}", place.display()));
    for change in &report.changes {
        let (key, short) = (&change.key, |value: &String| training::summary(&change.key, value));
        lines.plain(match (&change.before, &change.after) {
            (_, None) => format!("  - {key}"),
            (None, Some(after)) => format!("  + {key}: {}", short(after)),
            (Some(_), Some(after)) => format!("  ~ {key}: {}", short(after)),
        });
    }
    lines.into_text()
}
