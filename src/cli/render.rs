//! Reports as text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use lora_tool::adapter::training::is_training;
use lora_tool::ops::merge::{Action, Effective, Plan, PlannedAdapter, Report};
use lora_tool::ops::{inspect, verify};

/// Unmatched names and faults that are listed; `--json` has them all.
const LISTED: usize = 20;

/// Bytes in units of 1000.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 && unit != "B" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Counts in thousands, millions and so on.
pub(crate) fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.0} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}

/// A share in per cent, without a minus before zeros.
pub(crate) fn percent(share: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", share * 100.0);
    match text.strip_prefix('-') {
        Some(zeros) if zeros.chars().all(|c| matches!(c, '0' | '.')) => format!("{zeros} %"),
        _ => format!("{text} %"),
    }
}

/// Lines of `label  value`, the values aligned.
#[derive(Default)]
pub(crate) struct Lines(String);

impl Lines {
    pub(crate) fn add(&mut self, label: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  {label:<12} {value}");
    }

    pub(crate) fn plain(&mut self, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{text}");
    }

    /// Text with its own line ends.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// All lines.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Columns, each as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn adapters(lines: &mut Lines, adapters: &[PlannedAdapter]) {
    for adapter in adapters {
        let left_out = match adapter.left_out {
            0 => String::new(),
            count => format!(", {count} left out"),
        };
        let (applied, total) = (adapter.applied, adapter.total);
        let (path, weight) = (adapter.path.display(), adapter.weight);
        lines.add(
            "adapter",
            format!("{path}  weight {weight}: {applied}/{total} modules applied{left_out}"),
        );
    }
}

fn effective(effective: &Effective) -> String {
    format!(
        "cosine {:.5}, norm ratio {:.4}, {} of elements unchanged by rounding",
        effective.cosine,
        effective.norm_ratio,
        percent(effective.unchanged, 1)
    )
}

/// What a merge will do.
pub(crate) fn plan(plan: &Plan, verbose: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("would merge into {}", plan.output.display()));
    lines.add("base", plan.base.display());
    adapters(&mut lines, &plan.adapters);
    let changed = plan.tensors().filter(|t| matches!(t.action, Action::Change(_))).count();
    let copied = plan.tensors().filter(|t| matches!(t.action, Action::Copy)).count();
    let converted = plan.tensors().count() - changed - copied;
    lines.add("tensors", tensors(changed, converted, copied));
    lines.add(
        "files",
        format!(
            "{} of weights, {}; {} others",
            plan.shards.len(),
            bytes(plan.bytes),
            plan.side_files.len()
        ),
    );
    if verbose {
        for tensor in plan.tensors() {
            let what = match &tensor.action {
                Action::Copy => "copy",
                Action::Convert => "convert",
                Action::Change(_) => "change",
            };
            lines.add(what, format!("{} {} {:?}", tensor.full_name, tensor.dtype, tensor.shape));
        }
    }
    unmatched(&mut lines, &plan.unmatched);
    for warning in &plan.warnings {
        lines.add("warning", warning);
    }
    lines.0
}

fn tensors(changed: usize, converted: usize, copied: usize) -> String {
    match converted {
        0 => format!("{changed} changed, {copied} copied byte for byte"),
        _ => format!("{changed} changed, {converted} converted, {copied} copied byte for byte"),
    }
}

fn unmatched(lines: &mut Lines, unmatched: &[lora_tool::error::UnmatchedName]) {
    for name in unmatched.iter().take(LISTED) {
        lines.add("unmatched", &name.name);
    }
    if unmatched.len() > LISTED {
        lines.add("unmatched", format!("… and {} more", unmatched.len() - LISTED));
    }
}

/// What a merge did.
pub(crate) fn merge(report: &Report, verbose: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("merged into {}", report.output.display()));
    lines.add("base", report.base.display());
    adapters(&mut lines, &report.adapters);
    lines.add(
        "tensors",
        tensors(report.tensors_changed, report.tensors_converted, report.tensors_copied),
    );
    lines.add("weights", format!("{} in {} files", bytes(report.bytes), report.shards));
    if let Some(found) = &report.effective {
        lines.add("effective", effective(found));
    }
    unmatched(&mut lines, &report.unmatched);
    if verbose {
        let rows: Vec<_> = report
            .tensors
            .iter()
            .map(|tensor| vec![tensor.name.clone(), effective(&tensor.effective)])
            .collect();
        lines.0.push_str(&table(&rows));
    }
    if let Some(verification) = &report.verification {
        lines.0.push_str(&verify(verification));
    }
    lines.0
}

/// What a verification found.
pub(crate) fn verify(report: &verify::Report) -> String {
    let mut lines = Lines::default();
    lines.plain(if report.ok { "verified: as merge writes it" } else { "NOT as merge writes it" });
    lines.add("copied", format!("{} tensors equal to the base's bytes", report.copied));
    lines.add(
        "recomputed",
        format!(
            "{} tensors, {} elements in f64, at most {:.2} ulp apart",
            report.recomputed,
            count(report.elements),
            report.max_ulps
        ),
    );
    for fault in report.faults.iter().take(LISTED) {
        lines.add("fault", format!("{}: {}", fault.tensor, fault.what));
    }
    if report.fault_count > LISTED {
        lines.add("fault", format!("… and {} more", report.fault_count - LISTED));
    }
    lines.0
}

/// What is in adapters and checkpoints.
pub(crate) fn inspect(report: &inspect::Report, modules: bool, metadata: bool) -> String {
    let items = report.items.iter();
    let texts: Vec<_> = items.map(|item| inspect_item(item, modules, metadata)).collect();
    texts.join("\n")
}

fn tally<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key} ×{count}")).collect::<Vec<_>>().join(", ")
}

