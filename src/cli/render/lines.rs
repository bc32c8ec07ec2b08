//! Lines and tables of a report.

use std::fmt::Write;

use lora_tool::error::{clipped, one_line, short};

use crate::cli::screen::width;

/// Unmatched names and faults that are listed; `--json` has them all.
pub(super) const LISTED: usize = 20;

/// Lines of `label  value`, the values aligned.
#[derive(Default)]
pub(crate) struct Lines(String);

impl Lines {
    pub(crate) fn add(&mut self, label: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  {label:<12} {}", one_line(&short(&value.to_string())));
    }

    pub(crate) fn plain(&mut self, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{}", one_line(&text.to_string()));
    }

    /// Text with its own line ends.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// All lines.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// A text of at most so many characters: of a longer one the start and the end, where names differ.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let end = (most - 1) / 2;
    let start: String = text.chars().take(most - 1 - end).collect();
    let end: String = text.chars().skip(length - end).collect();
    format!("{start}…{end}")
}

/// A cell of a table, and the side that it stands at.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    right: bool,
}

impl Cell {
    pub(crate) fn new(text: &str, right: bool) -> Self {
        Self { text: one_line(&clipped(text)), right }
    }

    /// A text.
    pub(crate) fn left(text: impl AsRef<str>) -> Self {
        Self::new(text.as_ref(), false)
    }

    /// A number.
    pub(crate) fn right(text: impl AsRef<str>) -> Self {
        Self::new(text.as_ref(), true)
    }
}

/// Columns, each as wide as its widest cell; what looks like a number stands at the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    // A column is of numbers if every cell below its head is one, or none.
    let of_numbers = |at: usize| {
        let mut below = rows.iter().skip(1).filter_map(|row| row.get(at)).peekable();
        below.peek().is_some() && below.all(|cell| is_number(cell))
    };
    let cell = |(at, text): (usize, &String)| Cell::new(text, of_numbers(at));
    let rows: Vec<Vec<Cell>> =
        rows.iter().map(|row| row.iter().enumerate().map(cell).collect()).collect();
    columns(&rows)
}

/// Whether a cell is a number, with its unit or arrow between two, or says that there is none.
fn is_number(cell: &str) -> bool {
    let first = cell.trim_start_matches(['+', '-', '−', '±']);
    cell == "-"
        || cell.is_empty()
        || first.starts_with(|c: char| c.is_ascii_digit())
        || cell == "NaN"
}

/// Columns, each as wide as its widest cell; on a terminal that is too narrow for them, the widest texts are cut.
pub(crate) fn columns(rows: &[Vec<Cell>]) -> String {
    aligned(rows, width())
}

fn aligned(rows: &[Vec<Cell>], room: Option<usize>) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.text.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    if let Some(room) = room {
        narrow(rows, &mut widths, room);
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            let text = cut(&cell.text, width);
            if cell.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
        });
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// Takes from the widest columns of texts what a row has too much. Numbers are never cut, nor is a text so far that
/// nobody could tell what it was.
fn narrow(rows: &[Vec<Cell>], widths: &mut [usize], room: usize) {
    const LEAST: usize = 12;
    let texts: Vec<bool> = (0..widths.len())
        .map(|at| rows.iter().skip(1).filter_map(|row| row.get(at)).any(|cell| !cell.right))
        .collect();
    let all = |widths: &[usize]| widths.iter().map(|width| width + 2).sum::<usize>();
    while all(widths) > room {
        let wide = widths.iter_mut().zip(&texts).filter(|(width, text)| **text && **width > LEAST);
        let Some((widest, _)) = wide.max_by_key(|(width, _)| **width) else { return };
        *widest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_both_ends() {
        assert_eq!(cut("style", 5), "style");
        assert_eq!(cut("a_long_name_01", 9), "a_lo…e_01");
    }

    #[test]
    fn numbers_stand_at_the_right() {
        let text = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [text(["name", "rank"]), text(["a10", "8"]), text(["b", "16"])];
        assert_eq!(table(&rows), "  name  rank\n  a10      8\n  b       16\n");
    }

    #[test]
    fn tables_fit_their_screen() {
        let long = "model.layers.10.self_attn.q_proj";
        let row = |name: &str, rank: &str| vec![Cell::left(name), Cell::right(rank)];
        let text = aligned(&[row("name", "rank"), row(long, "16")], Some(24));
        assert_eq!(
            text,
            "  name              rank\n  model.la…q_proj     16\n"
                .replace("model.la…q_proj ", "model.la….q_proj")
        );
        assert!(aligned(&[row("name", "rank"), row(long, "16")], None).contains(long));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "  a    b\n  ccc  d\n");
    }
}
