//! The page of `inspect`.

use std::collections::BTreeMap;

use lora_tool::ops::inspect::{Item, ModuleItem, Report};

use lora_tool::format::natural::natural;

use super::grid::Grid;
use super::heat::{Heat, Scale, number};
use super::{curves, html};
use crate::cli::render::inspect::rank;
use crate::cli::render::{bytes, count, percent};

/// Every item of a report made with `spectrum`.
pub(crate) fn page(report: &Report) -> String {
    let names = html::names(report.items.iter().map(|item| item.path.as_path()));
    let sections: String =
        report.items.iter().enumerate().map(|(at, one)| item(one, &format!("i{at}"))).collect();
    html::page(&format!("What is in {names}"), &sections)
}

/// One adapter or checkpoint; `id` is unique on the page.
pub(super) fn item(item: &Item, id: &str) -> String {
    let mut body = html::facts(&facts(item));
    for warning in &item.warnings {
        body += &html::note("warning", warning);
    }
    if let Some(modules) = item.modules.as_deref().filter(|modules| !modules.is_empty()) {
        let figures = [
            norms(modules, &format!("{id}n")),
            curves::spectra(modules, &format!("{id}s")),
            curves::energy(modules, &format!("{id}e")),
        ];
        body += &html::figures(&figures);
        body += &module_table(modules);
    }
    if let Some(shards) = item.shards.as_deref() {
        let rows = shards
            .iter()
            .map(|shard| vec![shard.file.clone(), shard.tensors.to_string(), bytes(shard.bytes)]);
        body += &html::table("Files", &["file", "tensors", "bytes"], &rows.collect::<Vec<_>>());
    }
    html::section(&item.path.display().to_string(), &body)
}

fn facts(item: &Item) -> Vec<(&'static str, String)> {
    let mut facts = vec![("kind", item.kind.to_owned())];
    if let Some(convention) = item.convention {
        facts.push(("convention", convention.to_owned()));
    }
    if let Some(base) = &item.base_model {
        facts.push(("base", base.clone()));
    }
    if let Some(modules) = &item.modules {
        facts.push(("modules", modules.len().to_string()));
    }
    if let Some(ranks) = &item.ranks {
        facts.push(("ranks", tally(ranks)));
    }
    facts.push(("tensors", format!("{} ({})", item.tensors, tally(&item.dtypes))));
    let share = item.share_of_base.map(|share| format!(", {} of the base's", percent(share, 3)));
    facts.push(("parameters", format!("{}{}", count(item.parameters), share.unwrap_or_default())));
    facts.push(("bytes", bytes(item.bytes)));
    facts
}

fn tally<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key} ×{count}")).collect::<Vec<_>>().join(", ")
}

fn norms(modules: &[ModuleItem], id: &str) -> String {
    let norms = modules
        .iter()
        .filter_map(|module| Some((module.name.as_str(), module.spectrum.as_ref()?.norm)));
    let reading = "Size of the update, its Frobenius norm; layers down, modules across.";
    Heat::layers("Norms", reading, Grid::new(norms), Scale::Largest).draw(id)
}

fn module_table(modules: &[ModuleItem]) -> String {
    let head = [
        "module",
        "family",
        "rank",
        "alpha",
        "scale",
        "in",
        "out",
        "norm",
        "σ₁",
        "effective rank",
        "stable rank",
        "90 %",
        "95 %",
        "99 %",
    ];
    let row = |module: &ModuleItem| {
        let mut row = vec![
            module.name.clone(),
            module.family.to_owned(),
            module.rank.to_string(),
            module.alpha.map_or_else(|| "-".to_owned(), |alpha| alpha.to_string()),
            number(module.scale),
            module.inputs.to_string(),
            module.outputs.to_string(),
        ];
        match &module.spectrum {
            None => row.extend(std::iter::repeat_n("-".to_owned(), head.len() - 7)),
            Some(spectrum) => row.extend([
                number(spectrum.norm),
                number(spectrum.singular_values.first().copied().unwrap_or(0.0)),
                number(spectrum.effective_rank),
                number(spectrum.stable_rank),
                rank(spectrum.rank_90),
                rank(spectrum.rank_95),
                rank(spectrum.rank_99),
            ]),
        }
        row
    };
    let mut modules: Vec<_> = modules.iter().collect();
    modules.sort_by(|a, b| natural(&a.name, &b.name));
    html::table("Modules", &head, &modules.into_iter().map(row).collect::<Vec<_>>())
}
