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

/// Columns, each as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let escape = |row: &Vec<String>| row.iter().map(|cell| one_line(&clipped(cell))).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(escape).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "  a    b\n  ccc  d\n");
    }
}
