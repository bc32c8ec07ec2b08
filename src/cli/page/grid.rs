//! Module names as places in a grid: the layer they belong to, and what they are in it.

use std::collections::BTreeMap;

use lora_tool::format::natural::natural;

/// Splits a name behind its last number: `model.layers.3.self_attn.q_proj` is `self_attn.q_proj` in
/// `model.layers.3`, and `lora_unet_blocks_0_attn1_to_q` is `attn1_to_q` in `lora_unet_blocks_0`.
/// A name without a number stands alone, in no layer.
pub(super) fn place(name: &str) -> (&str, &str) {
    let mut found = ("", name);
    for (at, _) in name.match_indices(['.', '_']) {
        let (layer, rest) = name.split_at(at);
        let digits = layer.rsplit(['.', '_']).next().unwrap_or_default();
        let numbered = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        // A trailing number, as in `to_out.0`, belongs to the module.
        if numbered && rest.len() > 1 && !is_number(&rest[1..]) {
            found = (layer, &rest[1..]);
        }
    }
    found
}

fn is_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit())
}

/// Values at the places of their modules.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// Layers, in natural order.
    pub(super) rows: Vec<String>,
    /// What layers hold, in the order it was first met.
    pub(super) columns: Vec<String>,
    /// (row, column) → module and value.
    pub(super) cells: BTreeMap<(usize, usize), (String, f64)>,
}

impl Grid {
    pub(super) fn new<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> Self {
        let mut grid = Self::default();
        let placed: Vec<_> = values.map(|(name, value)| (name, place(name), value)).collect();
        for (_, (layer, kind), _) in &placed {
            if !grid.rows.iter().any(|row| row == layer) {
                grid.rows.push((*layer).to_owned());
            }
            if !grid.columns.iter().any(|column| column == kind) {
                grid.columns.push((*kind).to_owned());
            }
        }
        grid.rows.sort_by(|a, b| natural(a, b));
        for (name, (layer, kind), value) in placed {
            let row = grid.rows.iter().position(|row| row == layer);
            let column = grid.columns.iter().position(|column| column == kind);
            if let (Some(row), Some(column)) = (row, column) {
                grid.cells.insert((row, column), (name.to_owned(), value));
            }
        }
        grid
    }

    /// What all layers' names begin with, up to a separator, and need not be repeated.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_behind_their_last_number() {
        let cases = [
            ("model.layers.3.self_attn.q_proj", ("model.layers.3", "self_attn.q_proj")),
            ("lora_unet_blocks_0_attn1_to_q", ("lora_unet_blocks_0", "attn1_to_q")),
            ("blocks.0.attn1.to_out.0", ("blocks.0", "attn1.to_out.0")),
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
    fn layers_drop_what_they_share() {
        let names = ["m.layers.10.q", "m.layers.2.q", "m.layers.2.k", "head"];
        let grid = Grid::new(names.iter().map(|name| (*name, 1.0)));
        assert_eq!(grid.rows, ["", "m.layers.2", "m.layers.10"]);
        assert_eq!(grid.columns, ["q", "k", "head"]);
        assert_eq!(grid.common_prefix(), "m.layers.");
        assert_eq!(grid.cells.len(), 4);
        assert_eq!(Grid::default().common_prefix(), "");
    }
}