fn inspect_item(item: &inspect::Item, list_modules: bool, training: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(item.path.display());
    lines.add(item.kind, item.convention.unwrap_or("safetensors"));
    if let Some(base) = &item.base_model {
        lines.add("base", base);
    }
    if let Some(modules) = &item.modules {
        summarise(&mut lines, item, modules);
    }
    if let Some(shards) = item.shards.as_deref().filter(|shards| shards.len() > 1) {
        for shard in shards {
            lines.add(
                "shard",
                format!("{}  {} tensors, {}", shard.file, shard.tensors, bytes(shard.bytes)),
            );
        }
    }
    lines.add("tensors", format!("{} ({})", item.tensors, tally(&item.dtypes)));
    let share = item.share_of_base.map(|share| format!(", {} of the base's", percent(share, 3)));
    lines.add("parameters", format!("{}{}", count(item.parameters), share.unwrap_or_default()));
    lines.add("bytes", bytes(item.bytes));
    let shown = |key: &String| training || !is_training(key);
    for (key, value) in item.metadata.iter().filter(|(key, _)| shown(key)) {
        lines.add("metadata", format!("{key}: {}", value.as_str().unwrap_or_default()));
    }
    let hidden = item.metadata.keys().filter(|key| !shown(key)).count();
    if hidden > 0 {
        lines.add("metadata", format!("{hidden} entries of the training; --metadata lists them"));
    }
    for warning in &item.warnings {
        lines.add("note", warning);
    }
    if let Some(modules) = item.modules.as_deref().filter(|_| list_modules) {
        lines.0.push_str(&module_table(modules));
    }
    if let Some(modules) = &item.modules {
        lines.0.push_str(&spectrum_table(modules));
    }
    lines.0
}

fn summarise(lines: &mut Lines, item: &inspect::Item, modules: &[inspect::ModuleItem]) {
    let mut families = BTreeMap::new();
    let mut targets = BTreeMap::new();
    let mut scales = BTreeMap::new();
    for module in modules {
        *families.entry(module.family).or_default() += 1;
        let last = module.name.rsplit('.').next().unwrap_or_default();
        *targets.entry(last).or_default() += 1;
        let alpha =
            module.alpha.map_or_else(|| "no alpha".to_owned(), |alpha| format!("alpha {alpha}"));
        let text = format!("{} ({alpha}, from {})", module.scale, module.scale_source);
        *scales.entry(text).or_default() += 1;
    }
    lines.add("modules", format!("{} ({})", modules.len(), tally(&families)));
    lines.add("ranks", tally(item.ranks.as_ref().unwrap_or(&BTreeMap::new())));
    lines.add("scale", tally(&scales));
    if targets.len() <= LISTED {
        lines.add("targets", tally(&targets));
    }
    if let Some(replacements) = item.replacements.as_deref().filter(|r| !r.is_empty()) {
        let names: Vec<_> = replacements.iter().take(4).map(|r| r.name.as_str()).collect();
        let more = if replacements.len() > 4 { ", …" } else { "" };
        lines
            .add("replaces", format!("{} tensors: {}{more}", replacements.len(), names.join(", ")));
    }
}

fn module_table(modules: &[inspect::ModuleItem]) -> String {
    let head = ["module", "family", "rank", "alpha", "scale", "in", "out", "dtype", "base tensor"];
    let with_base = modules.iter().any(|module| module.base_tensor.is_some());
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for module in modules {
        rows.push(vec![
            module.name.clone(),
            module.family.to_owned(),
            module.rank.to_string(),
            module.alpha.map_or_else(|| "-".to_owned(), |alpha| alpha.to_string()),
            module.scale.to_string(),
            module.inputs.to_string(),
            module.outputs.to_string(),
            module.dtype.clone(),
            module.base_tensor.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    if !with_base {
        for row in &mut rows {
            row.pop();
        }
    }
    table(&rows)
}

/// Singular values and what they say, a row a module; nothing if they were not asked for.
fn spectrum_table(modules: &[inspect::ModuleItem]) -> String {
    let head = [
        "module",
        "norm",
        "σ₁",
        "effective rank",
        "stable rank",
        "90 %",
        "95 %",
        "99 %",
        "spectrum",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for module in modules {
        let Some(spectrum) = &module.spectrum else { continue };
        rows.push(vec![
            module.name.clone(),
            format!("{:.4}", spectrum.norm),
            format!("{:.4}", spectrum.singular_values.first().copied().unwrap_or(0.0)),
            format!("{:.2}", spectrum.effective_rank),
            format!("{:.2}", spectrum.stable_rank),
            spectrum.rank_90.to_string(),
            spectrum.rank_95.to_string(),
            spectrum.rank_99.to_string(),
            sparkline(&spectrum.singular_values),
        ]);
    }
    if rows.len() > 1 { table(&rows) } else { String::new() }
}

/// Singular values as bars against the largest, at most sixteen of them.
fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let first = values.first().copied().unwrap_or(0.0);
    let bar = |value: &f64| {
        let share = if first > 0.0 { value / first } else { 0.0 };
        let step = (share * (BARS.len() - 1) as f64).round() as usize;
        BARS.get(step).copied().unwrap_or('▁')
    };
    values.iter().take(16).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1234), "1.2 kB");
        assert_eq!(bytes(999_900), "1.0 MB");
        assert_eq!(bytes(4_200_000_000), "4.2 GB");
    }

    #[test]
    fn zeros_have_no_sign() {
        assert_eq!(percent(-1e-9, 2), "0.00 %");
        assert_eq!(percent(-0.5, 1), "-50.0 %");
        assert_eq!(percent(1.0, 0), "100 %");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "  a    b\n  ccc  d\n");
    }
}
