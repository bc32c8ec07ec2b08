//! Reports as text for people: one file a verb, and what they are made of.

pub(crate) mod as_lora;
pub(crate) mod check;
pub(crate) mod combine;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod diff;
pub(crate) mod extract;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod merge;
pub(crate) mod metadata;
pub(crate) mod methods;
pub(crate) mod tune;
pub(crate) mod verify;

use std::fmt::Write;

use lora_tool::error::{clipped, one_line, short};

/// Unmatched names and faults that are listed; `--json` has them all.
const LISTED: usize = 20;

/// Bytes in units of 1000.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 && unit != "B" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Counts in thousands, millions and so on.
pub(crate) fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.0} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}

/// A share in per cent, without a minus before zeros.
pub(crate) fn percent(share: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", share * 100.0);
    match text.strip_prefix('-') {
        Some(zeros) if zeros.chars().all(|c| matches!(c, '0' | '.')) => format!("{zeros} %"),
        _ => format!("{text} %"),
    }
}

/// An adapter's weight.
pub(crate) fn weight(weight: f64, by_module: bool) -> String {
    if by_module { "weights by module".to_owned() } else { format!("weight {weight}") }
}

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

/// A relative error in per cent, with two digits that tell something.
pub(crate) fn error(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 1e-4 => "below 0.0001 %".to_owned(),
        percent if percent < 9.95 => {
            let digits = (1.0 - percent.log10().floor()).clamp(1.0, 5.0) as usize;
            format!("{percent:.digits$} %")
        }
        percent => format!("{percent:.0} %"),
    }
}

/// A number with at most four digits that tell something.
pub(crate) fn number(value: f64) -> String {
    let rounded = format!("{value:.3e}").parse().unwrap_or(value);
    format!("{rounded}")
}

/// `1 adapter`, `2 adapters`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
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
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1234), "1.2 kB");
        assert_eq!(bytes(999_900), "1.0 MB");
        assert_eq!(bytes(4_200_000_000), "4.2 GB");
    }

    #[test]
    fn zeros_have_no_sign() {
        assert_eq!(percent(-1e-9, 2), "0.00 %");
        assert_eq!(percent(-0.5, 1), "-50.0 %");
        assert_eq!(percent(1.0, 0), "100 %");
    }

    #[test]
    fn texts_keep_both_ends() {
        assert_eq!(cut("style", 5), "style");
        assert_eq!(cut("a_long_name_01", 9), "a_lo…e_01");
        assert_eq!(number(0.353_553_390_6), "0.3536");
        assert_eq!(number(1e-9), "0.000000001");
        assert_eq!(number(8.0), "8");
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
