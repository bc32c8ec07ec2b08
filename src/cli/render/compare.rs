//! How adapters get along.

use lora_tool::ops::compare::{Measures, Pair, Report};
use lora_tool::ops::shared::spills::PairSpill;

use super::{Lines, Names, number, percent, table};

/// Pairs that are shown of many; `-v` shows all.
const SHOWN: usize = 10;

/// What the columns say, for who has not met them.
const LEGEND: [(&str, &str); 4] = [
    ("cosine", "+1 is the same update, 0 nothing in common, −1 the opposite"),
    ("shared", "how much of the smaller one's output and input directions the other uses too"),
    ("opposed", "elements with opposite signs; 50 % is chance"),
    ("overwrites", "what the other writes where each of the two writes, relative to it"),
];

/// How adapters get along: what to do, each adapter, the pairs.
pub(crate) fn report(report: &Report, modules: bool) -> String {
    let mut lines = Lines::default();
    let names = Names::of(report.adapters.iter().map(|adapter| adapter.path.as_path()));
    lines.plain(format!("{} compared", names.together()));
    lines.add("advice", format!("{} ({})", report.advice.text, report.advice.rule));
    for cluster in &report.clusters {
        let members: Vec<_> = cluster.adapters.iter().map(|&at| names.get(at)).collect();
        let cosine = format!("cosine {:+.2} or more", cluster.least_cosine);
        lines.add("alike", format!("{}: {cosine}", members.join(", ")));
    }
    adapters(&mut lines, report, &names);
    pairs(&mut lines, report, &names, modules);
    for (word, meaning) in LEGEND {
        lines.add(word, meaning);
    }
    lines.into_text()
}

fn adapters(lines: &mut Lines, report: &Report, names: &Names) {
    let head = ["adapter", "modules", "norm", "weight", "others overwrite"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.adapters.iter().enumerate().map(|(at, adapter)| {
        vec![
            names.get(at).to_owned(),
            adapter.modules.to_string(),
            number(adapter.norm),
            adapter.weight.to_string(),
            adapter.spill.map_or("-".to_owned(), |spill| percent(spill, 0)),
        ]
    }));
    lines.text(&table(&rows));
}

/// The pairs: of many those first that are worth a look, and only so many.
fn pairs(lines: &mut Lines, report: &Report, names: &Names, modules: bool) {
    let head = ["pair", "modules", "cosine", "shared", "opposed", "overwrites", "louder"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let shown = if modules { report.pairs.len() } else { SHOWN };
    for &at in report.by_interest.iter().take(shown) {
        let (Some(pair), Some(spill)) = (report.pairs.get(at), report.spills.get(at)) else {
            continue;
        };
        let name = format!("{} / {}", names.get(pair.a), names.get(pair.b));
        let shared = pair.shared_modules.to_string();
        if pair.shared_modules == 0 {
            // Nothing was measured.
            let none = std::iter::repeat_n("-".to_owned(), head.len() - 2);
            rows.push([name, shared].into_iter().chain(none).collect());
            continue;
        }
        rows.push(row(name, shared, &pair.measures, both_ways(spill), louder(pair, names)));
        for module in pair.modules.iter().filter(|_| modules) {
            let name = format!("  {}", module.name);
            rows.push(row(name, String::new(), &module.measures, String::new(), String::new()));
        }
    }
    lines.text(&table(&rows));
    if report.pairs.len() > shown {
        let more = report.pairs.len() - shown;
        lines.plain(format!("  … and {more} pairs that have less to do with each other (-v)"));
    }
}

/// Which of a pair is the louder, at their weights, and how much.
fn louder(pair: &Pair, names: &Names) -> String {
    match pair.measures.norm_ratio {
        ratio if ratio > 1.05 => format!("{} × {ratio:.1}", names.get(pair.a)),
        ratio if ratio > 0.0 && ratio < 0.95 => {
            format!("{} × {:.1}", names.get(pair.b), 1.0 / ratio)
        }
        _ => String::new(),
    }
}

/// What is written over an adapter, in words.
pub(crate) fn spill(spill: Option<f64>) -> String {
    match spill {
        Some(spill) => {
            format!("where it writes, the others write {} of what it does", percent(spill, 1))
        }
        None => "it writes nothing itself".to_owned(),
    }
}

/// What is written over the first of a pair and over the second.
pub(crate) fn both_ways(pair: &PairSpill) -> String {
    let of = |spill: Option<f64>| spill.map_or("-".to_owned(), |spill| percent(spill, 0));
    format!("{} / {}", of(pair.on_a), of(pair.on_b))
}

fn row(
    name: String,
    modules: String,
    measures: &Measures,
    spill: String,
    louder: String,
) -> Vec<String> {
    let Measures { cosine, output_overlap, input_overlap, sign_conflict, .. } = *measures;
    vec![
        name,
        modules,
        format!("{cosine:+.3}"),
        format!("{} / {}", percent(output_overlap, 0), percent(input_overlap, 0)),
        percent(sign_conflict, 0),
        spill,
        louder,
    ]
}
