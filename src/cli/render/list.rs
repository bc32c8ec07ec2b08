//! The adapters of folders, in rows that fit a terminal of 80 columns.

use std::collections::BTreeMap;

use lora_tool::error::counted;
use lora_tool::ops::list::{Report, Row, Scales, Unread};

use super::{Cell, LISTED, Lines, bytes, columns, count, cut, number};

/// Characters of a name, and of a model.
const NAME: usize = 30;
const MODEL: usize = 12;

/// A row an adapter, below it what its header says of it.
pub(crate) fn report(report: &Report, all: bool) -> String {
    let mut lines = Lines::default();
    if !report.adapters.is_empty() {
        let head = ["name", "model", "rank", "scale", "dtype", "size", "date"];
        let right = [false, false, true, true, false, true, false];
        let head = head.iter().zip(right).map(|(text, right)| Cell::new(text, right));
        let mut rows = vec![head.collect::<Vec<_>>()];
        rows.extend(report.adapters.iter().map(|row| cells(row, all)));
        let table = columns(&rows);
        let mut table = table.lines();
        lines.plain(table.next().unwrap_or_default());
        for (line, row) in table.zip(&report.adapters) {
            lines.plain(line);
            details(&mut lines, row);
        }
    }
    summarise(&mut lines, report);
    unread(&mut lines, &report.unread);
    lines.into_text()
}

fn cells(row: &Row, whole: bool) -> Vec<Cell> {
    let name = row.name.strip_suffix(".safetensors").unwrap_or(&row.name);
    let model = row.model.as_deref().unwrap_or("-");
    let (name, model) = if whole {
        (name.to_owned(), model.to_owned())
    } else {
        (cut(name, NAME), cut(model, MODEL))
    };
    vec![
        Cell::left(name),
        Cell::left(model),
        Cell::right(match (row.ranks.first(), row.ranks.last()) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least}–{most}"),
            _ => "-".to_owned(),
        }),
        Cell::right(row.scale.as_ref().map_or_else(|| "-".to_owned(), scale)),
        Cell::left(row.dtypes.iter().next().map_or("-", |first| match row.dtypes.len() {
            1 => first,
            _ => "mixed",
        })),
        Cell::right(bytes(row.bytes)),
        Cell::left(row.date.as_deref().unwrap_or("-")),
    ]
}

fn scale(scale: &Scales) -> String {
    let Scales { least, most, rslora } = scale;
    let range = if least == most {
        number(*least)
    } else {
        format!("{}–{}", number(*least), number(*most))
    };
    if *rslora { format!("{range} rslora") } else { range }
}

/// Title, trigger words, parts, another type than LoRA, and what is the same.
fn details(lines: &mut Lines, row: &Row) {
    let mut parts = Vec::new();
    let stem = row.name.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".safetensors").unwrap_or(stem);
    let title = row.title.iter().filter(|title| *title != stem);
    parts.extend(title.map(|title| format!("“{}”", cut(title, 40))));
    parts.extend(row.trigger.iter().map(|words| format!("trigger: {}", cut(words, 60))));
    let plain = row.families.as_slice() == ["lora"];
    parts.extend((!plain && !row.families.is_empty()).then(|| row.families.join(", ")));
    if row.parts.len() > 1 {
        let each = row.parts.iter().map(|(part, count)| format!("{part} {count}"));
        parts.push(each.collect::<Vec<_>>().join(", "));
    }
    if !parts.is_empty() {
        lines.plain(format!("    {}", parts.join(" · ")));
    }
    if let Some(first) = &row.same_as {
        lines.plain(format!("    = {first}: the same factors and scales"));
    }
    if let Some(like) = &row.like {
        lines.plain(format!(
            "    ≈ {}: nearly the same update, {} apart",
            like.name,
            super::percent(like.distance, 2)
        ));
    }
    if let Some(fault) = &row.fault {
        let more =
            if row.faults > 1 { format!(" (and {} more)", row.faults - 1) } else { String::new() };
        lines.plain(format!("    broken: {fault}{more}"));
    }
}

fn summarise(lines: &mut Lines, report: &Report) {
    let (rows, size) = (report.adapters.len(), report.adapters.iter().map(|row| row.bytes).sum());
    let mut parts = vec![format!("{}, {}", counted(rows, "adapter"), bytes(size))];
    let same: Vec<&Row> = report.adapters.iter().filter(|row| row.same_as.is_some()).collect();
    if !same.is_empty() {
        let size = same.iter().map(|row| row.bytes).sum();
        parts.push(format!("{} the same as another ({})", same.len(), bytes(size)));
    }
    let like = report.adapters.iter().filter(|row| row.like.is_some()).count();
    if like > 0 {
        parts.push(format!("{like} nearly the same as another"));
    }
    if report.left_out > 0 {
        parts.push(format!("{} left out by --where", count(report.left_out as u64)));
    }
    lines.plain(parts.join("; "));
}

/// Files that were not read, by the reason.
fn unread(lines: &mut Lines, unread: &[Unread]) {
    let mut reasons: BTreeMap<&str, Vec<&Unread>> = BTreeMap::new();
    for file in unread {
        reasons.entry(&file.error).or_default().push(file);
    }
    if !unread.is_empty() {
        lines.plain(format!("not read as adapters: {}", counted(unread.len(), "file")));
    }
    for (reason, files) in reasons {
        lines.plain(format!("  {reason}"));
        for file in files.iter().take(LISTED) {
            lines.plain(format!("    {}", file.path.display()));
        }
        if files.len() > LISTED {
            lines.plain(format!("    … and {} more", files.len() - LISTED));
        }
        if let Some(hint) = files.first().and_then(|file| file.hint.as_ref()) {
            lines.plain(format!("    hint: {hint}"));
        }
    }
}
