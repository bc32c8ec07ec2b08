//! The page of `inspect`, and of each adapter on that of `compare`.

use std::collections::BTreeMap;

use lora_tool::error::counted;
use lora_tool::format::natural::natural;
use lora_tool::ops::inspect::{Item, ModuleItem, Report};
use serde_json::Value;

use super::conclusion::conclusion;
use super::grid::{Fold, Grid, blocks};
use super::heat::{Heat, Scale, number};
use super::made::Made;
use super::{curves, html};
use crate::cli::render::inspect::{is_base, rank, target};
use crate::cli::render::{Names, bytes, count, percent};

/// Adapters of which a page shows every module; of more it compares what they are as a whole.
pub(super) const IN_FULL: usize = 4;
/// Modules in the table of the strongest.
const STRONGEST: usize = 20;

/// Every item of a report made with `spectrum`.
pub(crate) fn page(report: &Report, made: &Made) -> String {
    let names = Names::of(report.items.iter().map(|item| item.path.as_path()));
    let mut body = String::new();
    if report.items.len() > 1 {
        body += &overview(&report.items, &names);
    }
    body += &items(&report.items, &names);
    let title = match report.items.len() {
        1 | 2 => format!("What is in {}", names.together()),
        many => format!("What is in {many} files"),
    };
    html::page(&title, &body, made)
}

/// Sections of adapters and checkpoints; norms of all are drawn to one scale.
pub(super) fn items(items: &[Item], names: &Names) -> String {
    let full = items.len() <= IN_FULL;
    let most = items.iter().filter_map(norms).flat_map(|grid| grid.cells.into_values());
    let most = most.map(|(_, value)| value).filter(|value| value.is_finite()).fold(0.0, f64::max);
    let section =
        |(at, item): (usize, &Item)| section(item, names.get(at), &format!("i{at}"), most, full);
    items.iter().enumerate().map(section).collect()
}

