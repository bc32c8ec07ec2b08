//! What `merge` will do, and what it did.

use std::collections::BTreeMap;

use lora_tool::error::{UnmatchedName, counted};
use lora_tool::ops::merge::{
    AsTrained, Dequantised, Effective, NotCarried, Plan, PlannedAdapter, Prediction, Report,
    Requantised, Residual, Rounding, Scales, Survival, TensorPlan,
};

use super::combine::chosen;
use super::{LISTED, Lines, Names, bytes, percent, table, tidy, weight};

fn adapters(lines: &mut Lines, adapters: &[PlannedAdapter]) {
    for adapter in adapters {
        let left_out = match adapter.left_out {
            0 => String::new(),
            count => format!(", {count} left out"),
        };
        let (applied, total) = (adapter.applied, adapter.total);
        let path = adapter.path.display();
        let weight = weight(adapter.weight, adapter.by_module);
        lines.add(
            "adapter",
            format!("{path}  {weight}: {applied}/{total} modules applied{left_out}"),
        );
    }
}

/// What rounding left of the updates, in words.
fn plainly(effective: &Effective) -> String {
    // The part of what was added that was not asked for, or the reverse, against what was asked for.
    let Effective { cosine, norm_ratio, unchanged, untouched, .. } = *effective;
    let error = (1.0 + norm_ratio * norm_ratio - 2.0 * cosine * norm_ratio).max(0.0).sqrt();
    let lost = match percent(unchanged, 1) {
        share if share == percent(0.0, 1) => "nothing lost to rounding".to_owned(),
        share => format!("{share} of changes lost to rounding"),
    };
    let left = match percent(untouched, 1) {
        share if share == percent(0.0, 1) => String::new(),
        share => format!("; nothing was added to {share} of elements"),
    };
    let gain = percent((cosine * norm_ratio).clamp(0.0, 1.0), 1);
    format!("{gain} of the update; error {}; {lost}{left}", super::error(error))
}

fn effective(effective: &Effective) -> String {
    let untouched = match percent(effective.untouched, 1) {
        share if share == percent(0.0, 1) => String::new(),
        share => format!("; nothing was added to {share} of elements"),
    };
    format!(
        "cosine {:.5}, norm ratio {:.4}, {} of changes lost to rounding{untouched}",
        effective.cosine,
        effective.norm_ratio,
        percent(effective.unchanged, 1)
    )
}

/// What a merge will do.
pub(crate) fn plan(plan: &Plan, verbose: bool) -> String {
    let mut lines = Lines::default();
    let names = Names::of(plan.adapters.iter().map(|adapter| adapter.path.as_path()));
    let (what, output) = (names.together(), tidy(&plan.output));
    lines.plain(format!("would merge {what} into {}", output.display()));
    lines.add("base", plan.base.display());
    chosen(&mut lines, plan.chosen.as_ref());
    adapters(&mut lines, &plan.adapters);
    let changed = plan.tensors().filter(|t| t.plan.changes()).count();
    let copied = plan.tensors().filter(|t| matches!(t.plan, TensorPlan::Copy)).count();
    let converted = plan.tensors().filter(|t| matches!(t.plan, TensorPlan::Convert)).count();
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
    requantised(&mut lines, plan.requantised.as_ref(), &[]);
    for text in plan.prediction.iter().flat_map(prediction) {
        lines.add("expected", text);
    }
    as_trained(&mut lines, plan.as_trained.as_ref());
    dequantised(&mut lines, plan.dequantised.as_ref());
    if verbose {
        for tensor in plan.tensors() {
            let what = tensor.plan.word();
            lines.add(what, format!("{} {} {:?}", tensor.full_name, tensor.dtype, tensor.shape));
        }
    }
    let others: Vec<_> = plan.side_files.iter().map(|file| file.relative.as_str()).collect();
    let listed = if verbose { others.len() } else { LISTED };
    for others in others.chunks(listed.max(1)).take(1) {
        let more = if plan.side_files.len() > listed { ", …" } else { "" };
        lines.add("others", format!("{}{more}", others.join(", ")));
    }
    not_carried(&mut lines, &plan.not_carried);
    unmatched(&mut lines, &plan.unmatched);
    lines.into_text()
}

/// Which weights are quantised again, and what of their updates survived.
fn requantised(lines: &mut Lines, found: Option<&Requantised>, survival: &[Survival]) {
    let Some(found) = found else { return };
    let scales = match found.writing.scales {
        Scales::Fresh => "fresh scales",
        Scales::Reuse if found.like.is_some() => "the quantised checkpoint's scales",
        Scales::Reuse => "the base's scales",
    };
    let rounding = match found.writing.rounding {
        Rounding::Nearest => String::new(),
        Rounding::Stochastic { seed } => format!(", rounded at random with seed {seed}"),
    };
    let weights = if found.weights == 1 { "weight" } else { "weights" };
    let encodings = found.encodings.join("; ");
    let text = format!("{} {weights} ({encodings}) with {scales}{rounding}", found.weights);
    match &found.like {
        Some(like) => lines.add("quantised", format!("{text}, like {}", like.display())),
        None => lines.add("requantised", text),
    }
    for (types, weights) in &found.types {
        lines.add("types", format!("{types}: {weights}"));
    }
    let least = survival.iter().min_by(|a, b| a.gain.total_cmp(&b.gain));
    if let Some(least) = least {
        let mean = survival.iter().map(|one| one.gain).sum::<f64>() / survival.len() as f64;
        lines.add(
            "survival",
            format!(
                "{} of an update on average; least {} (cosine {:.4}, {} of its codes changed) in {}",
                percent(mean, 1),
                percent(least.gain, 1),
                least.cosine,
                percent(least.changed, 1),
                least.name
            ),
        );
    }
}

