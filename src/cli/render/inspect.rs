//! What `inspect` saw.

use std::collections::BTreeMap;

use lora_tool::adapter::training::is_training;
use lora_tool::error::counted;
use lora_tool::ops::inspect;

use super::{LISTED, Lines, bytes, count, number, percent, table};

/// What is in adapters and checkpoints.
pub(crate) fn report(report: &inspect::Report, modules: bool, metadata: bool) -> String {
    let items = report.items.iter();
    let texts: Vec<_> = items.map(|item| inspect_item(item, modules, metadata)).collect();
    texts.join("\n")
}

fn tally<K: std::fmt::Display>(counts: &BTreeMap<K, usize>) -> String {
    counts.iter().map(|(key, count)| format!("{key} ×{count}")).collect::<Vec<_>>().join(", ")
}

fn inspect_item(item: &inspect::Item, list_modules: bool, training: bool) -> String {
    let mut lines = Lines::default();
    lines.plain(item.path.display());
    lines.add(item.kind, item.convention.unwrap_or("safetensors"));
    if let Some(model) = item.model.as_ref().filter(|model| !is_base(item, model)) {
        let layers = item.layers.map(|layers| format!(", {layers} layers"));
        lines.add("model", format!("{model}{}", layers.unwrap_or_default()));
    }
    if let Some(base) = &item.base_model {
        lines.add("base", base);
    }
    if let Some(modules) = &item.modules {
        summarise(&mut lines, item, modules);
    }
    if let Some(shards) = item.shards.as_deref().filter(|shards| shards.len() > 1) {
        for shard in shards {
            lines.add(
                "shard",
                format!(
                    "{}  {}, {}",
                    shard.file,
                    counted(shard.tensors, "tensor"),
                    bytes(shard.bytes)
                ),
            );
        }
    }
    lines.add("tensors", format!("{} ({})", item.tensors, tally(&item.dtypes)));
    for group in item.encodings.iter().flatten() {
        lines.add(group.encoding, encoding(group));
    }
    let share = item.share_of_base.map(|share| format!(", {} of the base's", percent(share, 3)));
    lines.add("parameters", format!("{}{}", count(item.parameters), share.unwrap_or_default()));
    lines.add("bytes", bytes(item.bytes));
    let shown = |key: &String| training || !is_training(key);
    for (key, value) in item.metadata.iter().filter(|(key, _)| shown(key)) {
        lines
            .add("metadata", format!("{key}: {}", in_one_line(value.as_str().unwrap_or_default())));
    }
    let hidden = item.metadata.keys().filter(|key| !shown(key)).count();
    if hidden > 0 {
        lines.add("metadata", format!("{hidden} entries of the training; --metadata lists them"));
    }
    for warning in &item.warnings {
        lines.add("note", warning);
    }
    if let Some(modules) = item.modules.as_deref().filter(|list| list_modules && !list.is_empty()) {
        lines.text(&module_table(modules));
    }
    if let Some(tensors) = &item.tensor_list {
        lines.text(&tensor_table(tensors));
    }
    if let Some(modules) = &item.modules {
        lines.text(&spectrum_table(modules));
    }
    lines.into_text()
}

/// Whether all that is known of the model is the name of its base.
pub(crate) fn is_base(item: &inspect::Item, model: &str) -> bool {
    item.base_model.as_ref().is_some_and(|base| base.rsplit('/').next() == Some(model))
}

/// Weights that are stored alike: how, how many, which first.
fn encoding(group: &inspect::EncodingItem) -> String {
    let (weights, more) = if group.weights == 1 { ("weight", "") } else { ("weights", ", …") };
    let inspect::EncodingItem { detail, weights: number, bits, first, .. } = group;
    format!("{detail}: {number} {weights}, {bits:.2} bits a value: {first}{more}")
}

fn summarise(lines: &mut Lines, item: &inspect::Item, modules: &[inspect::ModuleItem]) {
    let mut families = BTreeMap::new();
    let mut targets = BTreeMap::new();
    let mut scales = BTreeMap::new();
    for module in modules {
        *families.entry(module.family).or_default() += 1;
        *targets.entry(target(&module.name)).or_default() += 1;
        let alpha =
            module.alpha.map_or_else(|| "no alpha".to_owned(), |alpha| format!("alpha {alpha}"));
        let rslora = item.rslora && module.alpha.is_some();
        let scale = number(module.scale);
        let text = match module.alpha.filter(|_| rslora) {
            Some(alpha) => {
                let (rank, source) = (module.rank, module.scale_source);
                format!("{scale} = {alpha}/√{rank}, rslora (from {source})")
            }
            None => format!("{scale} ({alpha}, from {})", module.scale_source),
        };
        *scales.entry(text).or_default() += 1;
    }
    if modules.is_empty() {
        lines.add("modules", "none that can be read");
        return;
    }
    lines.add("modules", format!("{} ({})", modules.len(), tally(&families)));
    if item.parts.len() > 1 {
        let parts: Vec<_> =
            item.parts.iter().map(|(part, count)| format!("{part} {count}")).collect();
        lines.add("parts", parts.join(", "));
    }
    if let Some(ranks) = item.ranks.as_ref().filter(|ranks| !ranks.is_empty()) {
        lines.add("ranks", tally(ranks));
    }
    lines.add("scale", tally(&scales));
    if targets.len() <= LISTED {
        lines.add("targets", tally(&targets));
    }
    if let Some(replacements) = item.replacements.as_deref().filter(|r| !r.is_empty()) {
        let names: Vec<_> = replacements.iter().take(4).map(|r| r.name.as_str()).collect();
        let more = if replacements.len() > 4 { ", …" } else { "" };
        lines.add(
            "replaces",
            format!("{}: {}{more}", counted(replacements.len(), "tensor"), names.join(", ")),
        );
    }
}