/// A row a file, and the norms of all adapters block by block.
fn overview(items: &[Item], names: &Names) -> String {
    let head = ["file", "model", "rank", "scale", "modules", "norm", "size"];
    let rows = items.iter().enumerate().map(|(at, item)| {
        let ranks = item.ranks.iter().flatten().map(|(rank, _)| rank.to_string());
        let scales = item.modules.iter().flatten().map(|module| number(module.scale));
        let mut scales: Vec<_> = scales.collect();
        scales.dedup();
        scales.truncate(3);
        vec![
            names.get(at).to_owned(),
            item.model.clone().unwrap_or_else(|| "-".to_owned()),
            ranks.collect::<Vec<_>>().join(", "),
            scales.join(", "),
            item.modules.as_ref().map_or("-".to_owned(), |modules| modules.len().to_string()),
            norm(item).map_or("-".to_owned(), number),
            bytes(item.bytes),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let links =
        items.iter().enumerate().map(|(at, _)| (format!("i{at}"), names.get(at).to_owned()));
    let mut body = html::contents(&links.collect::<Vec<_>>());
    body += &html::table("All files", &head, &rows);
    let cells = items.iter().enumerate().flat_map(|(at, item)| {
        let modules = item.modules.as_deref().unwrap_or_default();
        let by_block = blocks(modules, |module: &ModuleItem| &module.name);
        by_block.into_iter().map(move |(block, modules)| {
            let norms = modules.iter().filter_map(|module| Some(module.spectrum.as_ref()?.norm));
            (at, block, Fold::Norm.of(&norms.collect::<Vec<_>>()))
        })
    });
    let cells: Vec<_> = cells.collect();
    let mut columns: Vec<String> = cells.iter().map(|(_, block, _)| block.clone()).collect();
    columns.sort_by(|a, b| natural(a, b));
    columns.dedup();
    if columns.len() < 2 {
        return body;
    }
    let place = |block: &String| columns.iter().position(|column| column == block);
    let label = |at: usize, block: &str| format!("{} {block}", names.get(at));
    let cells: BTreeMap<_, _> = cells
        .iter()
        .filter_map(|(at, block, norm)| Some(((*at, place(block)?), (label(*at, block), *norm))))
        .collect();
    let most =
        cells.values().map(|(_, norm)| *norm).filter(|norm| norm.is_finite()).fold(0.0, f64::max);
    let rows = (0..items.len()).map(|at| names.get(at).to_owned()).collect();
    let prefix = Grid { rows: columns.clone(), ..Grid::default() }.common_prefix().to_owned();
    let short = |name: &String| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
    let columns = columns.iter().map(short).collect();
    let reading = "Size of the update, its Frobenius norm, by file and block.";
    let heat =
        Heat { title: "Norms by block", reading, rows, columns, cells, scale: Scale::UpTo(most) };
    body + &html::figures(&[heat.draw("o")])
}

fn norm(item: &Item) -> Option<f64> {
    let modules = item.modules.as_ref()?;
    let norms = modules.iter().map(|module| Some(module.spectrum.as_ref()?.norm));
    Some(Fold::Norm.of(&norms.collect::<Option<Vec<_>>>()?))
}

fn norms(item: &Item) -> Option<Grid> {
    let modules = item.modules.as_deref().filter(|modules| !modules.is_empty())?;
    let norms = modules
        .iter()
        .filter_map(|module| Some((module.name.as_str(), module.spectrum.as_ref()?.norm)));
    Some(Grid::new(norms, Fold::Norm))
}

/// One adapter or checkpoint; `id` is unique on the page, and `most` is the norm that is drawn strongest.
fn section(item: &Item, name: &str, id: &str, most: f64, full: bool) -> String {
    let mut body = conclusion(item).map(|text| html::note("advice", &text)).unwrap_or_default();
    for warning in &item.warnings {
        body += &html::note("warning", warning);
    }
    body += &html::facts(&facts(item));
    if full && !item.metadata.is_empty() {
        let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rows = item.metadata.iter().map(|(key, entry)| vec![key.clone(), clip(&value(entry))]);
        let table = html::table("Metadata", &["entry", "value"], &rows.collect::<Vec<_>>());
        body += &html::details(&format!("Metadata ({})", item.metadata.len()), &table);
    }
    let modules = item.modules.as_deref().unwrap_or_default();
    if let Some(grid) = norms(item).filter(|_| full) {
        let reading = match grid.folded {
            true => {
                "Size of the update, its Frobenius norm; blocks of layers down, modules across."
            }
            false => "Size of the update, its Frobenius norm; layers down, modules across.",
        };
        let figures = [
            Heat::layers("Norms", reading, grid, Scale::UpTo(most)).draw(&format!("{id}n")),
            curves::spectra(modules, &format!("{id}s")),
            curves::energy(modules, &format!("{id}e")),
        ];
        body += &html::figures(&figures);
        body += &module_tables(modules);
    }
    if let Some(shards) = item.shards.as_deref() {
        let rows = shards
            .iter()
            .map(|shard| vec![shard.file.clone(), shard.tensors.to_string(), bytes(shard.bytes)]);
        body += &html::table("Files", &["file", "tensors", "bytes"], &rows.collect::<Vec<_>>());
    }
    html::section(name, id, &body)
}

/// The beginning of a long text.
fn clip(text: &str) -> String {
    /// Characters that a cell shows.
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// What modules are in their layers, with how many of each; the first few.
fn targets(modules: &[ModuleItem]) -> String {
    /// Kinds that are shown.
    const MOST: usize = 12;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for module in modules {
        *counts.entry(target(&module.name)).or_default() += 1;
    }
    let more = counts.len().saturating_sub(MOST);
    let shown: BTreeMap<_, _> = counts.into_iter().take(MOST).collect();
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    tally(&shown) + &more
}

fn facts(item: &Item) -> Vec<(&'static str, String)> {
    let mut facts = vec![("path", item.path.display().to_string()), ("kind", item.kind.to_owned())];
    let mut add = |label, value: Option<String>| {
        facts.extend(value.filter(|value| !value.is_empty()).map(|value| (label, value)));
    };
    add("convention", item.convention.map(str::to_owned));
    add("model", item.model.clone().filter(|model| !is_base(item, model)));
    add("base", item.base_model.clone());
    add("modules", item.modules.as_ref().map(|modules| modules.len().to_string()));
    add("parts", (item.parts.len() > 1).then(|| tally(&item.parts)));
    add("ranks", item.ranks.as_ref().map(tally));
    add("scale", item.modules.as_deref().map(|modules| scales(item, modules)));
    add("targets", item.modules.as_deref().map(targets));
    add("tensors", Some(format!("{} ({})", item.tensors, tally(&item.dtypes))));
    let share = item.share_of_base.map(|share| format!(", {} of the base's", percent(share, 3)));
    add("parameters", Some(format!("{}{}", count(item.parameters), share.unwrap_or_default())));
    add("bytes", Some(bytes(item.bytes)));
    for (key, label) in
        [("modelspec.title", "title"), ("modelspec.trigger_phrase", "trigger words")]
    {
        add(label, item.metadata.get(key).and_then(|value| Some(value.as_str()?.to_owned())));
    }
    facts
}

/// The scales of modules, with alpha where all have one.
fn scales(item: &Item, modules: &[ModuleItem]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for module in modules {
        let alpha = module.alpha.map(|alpha| format!(" (alpha {alpha})")).unwrap_or_default();
        *counts.entry(format!("{}{alpha}", number(module.scale))).or_default() += 1;
    }
    let rslora = if item.rslora { ", rslora" } else { "" };
    let shown: BTreeMap<_, _> = counts.into_iter().take(4).collect();
    format!("{}{rslora}", tally(&shown))
}

fn tally<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key} ×{count}")).collect::<Vec<_>>().join(", ")
}

const HEAD: [&str; 9] =
    ["module", "rank", "scale", "out × in", "norm", "σ₁", "effective rank", "90 %", "99 %"];

/// The strongest modules, and behind a line each the modules of every block.
fn module_tables(modules: &[ModuleItem]) -> String {
    let size =
        |module: &&ModuleItem| module.spectrum.as_ref().map_or(0.0, |spectrum| spectrum.norm);
    let mut strongest: Vec<_> = modules.iter().collect();
    strongest.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let caption = match modules.len() {
        all if all > STRONGEST => format!("The {STRONGEST} strongest of {all} modules"),
        _ => "Modules, the strongest first".to_owned(),
    };
    let rows: Vec<_> = strongest.into_iter().take(STRONGEST).map(row).collect();
    let mut text = html::table(&caption, &HEAD, &rows);
    if modules.len() <= STRONGEST {
        return text;
    }
    for (block, modules) in blocks(modules, |module| &module.name) {
        let norms: Vec<f64> = modules.iter().map(&size).collect();
        let block = if block.is_empty() { "outside of layers" } else { &block };
        let norm = number(Fold::Norm.of(&norms));
        let line = format!("{block}: {}, norm {norm}", counted(modules.len(), "module"));
        let rows: Vec<_> = modules.into_iter().map(row).collect();
        text += &html::details(&line, &html::table(block, &HEAD, &rows));
    }
    text
}

fn row(module: &ModuleItem) -> Vec<String> {
    let mut row = vec![
        module.name.clone(),
        module.rank.to_string(),
        number(module.scale),
        format!("{} × {}", module.outputs, module.inputs),
    ];
    match &module.spectrum {
        None => row.extend(std::iter::repeat_n("-".to_owned(), HEAD.len() - 4)),
        Some(spectrum) => row.extend([
            number(spectrum.norm),
            number(spectrum.singular_values.first().copied().unwrap_or(0.0)),
            number(spectrum.effective_rank),
            rank(spectrum.rank_90),
            rank(spectrum.rank_99),
        ]),
    }
    row
}
