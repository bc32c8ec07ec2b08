//! Module names as places in a grid: the layer they belong to, and what they are in it.

use std::collections::BTreeMap;

use lora_tool::format::natural::natural;

/// Layers that a map has at most, before those of one block share a row.
const MOST_ROWS: usize = 40;

/// Words before a number that make it one of a layer: `layers.3`, `transformer_blocks_0`, `h.11`.
fn counts_layers(word: &str) -> bool {
    word.ends_with('s') || matches!(word, "block" | "layer" | "h" | "expert" | "stage")
}

/// Splits a name behind the last number of a layer: `model.layers.3.self_attn.q_proj` is `self_attn.q_proj` in
/// `model.layers.3`, and `lora_unet_blocks_0_ff_net_2` is `ff_net_2` in `lora_unet_blocks_0`. Where no word before a
/// number is one for layers, any number but the last word is taken. A name without one stands alone, in no layer.
pub(super) fn place(name: &str) -> (&str, &str) {
    split(name, counts_layers).or_else(|| split(name, |_| true)).unwrap_or(("", name))
}

/// A name behind the last number that stands after a word of layers, or after such a number.
fn split(name: &str, of_layers: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let mut found = None;
    let (mut before, mut counted, mut start) = ("", false, 0);
    for end in name.match_indices(['.', '_']).map(|(at, _)| at) {
        let word = name.get(start..end).unwrap_or_default();
        counted = is_number(word) && (counted || of_layers(before));
        let rest = name.get(end + 1..).unwrap_or_default();
        // A trailing number, as in `to_out.0`, belongs to the module.
        if counted && !rest.is_empty() && !is_number(rest) {
            found = Some((name.get(..end).unwrap_or_default(), rest));
        }
        (before, start) = (word, end + 1);
    }
    found
}

/// The block that a layer is in: all of a text encoder, else up to the first number.
fn block(layer: &str) -> &str {
    const ENCODERS: [&str; 2] = ["_text_model", ".text_model"];
    if let Some(at) = ENCODERS.iter().find_map(|encoder| layer.find(encoder)).filter(|at| *at > 0) {
        return layer.get(..at).unwrap_or(layer);
    }
    let mut start = 0;
    for end in layer.match_indices(['.', '_']).map(|(at, _)| at).chain([layer.len()]) {
        if is_number(layer.get(start..end).unwrap_or_default()) {
            return layer.get(..end).unwrap_or(layer);
        }
        start = end + 1;
    }
    layer
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// How values of several modules in one cell become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    /// The root of the sum of their squares, as norms add up.
    Norm,
    /// Their mean.
    Mean,
}

impl Fold {
    pub(super) fn of(self, values: &[f64]) -> f64 {
        match self {
            Self::Norm => values.iter().map(|value| value * value).sum::<f64>().sqrt(),
            Self::Mean => values.iter().sum::<f64>() / values.len().max(1) as f64,
        }
    }
}

/// Values at the places of their modules.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// Layers or blocks, in natural order.
    pub(super) rows: Vec<String>,
    /// What they hold, in the order it was first met.
    pub(super) columns: Vec<String>,
    /// (row, column) → what is there, and the value.
    pub(super) cells: BTreeMap<(usize, usize), (String, f64)>,
    /// Whether rows are blocks of several layers.
    pub(super) folded: bool,
}

