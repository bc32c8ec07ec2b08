//! Lines and tables of a report.

use std::fmt::Write;

use lora_tool::error::{clipped, one_line, short};

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

/// Columns, each as wide as its widest cell.
pub(crate) fn columns(rows: &[Vec<Cell>]) -> String {
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
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| match cell.right {
            true => format!("{:>width$}", cell.text),
            false => format!("{:<width$}", cell.text),
        });
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
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
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "  a    b\n  ccc  d\n");
    }
}
