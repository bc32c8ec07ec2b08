//! What `verify` found.

use lora_tool::error::counted;
use lora_tool::ops::verify::Report;

use super::{LISTED, Lines, count};

/// What a verification found.
pub(crate) fn report(report: &Report) -> String {
    let mut lines = Lines::default();
    lines.plain(if report.ok { "verified: as merge writes it" } else { "NOT as merge writes it" });
    lines.add("files", format!("{} headers, indexes and other files compared", report.files));
    let rows = |checked: u64| format!("{} of {} rows", count(checked), count(report.rows));
    let tensors = report.copied + report.recomputed;
    lines.add(
        "compared",
        format!(
            "{} byte by byte, of {} ({} of them the base's own)",
            rows(report.rows_compared),
            counted(tensors, "tensor"),
            report.copied
        ),
    );
    if report.recomputed > 0 {
        lines.add("recomputed", recomputed(report, &rows(report.rows_recomputed)));
    }
    for fault in report.faults.iter().take(LISTED) {
        lines.add("fault", format!("{}: {}", fault.place(), fault.what));
    }
    if report.fault_count > LISTED {
        lines.add("fault", format!("… and {} more", report.fault_count - LISTED));
    }
    if !report.others.is_empty() {
        let names = report.others.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>();
        lines.add("not checked", format!("{}: no part of a merge", names.join(", ")));
    }
    lines.into_text()
}

fn recomputed(report: &Report, rows: &str) -> String {
    let (error, allowed) = (report.largest_error, report.allowed_error);
    let by_method = match report.same_code {
        0 => String::new(),
        count => {
            let tensors = counted(count, "tensor");
            format!("; {tensors} by the method's own code, which has no second formula here")
        }
    };
    format!(
        "{rows} in f64; largest error {} of the update, rounding allows {}{by_method}",
        super::error(error),
        super::error(allowed)
    )
}