/// What of the updates is expected to survive, by scheme.
pub(crate) fn prediction(found: &Prediction) -> Vec<String> {
    let all = found.schemes.iter().map(|scheme| {
        format!(
            "about {} of the change is expected to survive in {}",
            percent(scheme.expected, 0),
            scheme.scheme
        )
    });
    let least = format!("least, about {}, in {}", percent(found.least_expected, 0), found.least);
    all.chain([least]).collect()
}

/// Which weights of the base are no longer as they are stored, but as they were trained on.
fn as_trained(lines: &mut Lines, found: Option<&AsTrained>) {
    let Some(found) = found else { return };
    let moved = found.moved.map(|share| format!(", {} away from the base's", percent(share, 1)));
    lines.add(
        "as trained",
        format!(
            "{} linear layers as {} has them{}; {} other matrices as the base has them",
            found.weights,
            found.scheme,
            moved.unwrap_or_default(),
            found.others.len()
        ),
    );
}

/// What gives back what quantising took, and what is lost all the same.
fn residual(lines: &mut Lines, found: Option<&Residual>) {
    let Some(found) = found else { return };
    lines.add(
        "residual",
        format!(
            "{}, rank {}, {}: {} of the update's norm was lost, {} still is",
            found.output.display(),
            found.rank,
            bytes(found.bytes),
            percent(found.lost, 1),
            percent(found.left, 1)
        ),
    );
    if !found.left_out.is_empty() {
        let text = format!("{} has no module for it", found.left_out.join(", "));
        lines.add("not given back", text);
    }
}

/// From what the base's quantised weights are made plain numbers, and how much larger they are then.
fn dequantised(lines: &mut Lines, found: Option<&Dequantised>) {
    let Some(found) = found else { return };
    let times = found.written_bytes as f64 / found.stored_bytes.max(1) as f64;
    lines.add(
        "dequantised",
        format!(
            "{} weight{} ({}) to {}: {} become {}, {times:.1} times as much",
            found.weights,
            if found.weights == 1 { "" } else { "s" },
            found.encodings.join("; "),
            found.dtypes.join(", "),
            bytes(found.stored_bytes),
            bytes(found.written_bytes)
        ),
    );
}

fn tensors(changed: usize, converted: usize, copied: usize) -> String {
    match converted {
        0 => format!("{changed} changed, {copied} copied byte for byte"),
        _ => format!("{changed} changed, {converted} converted, {copied} copied byte for byte"),
    }
}

/// Files that were left behind, by the reason; every file with `--json`.
fn not_carried(lines: &mut Lines, files: &[NotCarried]) {
    const NAMED: usize = 4;
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        by_reason.entry(&file.reason).or_default().push(&file.file);
    }
    for (reason, files) in by_reason {
        let named = files.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match files.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        lines.add("not carried", format!("{named}{more} ({reason})"));
    }
}

fn unmatched(lines: &mut Lines, unmatched: &[UnmatchedName]) {
    for name in unmatched.iter().take(LISTED) {
        lines.add("unmatched", &name.name);
    }
    if unmatched.len() > LISTED {
        lines.add("unmatched", format!("… and {} more", unmatched.len() - LISTED));
    }
}

/// What a merge did.
pub(crate) fn report(report: &Report, verbose: bool) -> String {
    let mut lines = Lines::default();
    let names = Names::of(report.adapters.iter().map(|adapter| adapter.path.as_path()));
    let (what, output) = (names.together(), tidy(&report.output));
    lines.plain(format!("merged {what} into {}", output.display()));
    lines.add("base", report.base.display());
    chosen(&mut lines, report.chosen.as_ref());
    adapters(&mut lines, &report.adapters);
    lines.add(
        "tensors",
        tensors(report.tensors_changed, report.tensors_converted, report.tensors_copied),
    );
    lines.add("weights", format!("{} in {}", bytes(report.bytes), counted(report.shards, "file")));
    requantised(&mut lines, report.requantised.as_ref(), &report.survival);
    as_trained(&mut lines, report.as_trained.as_ref());
    dequantised(&mut lines, report.dequantised.as_ref());
    residual(&mut lines, report.residual.as_ref());
    if let Some(size) = report.receipt_bytes {
        lines.add("receipt", format!("{}: `lora-tool undo` gives the base back", bytes(size)));
    }
    if report.shards_reused > 0 {
        lines.add("resumed", format!("{} finished already", counted(report.shards_reused, "file")));
    }
    if let Some(found) = &report.effective {
        lines.add("kept", plainly(found));
        if verbose {
            lines.add("in numbers", effective(found));
        }
    }
    not_carried(&mut lines, &report.not_carried);
    unmatched(&mut lines, &report.unmatched);
    if verbose {
        let rows: Vec<_> = report
            .tensors
            .iter()
            .map(|tensor| vec![tensor.name.clone(), effective(&tensor.effective)])
            .collect();
        lines.text(&table(&rows));
    }
    if let Some(verification) = &report.verification {
        lines.text(&super::verify::report(verification));
    }
    lines.into_text()
}
