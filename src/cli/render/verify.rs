//! What `verify` found.

use lora_tool::ops::verify::Report;

use super::{LISTED, Lines, count};

/// What a verification found.
pub(crate) fn report(report: &Report) -> String {
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
    lines.into_text()
}
