//! The page of `compare`.

use std::collections::BTreeMap;

use lora_tool::error::counted;
use lora_tool::format::natural::natural;
use lora_tool::ops::compare::{Measures, Pair, Report};
use lora_tool::ops::inspect;

use super::grid::{Fold, Grid};
use super::heat::{Heat, Scale, number};
use super::html;
use super::made::Made;
use crate::cli::render::compare::both_ways;
use crate::cli::render::{Names, percent};

/// More pairs than these have no map of their own, and no table by module; the matrices show them all.
const MAPPED: usize = 6;
/// Pairs in the table, those first that are worth a look.
const LISTED: usize = 50;
/// The least cosine that is drawn at full strength: smaller ones are noise.
const LEAST_SCALE: f64 = 0.2;

/// A comparison, and what is in each adapter (made with `spectrum`), if that is to be shown.
pub(crate) fn page(report: &Report, adapters: Option<&inspect::Report>, made: &Made) -> String {
    let names = Names::of(report.adapters.iter().map(|adapter| adapter.path.as_path()));
    let mut body =
        html::note("advice", &format!("{}. Rule: {}.", report.advice.text, report.advice.rule));
    for cluster in &report.clusters {
        let members: Vec<_> = cluster.adapters.iter().map(|&at| names.get(at)).collect();
        let cosine = format!("cosine {:+.2} or more", cluster.least_cosine);
        body += &html::note("advice", &format!("alike: {} ({cosine}).", members.join(", ")));
    }
    body += &summary(report, &names);
    body +=
        &html::section("How they overlap", "overlap", &html::figures(&matrices(report, &names)));
    if report.pairs.len() <= MAPPED {
        let figures = html::figures(&maps(report, &names));
        body += &html::section("Where they agree", "agree", &figures);
    }
    body += &html::section("Pairs", "pairs", &pair_tables(report, &names));
    if let Some(adapters) = adapters {
        body += &super::inspect::items(&adapters.items, &names);
    }
    html::page(&format!("How {} get along", names.together()), &body, made)
}

/// Adapters of which the page shows more than how they get along.
pub(crate) const IN_FULL: usize = super::inspect::IN_FULL;

fn both(names: &Names, a: usize, b: usize) -> String {
    format!("{} and {}", names.get(a), names.get(b))
}

fn summary(report: &Report, names: &Names) -> String {
    let head = ["adapter", "modules", "norm", "weight", "others overwrite", "path"];
    let rows = report.adapters.iter().enumerate().map(|(at, adapter)| {
        vec![
            names.get(at).to_owned(),
            adapter.modules.to_string(),
            number(adapter.norm),
            adapter.weight.to_string(),
            adapter.spill.map_or("-".to_owned(), |spill| percent(spill, 1)),
            adapter.path.display().to_string(),
        ]
    });
    html::table("Adapters in a weighted sum", &head, &rows.collect::<Vec<_>>())
}

/// One of the matrices: its title, how to read it, its scale, and the measure.
type Matrix = (&'static str, &'static str, Scale, fn(&Measures) -> f64);

const MATRICES: [Matrix; 4] = [
    ("Cosine", "1: the same update, 0: unrelated, −1: opposite.", Scale::Signed(1.0), |m| {
        m.cosine
    }),
    (
        "Output overlap",
        "Share of the smaller output space that lies in the other's.",
        Scale::UpTo(1.0),
        |m| m.output_overlap,
    ),
    (
        "Input overlap",
        "Share of the smaller input space that lies in the other's.",
        Scale::UpTo(1.0),
        |m| m.input_overlap,
    ),
    (
        "Sign conflict",
        "Share of elements that pull in opposite directions: 0.5 is chance, and blank.",
        Scale::Chance,
        |m| m.sign_conflict,
    ),
];

/// The matrices; what an adapter is to itself is no news, and left out.
fn matrices(report: &Report, names: &Names) -> Vec<String> {
    let labels: Vec<_> = (0..report.adapters.len()).map(|at| names.get(at).to_owned()).collect();
    let draw = |(title, reading, scale, of): Matrix| {
        let mut cells = BTreeMap::new();
        for pair in &report.pairs {
            for (a, b) in [(pair.a, pair.b), (pair.b, pair.a)] {
                cells.insert((a, b), (both(names, a, b), of(&pair.measures)));
            }
        }
        let (rows, columns) = (labels.clone(), labels.clone());
        let id = format!("m{}", title.chars().next().unwrap_or('x'));
        Heat { title, reading, rows, columns, cells, scale }.draw(&id)
    };
    MATRICES.into_iter().map(draw).collect()
}

/// A map of every pair, all to one scale.
fn maps(report: &Report, names: &Names) -> Vec<String> {
    let grid = |pair: &Pair| {
        let cosines =
            pair.modules.iter().map(|module| (module.name.as_str(), module.measures.cosine));
        Grid::new(cosines, Fold::Mean)
    };
    let grids: Vec<_> = report.pairs.iter().map(grid).collect();
    let values = grids.iter().flat_map(|grid| grid.cells.values().map(|(_, value)| value.abs()));
    let most = values.filter(|value| value.is_finite()).fold(LEAST_SCALE, f64::max);
    let draw = |(at, (pair, grid)): (usize, (&Pair, Grid))| {
        let title = both(names, pair.a, pair.b);
        let reading = match grid.folded {
            true => "Mean cosine of the two updates; blocks of layers down, modules across.",
            false => "Cosine of the two updates in every module; layers down, modules across.",
        };
        Heat::layers(&title, reading, grid, Scale::Signed(most)).draw(&format!("c{at}"))
    };
    report.pairs.iter().zip(grids).enumerate().map(draw).collect()
}

/// The pairs that are worth a look first, and behind a line each what they are module by module.
fn pair_tables(report: &Report, names: &Names) -> String {
    let head = |first| [[first].as_slice(), &MEASURES].concat();
    let shown: Vec<_> = report
        .by_interest
        .iter()
        .take(LISTED)
        .filter_map(|&at| Some((report.pairs.get(at)?, report.spills.get(at)?)))
        .collect();
    let rows = shown.iter().map(|(pair, spill)| {
        let name = both(names, pair.a, pair.b);
        let (measures, spill) = match pair.shared_modules {
            // Nothing was measured.
            0 => (
                std::iter::once(name).chain(MEASURES.map(|_| "-".to_owned())).collect(),
                "-".to_owned(),
            ),
            _ => (row(name, &pair.measures), both_ways(spill)),
        };
        [measures, vec![spill, pair.shared_modules.to_string()]].concat()
    });
    let caption = match report.pairs.len() {
        all if all > LISTED => {
            format!("The {LISTED} of {all} pairs that are the most alike or the most opposed")
        }
        _ => "All modules together, the most alike or opposed first".to_owned(),
    };
    let columns = [head("pair").as_slice(), &["overwrites", "modules"]].concat();
    let mut text = html::table(&caption, &columns, &rows.collect::<Vec<_>>());
    for (pair, _) in shown.iter().filter(|_| report.pairs.len() <= MAPPED) {
        let mut modules: Vec<_> = pair.modules.iter().collect();
        modules.sort_by(|a, b| natural(&a.name, &b.name));
        let rows = modules.iter().map(|module| row(module.name.clone(), &module.measures));
        let line = format!("{}: {}", both(names, pair.a, pair.b), counted(modules.len(), "module"));
        let table = html::table(&line, &head("module"), &rows.collect::<Vec<_>>());
        text += &html::details(&line, &table);
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