impl Grid {
    /// A row a layer; of more layers than can be shown a row a block, in which modules of a kind are one cell.
    pub(super) fn new<'a>(values: impl Iterator<Item = (&'a str, f64)>, fold: Fold) -> Self {
        let placed: Vec<_> = values.map(|(name, value)| (name, place(name), value)).collect();
        let mut rows = distinct(placed.iter().map(|(_, (layer, _), _)| *layer));
        let folded = rows.len() > MOST_ROWS;
        if folded {
            rows = distinct(placed.iter().map(|(_, (layer, _), _)| block(layer)));
        }
        rows.sort_by(|a, b| natural(a, b));
        let columns = distinct(placed.iter().map(|(_, (_, kind), _)| *kind));
        let mut found: BTreeMap<(usize, usize), (&str, Vec<f64>)> = BTreeMap::new();
        for (name, (layer, kind), value) in &placed {
            let layer = if folded { block(layer) } else { layer };
            let row = rows.iter().position(|row| *row == layer);
            let column = columns.iter().position(|column| column == kind);
            if let (Some(row), Some(column)) = (row, column) {
                found.entry((row, column)).or_insert((name, Vec::new())).1.push(*value);
            }
        }
        let cell = |((row, column), (name, values)): ((usize, usize), (&str, Vec<f64>))| {
            let label = match values.len() {
                1 => name.to_owned(),
                many => {
                    let part = |names: &[&str], at: usize| {
                        names.get(at).copied().unwrap_or_default().to_owned()
                    };
                    format!("{} {} ({many} modules)", part(&rows, row), part(&columns, column))
                }
            };
            ((row, column), (label, fold.of(&values)))
        };
        let cells = found.into_iter().map(cell).collect();
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Self { cells, rows: owned(rows), columns: owned(columns), folded }
    }

    /// What all rows' names begin with, up to a separator, and need not be repeated.
    pub(super) fn common_prefix(&self) -> &str {
        let named = || self.rows.iter().filter(|row| !row.is_empty());
        let Some(first) = named().next().filter(|_| named().count() > 1) else { return "" };
        let shared = named().fold(first.len(), |length, row| {
            let same = first.bytes().zip(row.bytes()).take_while(|(a, b)| a == b).count();
            length.min(same)
        });
        let shared = first.get(..shared).unwrap_or_default();
        let end = shared.rfind(['.', '_']).map_or(0, |at| at + 1);
        &shared[..end]
    }
}

/// Names in the order in which they are first met.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// Modules of every block, with the block's name, in natural order.
pub(super) fn blocks<T>(items: &[T], name: impl Fn(&T) -> &str) -> Vec<(String, Vec<&T>)> {
    let mut found: BTreeMap<String, Vec<&T>> = BTreeMap::new();
    for item in items {
        found.entry(block(place(name(item)).0).to_owned()).or_default().push(item);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|(a, _), (b, _)| natural(a, b));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_behind_the_last_number_of_a_layer() {
        let cases = [
            ("model.layers.3.self_attn.q_proj", ("model.layers.3", "self_attn.q_proj")),
            ("lora_unet_blocks_0_attn1_to_q", ("lora_unet_blocks_0", "attn1_to_q")),
            ("blocks.0.attn1.to_out.0", ("blocks.0", "attn1.to_out.0")),
            ("transformer_blocks_0_ff_net_0_proj", ("transformer_blocks_0", "ff_net_0_proj")),
            ("input_blocks_4_1_proj_in", ("input_blocks_4_1", "proj_in")),
            ("lm_head", ("", "lm_head")),
            ("x.12", ("", "x.12")),
            ("", ("", "")),
            ("é.1.ü", ("é.1", "ü")),
        ];
        for (name, expected) in cases {
            assert_eq!(place(name), expected, "{name}");
        }
    }

    #[test]
    fn layers_lie_in_blocks() {
        let cases = [
            ("lora_unet_input_blocks_4_1_transformer_blocks_0", "lora_unet_input_blocks_4"),
            ("lora_te1_text_model_encoder_layers_11", "lora_te1"),
            ("text_encoder_2.text_model.encoder.layers.3", "text_encoder_2"),
            ("model.layers.3", "model.layers.3"),
            ("", ""),
        ];
        for (layer, expected) in cases {
            assert_eq!(block(layer), expected, "{layer}");
        }
    }

    #[test]
    fn layers_drop_what_they_share() {
        let names = ["m.layers.10.q", "m.layers.2.q", "m.layers.2.k", "head"];
        let grid = Grid::new(names.iter().map(|name| (*name, 1.0)), Fold::Norm);
        assert_eq!(grid.rows, ["", "m.layers.2", "m.layers.10"]);
        assert_eq!(grid.columns, ["q", "k", "head"]);
        assert_eq!(grid.common_prefix(), "m.layers.");
        assert_eq!(grid.cells.len(), 4);
        assert_eq!(Grid::default().common_prefix(), "");
    }

    #[test]
    fn many_layers_become_blocks() {
        let names: Vec<String> =
            (0..90).map(|at| format!("blocks.{}.layers.{at}.q", at % 3)).collect();
        let values = || names.iter().map(|name| (name.as_str(), 2.0));
        let grid = Grid::new(values(), Fold::Norm);
        assert!(grid.folded);
        assert_eq!(grid.rows, ["blocks.0", "blocks.1", "blocks.2"]);
        let expected = ("blocks.0 q (30 modules)".to_owned(), 120f64.sqrt());
        assert_eq!(grid.cells.get(&(0, 0)), Some(&expected));
        assert_eq!(
            Grid::new(values(), Fold::Mean).cells.get(&(2, 0)).map(|cell| cell.1),
            Some(2.0)
        );
    }
}
