//! A batch as text.

use lora_tool::ops::batch::{ItemReport, Report, Status};

use super::Lines;

/// The word for what became of an item.
fn word(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::No => "no",
        Status::Unknown => "unknown",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
        Status::Planned => "planned",
        Status::Stopped => "not begun",
    }
}

/// A line when an item ends.
pub(crate) fn ended(item: &ItemReport) -> String {
    let reason = item.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} {}{reason}", word(item.status), item.item)
}

/// How many items came to what, and which of them are not done.
pub(crate) fn report(report: &Report, verbose: bool) -> String {
    const ALL: [Status; 7] = [
        Status::Done,
        Status::Planned,
        Status::Skipped,
        Status::No,
        Status::Unknown,
        Status::Failed,
        Status::Stopped,
    ];
    let mut lines = Lines::default();
    let count = |status: Status| report.items.iter().filter(|item| item.status == status).count();
    let counts = ALL.into_iter().filter(|status| count(*status) > 0);
    let counts: Vec<String> =
        counts.map(|status| format!("{} {}", count(status), word(status))).collect();
    let all = report.items.len();
    let items = if all == 1 { "1 item".to_owned() } else { format!("{all} items") };
    lines.plain(format!("{items} of {}: {}", report.jobs.display(), counts.join(", ")));
    for item in &report.items {
        let good = matches!(item.status, Status::Done | Status::Planned | Status::Skipped);
        if good && !verbose {
            continue;
        }
        let reason = item.reason.as_deref().unwrap_or_default();
        let hint = item.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let output = item.output.as_ref().filter(|_| good);
        let output = output.map(|output| format!(" → {}", output.display())).unwrap_or_default();
        let colon = if reason.is_empty() { "" } else { ": " };
        let line = format!("line {}: {}{output}{colon}{reason}{hint}", item.line, item.item);
        lines.add(word(item.status), line);
    }
    lines.into_text()
}