/// What a module is in its layer: the last part of its name, with the one before where it is but a number.
pub(crate) fn target(name: &str) -> &str {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let last = name.rsplit('.').next().unwrap_or_default();
    let before = name.strip_suffix(last).and_then(|before| before.strip_suffix('.'));
    match before.and_then(|before| before.rsplit('.').next()).filter(|_| is_number(last)) {
        Some(before) => name.get(name.len() - last.len() - 1 - before.len()..).unwrap_or(last),
        None => last,
    }
}

/// The first line of a text of several.
fn in_one_line(text: &str) -> String {
    match text.trim_end().split_once('\n') {
        Some((first, rest)) => {
            format!("{first} … and {} more", counted(rest.lines().count(), "line"))
        }
        None => text.to_owned(),
    }
}

fn tensor_table(tensors: &[inspect::TensorItem]) -> String {
    let mut rows = vec![["tensor", "dtype", "shape", "size"].map(str::to_owned).to_vec()];
    rows.extend(tensors.iter().map(|tensor| {
        let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
        let shape = if shape.is_empty() { "scalar".to_owned() } else { shape.join(" × ") };
        vec![tensor.name.clone(), tensor.dtype.clone(), shape, bytes(tensor.bytes)]
    }));
    table(&rows)
}

fn module_table(modules: &[inspect::ModuleItem]) -> String {
    let head = ["module", "family", "rank", "alpha", "scale", "in", "out", "dtype", "base tensor"];
    let with_base = modules.iter().any(|module| module.base_tensor.is_some());
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for module in modules {
        rows.push(vec![
            module.name.clone(),
            module.family.to_owned(),
            module.rank.to_string(),
            module.alpha.map_or_else(|| "-".to_owned(), |alpha| alpha.to_string()),
            module.scale.to_string(),
            module.inputs.to_string(),
            module.outputs.to_string(),
            module.dtype.clone(),
            base_tensor(module),
        ]);
    }
    if !with_base {
        for row in &mut rows {
            row.pop();
        }
    }
    table(&rows)
}

/// The base tensor, with the rows or the expert where it is not all of it.
fn base_tensor(module: &inspect::ModuleItem) -> String {
    let places: Vec<_> = module.places.iter().map(ToString::to_string).collect();
    let place = match &module.base_tensor {
        Some(tensor) if places.is_empty() => tensor.clone(),
        _ if places.is_empty() => return "-".to_owned(),
        _ => places.join("; "),
    };
    let way = if module.transposed { " (inputs × outputs)" } else { "" };
    let misfit = if module.misfit.is_some() { " (does not fit)" } else { "" };
    format!("{place}{way}{misfit}")
}

/// Singular values and what they say, a row a module; nothing if they were not asked for.
fn spectrum_table(modules: &[inspect::ModuleItem]) -> String {
    let head = [
        "module",
        "norm",
        "σ₁",
        "effective rank",
        "stable rank",
        "90 %",
        "95 %",
        "99 %",
        "spectrum",
    ];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    for module in modules {
        let Some(spectrum) = &module.spectrum else { continue };
        rows.push(vec![
            module.name.clone(),
            format!("{:.4}", spectrum.norm),
            format!("{:.4}", spectrum.singular_values.first().copied().unwrap_or(0.0)),
            format!("{:.2}", spectrum.effective_rank),
            format!("{:.2}", spectrum.stable_rank),
            rank(spectrum.rank_90),
            rank(spectrum.rank_95),
            rank(spectrum.rank_99),
            sparkline(&spectrum.singular_values),
        ]);
    }
    if rows.len() > 1 { table(&rows) } else { String::new() }
}

/// A rank that is known only of finite values.
pub(crate) fn rank(rank: Option<usize>) -> String {
    rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string())
}

/// Singular values as bars against the largest, at most sixteen of them.
fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let first = values.first().copied().unwrap_or(0.0);
    let bar = |value: &f64| {
        let share = if first > 0.0 { value / first } else { 0.0 };
        let step = (share * (BARS.len() - 1) as f64).round() as usize;
        BARS.get(step).copied().unwrap_or('▁')
    };
    values.iter().take(16).map(bar).collect()
}
