//! Work that is shared out, as text.

use lora_tool::ops::job::Written;
use lora_tool::ops::work::Report;

use super::{Lines, bytes};

/// That a plan was written down, and what to do with it.
pub(crate) fn written(report: &Written) -> String {
    let mut lines = Lines::default();
    let (plan, count) = (report.plan.display(), report.workers.len());
    let (what, parts) = match report.kind {
        "merge" => (format!("the merge into {}", report.output.display()), "shards"),
        "extract" => (format!("the extraction of {}", report.output.display()), "tensors"),
        _ => ("the batch".to_owned(), "items"),
    };
    lines.plain(format!("{what} is planned in {plan}"));
    lines.add(parts, format!("{}, {}", report.parts, bytes(report.bytes)));
    if let (Some(most), Some(least)) = (report.workers.iter().max(), report.workers.iter().min()) {
        let (most, least) = (bytes(*most), bytes(*least));
        lines.add("workers", format!("{count}, each with {least} to {most}"));
    }
    let of = if count == 0 { "N".to_owned() } else { count.to_string() };
    lines.add("then", format!("lora-tool work {plan} --shard K/{of} for every K from 1 to {of}"));
    lines.add("last", format!("lora-tool commit {plan}"));
    lines.into_text()
}

/// What a worker did.
pub(crate) fn done(report: &Report, verbose: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(format!("part {} is done", report.part));
    let (made, reused) = (report.made, report.reused);
    let failed = match report.failed.len() {
        0 => String::new(),
        count => format!("{count} failed, "),
    };
    let size = bytes(report.bytes);
    lines.add("made", format!("{made}; {failed}{reused} were there; {size} in all"));
    for part in report.parts.iter().filter(|_| verbose) {
        lines.add("part", part);
    }
    for item in &report.failed {
        lines.add("failed", format!("{}: {}", item.part, item.reason));
    }
    lines.add("wait in", report.place.display());
    lines.into_text()
}
