//! What `combine` and `resize` will do, and what they did.

use lora_tool::error::counted;
use lora_tool::ops::combine::Report;
use lora_tool::ops::shared::advice::Advice;

use super::compare::{both_ways, spill};
use super::{Lines, Names, bytes, count, kept, percent, policy, table, tidy, weight};

/// Energy kept below which a rank is told to be low.
pub(super) const LITTLE: f64 = 0.9;

/// Why a method was chosen.
pub(crate) fn chosen(lines: &mut Lines, advice: Option<&Advice>) {
    if let Some(advice) = advice {
        lines.add("chosen", format!("{} ({})", advice.text, advice.rule));
    }
}

fn method(method: &str, space: Option<&str>) -> String {
    let space = space.map_or(String::new(), |space| format!(" in {space} space"));
    format!("{method}{space}")
}

/// What a combination did.
pub(crate) fn report(report: &Report, command: &str, modules: bool) -> String {
    let mut lines = Lines::default();
    let resized = command == "resize";
    let names = Names::of(report.inputs.iter().map(|input| input.path.as_path()));
    let done = match (resized, report.dry_run) {
        (true, false) => "resized",
        (true, true) => "would resize",
        (false, false) => "combined",
        (false, true) => "would combine",
    };
    lines.plain(format!("{done} {} into {}", names.together(), tidy(&report.output).display()));
    lines.add("kept", outcome(report, resized));
    lines.add("rank", ranks(report));
    if !resized {
        lines.add("method", method(report.method, report.space));
    }
    chosen(&mut lines, report.chosen.as_ref());
    if !report.stored.is_empty() {
        let stored = counted(report.stored.len(), "difference");
        lines.add("stored", format!("{stored}, summed whole"));
    }
    if report.energy_kept < LITTLE {
        lines.add("warning", "that is little: a higher --rank, or --rank energy:0.95, keeps more");
    }
    let (before, after) = (count(report.parameters_before), count(report.parameters_after));
    lines.add("size", format!("{}, {after} parameters ({before} before)", bytes(report.bytes)));
    for (at, input) in report.inputs.iter().enumerate().filter(|_| report.inputs.len() > 1) {
        let (name, weight) = (names.get(at), weight(input.weight, input.by_module));
        lines.add("adapter", format!("{name}, {weight}: {}", spill(input.spill)));
    }
    for pair in report.spills.iter().filter(|_| report.inputs.len() > 2) {
        let (a, b) = (names.get(pair.a), names.get(pair.b));
        lines.add("pair", format!("{a} and {b} write over each other: {}", both_ways(pair)));
    }
    if modules {
        let head = ["module", "rank before", "rank", "energy kept", "error"];
        let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        rows.extend(report.modules.iter().map(|module| {
            vec![
                module.name.clone(),
                module.rank_before.to_string(),
                module.rank.to_string(),
                percent(module.energy_kept, 4),
                super::error(module.relative_error),
            ]
        }));
        lines.text(&table(&rows));
    }
    lines.into_text()
}

/// How much of what was to be written is in the file, and of what.
fn outcome(report: &Report, resized: bool) -> String {
    let of = match (report.method, report.inputs.len()) {
        _ if resized => "the update".to_owned(),
        (_, 1) => "its update".to_owned(),
        ("linear" | "cat", 2) => "the sum of both".to_owned(),
        ("linear" | "cat", _) => "the sum of all".to_owned(),
        (method, 2) => format!("what {method} made of both"),
        (method, _) => format!("what {method} made of all"),
    };
    // Below what f32 holds, the rest is rounding.
    if report.relative_error < 1e-6 {
        return format!("all of {of}");
    }
    let share = kept(report.energy_kept);
    format!("{share} of {of}; error {}", super::error(report.relative_error))
}

/// The ranks that were written, and the policy that asked for them where that is no number.
fn ranks(report: &Report) -> String {
    let all = || report.modules.iter().map(|module| module.rank);
    let (lowest, highest) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    let ranks =
        if highest == lowest { highest.to_string() } else { format!("{lowest} to {highest}") };
    let before = report.modules.iter().map(|module| module.rank_before).max().unwrap_or(0);
    let asked: Option<usize> = report.rank.parse().ok();
    let policy = match asked {
        Some(asked) if asked > highest && before <= highest => {
            format!("; {asked} was asked for, and there is no more")
        }
        Some(_) => String::new(),
        None => format!(" ({})", policy(&report.rank)),
    };
    format!("{ranks} in {}{policy}", counted(report.modules.len(), "module"))
}
