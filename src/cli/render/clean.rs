//! What killed runs have left.

use lora_tool::error::counted;
use lora_tool::ops::clean::{Left, Report};

use super::{Lines, bytes};

/// What was removed, and what stays.
pub(crate) fn report(report: &Report) -> String {
    let mut lines = Lines::default();
    let size: u64 = report.removed.iter().map(|left| left.bytes).sum();
    let found = counted(report.removed.len(), "temporary file or folder");
    lines.plain(match (report.removed.len(), report.dry_run) {
        (0, _) => "nothing is left of killed runs".to_owned(),
        (_, true) => format!("would remove {found} of killed runs, {}", bytes(size)),
        (_, false) => format!("removed {found} of killed runs, {}", bytes(size)),
    });
    let mut list = |label: &str, all: &[Left]| {
        for left in all {
            lines.add(label, format!("{}, {}", left.path.display(), bytes(left.bytes)));
        }
    };
    list(if report.dry_run { "would remove" } else { "removed" }, &report.removed);
    list("in use", &report.alive);
    list("unknown", &report.unknown);
    list("kept", &report.kept);
    if !report.unknown.is_empty() {
        lines.add("", "the file system has no locks: remove these yourself if no run is under way");
    }
    if !report.kept.is_empty() {
        lines.add("", "`merge --resume` goes on from what is kept; --kept removes it too");
    }
    lines.into_text()
}
