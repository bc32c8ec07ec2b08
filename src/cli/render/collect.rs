//! What a collection holds, and how far its adapters are from what they were.

use lora_tool::error::counted;
use lora_tool::ops::collect::{Entry, Exported, Info, Planned, Report};

use super::{Cell, LISTED, Lines, bytes, columns, error, number};

/// A collection that would be made.
pub(crate) fn planned(plan: &Planned) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("would collect into {}", plan.output.display()));
    lines.add("adapters", plan.adapters.len());
    lines.add("modules", plan.modules);
    lines.add("directions", format!("{} a module", plan.rank));
    lines.into_text()
}

/// A collection that was made, or added to.
pub(crate) fn report(what: &str, report: &Report, all: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("{what} {}", report.output.display()));
    shape(&mut lines, report.rank, report.clusters, report.modules, &report.dtype);
    lines.add("adapters", report.adapters.len());
    let unrounded = report.unrounded_error.map_or(String::new(), |unrounded| {
        format!("; {} before rounding to eight bits", error(unrounded))
    });
    lines.add("error", format!("{}{unrounded}", error(report.relative_error)));
    lines.add("size", format!("{}, {} before", bytes(report.bytes), bytes(report.bytes_before)));
    entries(&mut lines, &report.adapters, all);
    lines.into_text()
}

/// What is in a collection.
pub(crate) fn info(info: &Info, all: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("{}: {}", info.store.display(), counted(info.adapters.len(), "adapter")));
    shape(&mut lines, info.rank, info.clusters, info.modules, &info.dtype);
    lines.add("convention", &info.convention);
    let (shared, own) = (bytes(info.bytes_shared), bytes(info.bytes_adapters));
    lines.add("size", format!("{shared} that all share, {own} of the adapters"));
    entries(&mut lines, &info.adapters, all);
    lines.into_text()
}

/// One adapter that was taken out.
pub(crate) fn exported(report: &Exported) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("exported {} to {}", report.name, report.output.display()));
    lines.add("error", format!("{} of its own update", error(report.relative_error)));
    lines.add("modules", format!("{}, of rank {} at most", report.modules, report.rank));
    lines.add("convention", report.convention);
    lines.add("size", bytes(report.bytes));
    lines.into_text()
}

fn shape(lines: &mut Lines, rank: usize, clusters: usize, modules: usize, dtype: &str) {
    let groups = match clusters {
        1 => String::new(),
        several => format!(", for each of {several} groups of adapters"),
    };
    lines.add("directions", format!("{rank} a module{groups}, in {dtype}"));
    lines.add("modules", modules);
}

fn entries(lines: &mut Lines, entries: &[Entry], all: bool) {
    let most = if all { usize::MAX } else { LISTED };
    let head = ["adapter", "group", "error", "norm", "modules"];
    let right = [false, true, true, true, true];
    let head = head.iter().zip(right).map(|(text, right)| Cell::new(text, right));
    let mut rows = vec![head.collect::<Vec<_>>()];
    rows.extend(entries.iter().take(most).map(|entry| {
        vec![
            Cell::left(&entry.name),
            Cell::right(entry.cluster.to_string()),
            Cell::right(error(entry.relative_error)),
            Cell::right(number(entry.norm)),
            Cell::right(entry.modules.to_string()),
        ]
    }));
    if !entries.is_empty() {
        lines.text(&columns(&rows));
    }
    if entries.len() > most {
        lines.plain(format!("  and {} more; -v lists all", entries.len() - most));
    }
}
