//! The page of `compare`.

use std::collections::BTreeMap;

use lora_tool::error::counted;
use lora_tool::ops::compare::{Measures, Pair, Report};
use lora_tool::ops::inspect;

use lora_tool::format::natural::natural;

use super::grid::Grid;
use super::heat::{Heat, Scale, number};
use super::html;
use crate::cli::render::compare::both_ways;
use crate::cli::render::percent;

/// More pairs than these have no map of their own; the matrices show them all.
const MAPPED: usize = 10;

/// A comparison, and what is in each adapter (made with `spectrum`).
pub(crate) fn page(report: &Report, adapters: &inspect::Report) -> String {
    let names = html::names(report.adapters.iter().map(|adapter| adapter.path.as_path()));
    let mut body =
        html::note("advice", &format!("{} ({})", report.advice.text, report.advice.rule));
    body += &summary(report);
    body += &html::section("How they overlap", &html::figures(&matrices(report)));
    if report.pairs.len() <= MAPPED {
        let maps: Vec<_> = report
            .pairs
            .iter()
            .enumerate()
            .map(|(at, pair)| map(pair, &format!("c{at}")))
            .collect();
        body += &html::section("Where they agree", &html::figures(&maps));
    }
    body += &html::section("Pairs", &pair_tables(report));
    for (at, item) in adapters.items.iter().enumerate() {
        body += &super::inspect::item(item, &format!("i{at}"));
    }
    html::page(&format!("How {names} get along"), &body)
}

fn label(at: usize) -> String {
    format!("[{}]", at + 1)
}

fn summary(report: &Report) -> String {
    let head = ["adapter", "path", "modules", "norm", "weight", "spill"];
    let rows = report.adapters.iter().enumerate().map(|(at, adapter)| {
        vec![
            label(at),
            adapter.path.display().to_string(),
            adapter.modules.to_string(),
            number(adapter.norm),
            adapter.weight.to_string(),
            adapter.spill.map_or("-".to_owned(), |spill| percent(spill, 1)),
        ]
    });
    html::table("Adapters in a weighted sum", &head, &rows.collect::<Vec<_>>())
}

/// One of the matrices: its title, how to read it, its scale, the measure, and that of an adapter
/// with itself.
type Matrix = (&'static str, &'static str, Scale, fn(&Measures) -> f64, f64);

const MATRICES: [Matrix; 4] = [
    ("Cosine", "1: the same update, 0: unrelated, −1: opposite.", Scale::Signed, |m| m.cosine, 1.0),
    (
        "Output overlap",
        "Share of the smaller output space that lies in the other's.",
        Scale::One,
        |m| m.output_overlap,
        1.0,
    ),
    (
        "Input overlap",
        "Share of the smaller input space that lies in the other's.",
        Scale::One,
        |m| m.input_overlap,
        1.0,
    ),
    (
        "Sign conflict",
        "Share of elements that pull in opposite directions; chance is 0.5.",
        Scale::One,
        |m| m.sign_conflict,
        0.0,
    ),
];

fn matrices(report: &Report) -> Vec<String> {
    let labels: Vec<_> = (0..report.adapters.len()).map(label).collect();
    let draw = |(title, reading, scale, of, own): Matrix| {
        let mut cells = BTreeMap::new();
        for (at, name) in labels.iter().enumerate() {
            cells.insert((at, at), (name.clone(), own));
        }
        for pair in &report.pairs {
            for (a, b) in [(pair.a, pair.b), (pair.b, pair.a)] {
                let name = format!("{} and {}", label(a), label(b));
                cells.insert((a, b), (name, of(&pair.measures)));
            }
        }
        let (rows, columns) = (labels.clone(), labels.clone());
        let id = format!("m{}", title.chars().next().unwrap_or('x'));
        Heat { title, reading, rows, columns, cells, scale }.draw(&id)
    };
    MATRICES.into_iter().map(draw).collect()
}

fn map(pair: &Pair, id: &str) -> String {
    let cosines = pair.modules.iter().map(|module| (module.name.as_str(), module.measures.cosine));
    let title = format!("{} and {}", label(pair.a), label(pair.b));
    let reading = "Cosine of the two updates in every module; layers down, modules across.";
    Heat::layers(&title, reading, Grid::new(cosines), Scale::SignedLargest).draw(id)
}

fn pair_tables(report: &Report) -> String {
    let name = |pair: &Pair| format!("{} and {}", label(pair.a), label(pair.b));
    let head = |first| [[first].as_slice(), &MEASURES].concat();
    let rows = report.pairs.iter().map(|pair| {
        let name = format!("{}, {}", name(pair), counted(pair.shared_modules, "module"));
        row(name, &pair.measures)
    });
    let mut text = html::table("All modules together", &head("pair"), &rows.collect::<Vec<_>>());
    let spills = report.pairs.iter().zip(&report.spills);
    let spills = spills.map(|(pair, spill)| vec![name(pair), both_ways(spill)]);
    let caption = "Spill: what the other writes where each one writes, over the first / the second";
    text += &html::table(caption, &["pair", "spill"], &spills.collect::<Vec<_>>());
    for pair in &report.pairs {
        let mut modules: Vec<_> = pair.modules.iter().collect();
        modules.sort_by(|a, b| natural(&a.name, &b.name));
        let rows = modules.iter().map(|module| row(module.name.clone(), &module.measures));
        let caption = format!("{} by module", name(pair));
        text += &html::table(&caption, &head("module"), &rows.collect::<Vec<_>>());
    }
    text
}

const MEASURES: [&str; 5] =
    ["cosine", "output overlap", "input overlap", "sign conflict", "norm ratio"];

fn row(name: String, measures: &Measures) -> Vec<String> {
    let values = [
        measures.cosine,
        measures.output_overlap,
        measures.input_overlap,
        measures.sign_conflict,
        measures.norm_ratio,
    ];
    [name].into_iter().chain(values.map(number)).collect()
}
