//! Heat maps as SVG: a cell a value, as strong as the value.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::grid::Grid;
use super::html::{escape, figure};
use crate::cli::render::cut;

/// Widths of the drawing: of one beside others, and of one that has the page for itself.
const NARROW: f64 = 420.0;
const WIDE: f64 = 880.0;
/// Columns that fit into a narrow one.
const FEW: usize = 9;
/// Width of a character of a label, about.
const CHARACTER: f64 = 6.0;
/// Characters of a label that are shown; a cell's tooltip has the whole name.
const LABEL: usize = 24;
/// Cells that have a tooltip each; of more the drawing would be larger than it is worth.
const TOOLTIPS: usize = 600;

/// What full strength stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// This value; 0 is blank.
    UpTo(f64),
    /// This size, in two colours; 0 is blank.
    Signed(f64),
    /// 0 and 1, in two colours; 0.5, which chance gives, is blank.
    Chance,
}

impl Scale {
    /// How strong a value is drawn, from −1 to 1.
    fn strength(self, value: f64) -> f64 {
        let share = match self {
            Self::UpTo(full) | Self::Signed(full) if full > 0.0 => value / full,
            Self::UpTo(_) | Self::Signed(_) => 0.0,
            Self::Chance => 1.0 - 2.0 * value,
        };
        if share.is_finite() { share.clamp(-1.0, 1.0) } else { 0.0 }
    }

    /// Values of the legend.
    fn marks(self) -> Vec<f64> {
        match self {
            Self::UpTo(full) => vec![0.0, full / 2.0, full],
            Self::Signed(full) => vec![-full, 0.0, full],
            Self::Chance => vec![0.0, 0.5, 1.0],
        }
    }
}

/// A heat map.
#[derive(Debug)]
pub(super) struct Heat<'a> {
    pub(super) title: &'a str,
    pub(super) reading: &'a str,
    pub(super) rows: Vec<String>,
    pub(super) columns: Vec<String>,
    /// (row, column) → what it is of, and the value.
    pub(super) cells: BTreeMap<(usize, usize), (String, f64)>,
    pub(super) scale: Scale,
}

impl<'a> Heat<'a> {
    /// Layers or blocks down, what is in them across.
    pub(super) fn layers(title: &'a str, reading: &'a str, grid: Grid, scale: Scale) -> Self {
        let prefix = grid.common_prefix().to_owned();
        let short = |row: &String| row.strip_prefix(&prefix).unwrap_or(row).to_owned();
        let rows = grid.rows.iter().map(short).collect();
        Self { title, reading, rows, columns: grid.columns, cells: grid.cells, scale }
    }

    fn is_wide(&self) -> bool {
        self.columns.len() > FEW
    }

    /// The heat map as HTML; `id` is unique on the page.
    pub(super) fn draw(&self, id: &str) -> String {
        let width = if self.is_wide() { WIDE } else { NARROW };
        let place = Place::new(&self.rows, &self.columns, width);
        let mut svg = format!(
            "<svg class=\"heat\" viewBox=\"0 0 {width} {:.0}\" role=\"img\" \
             aria-labelledby=\"{id}t {id}d\">\n<title id=\"{id}t\">{}</title>\n<desc id=\"{id}d\">{}</desc>\n",
            place.height(self.rows.len()),
            escape(self.title),
            escape(&format!("{} {}", self.reading, self.extremes())),
        );
        self.draw_labels(&mut svg, &place);
        self.draw_cells(&mut svg, &place);
        svg.push_str("</svg>\n");
        figure((self.title, self.reading), &svg, &self.legend(), self.is_wide())
    }

    /// The largest and the smallest value in words, for who cannot see the cells.
    fn extremes(&self) -> String {
        let values = || self.cells.values().filter(|(_, value)| value.is_finite());
        let most = values().max_by(|a, b| a.1.total_cmp(&b.1));
        let least = values().min_by(|a, b| a.1.total_cmp(&b.1));
        match (most, least) {
            (Some(most), Some(least)) => format!(
                "Largest: {} at {}. Smallest: {} at {}.",
                number(most.1),
                most.0,
                number(least.1),
                least.0
            ),
            _ => "No values.".to_owned(),
        }
    }

    fn draw_labels(&self, svg: &mut String, place: &Place) {
        for (at, name) in self.columns.iter().enumerate().step_by(place.every_column) {
            let x = place.x(at) + place.cell.0 / 2.0 + 3.0;
            let y = place.top - 6.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" transform=\"rotate(-50 {x:.1} {y:.1})\">{}</text>",
                escape(&cut(name, LABEL))
            );
        }
        for (at, name) in self.rows.iter().enumerate().step_by(place.every_row) {
            let y = place.y(at) + place.cell.1 / 2.0 + 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                place.left - 6.0,
                escape(&cut(name, LABEL))
            );
        }
    }

    fn draw_cells(&self, svg: &mut String, place: &Place) {
        // Numbers where they fit.
        let numbers = place.cell.0 >= 34.0 && place.cell.1 >= 18.0;
        let tooltips = self.cells.len() <= TOOLTIPS;
        let size =
            format!("width=\"{:.1}\" height=\"{:.1}\"", place.cell.0 - 1.0, place.cell.1 - 1.0);
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let (x, y) = (place.x(column), place.y(row));
                let Some((name, value)) = self.cells.get(&(row, column)) else {
                    if tooltips {
                        let _ = writeln!(
                            svg,
                            "<rect class=\"empty\" x=\"{x:.1}\" y=\"{y:.1}\" {size}/>"
                        );
                    }
                    continue;
                };
                let strength = self.scale.strength(*value);
                let class = if strength < 0.0 { "minus" } else { "plus" };
                let opacity = strength.abs() * if numbers { 0.55 } else { 1.0 };
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" {size} fill-opacity=\"{opacity:.2}\""
                );
                let _ = match tooltips {
                    true => {
                        writeln!(svg, "><title>{}: {}</title></rect>", escape(name), number(*value))
                    }
                    false => writeln!(svg, "/>"),
                };
                if numbers {
                    let _ = writeln!(
                        svg,
                        "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                        x + place.cell.0 / 2.0,
                        y + place.cell.1 / 2.0 + 3.5,
                        in_cell(*value)
                    );
                }
            }
        }
    }

    fn legend(&self) -> String {
        let mut list = String::from("<ul class=\"legend\">\n");
        for mark in self.scale.marks() {
            let strength = self.scale.strength(mark);
            let class = if strength < 0.0 { "minus" } else { "plus" };
            let _ = writeln!(
                list,
                "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"28\" \
                 height=\"10\" fill-opacity=\"{:.2}\"/></svg>{}</li>",
                strength.abs(),
                number(mark)
            );
        }
        list + "</ul>\n"
    }
}

/// Three significant digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "-".to_owned(),
        0.0 => "0".to_owned(),
        0.001..0.9995 => format!("{value:.3}"),
        0.9995..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        99.95..99_999.5 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    }
}

/// What fits into a cell: two digits behind the point; the tooltip has three that tell something.
fn in_cell(value: f64) -> String {
    match value.abs() {
        size if size < 0.005 => "0".to_owned(),
        size if size < 9.995 => format!("{value:.2}"),
        _ => number(value),
    }
}

/// Where cells lie on the drawing.
struct Place {
    left: f64,
    top: f64,
    cell: (f64, f64),
    every_row: usize,
    every_column: usize,
}

impl Place {
    fn new(rows: &[String], columns: &[String], all: f64) -> Self {
        let longest = |names: &[String]| {
            let lengths = names.iter().map(|name| name.chars().count().min(LABEL));
            lengths.max().unwrap_or(0) as f64 * CHARACTER
        };
        let left = longest(rows) + 12.0;
        // The last column's label leans out to the right.
        let lean = (longest(columns) * 0.64).min(100.0);
        let top = longest(columns) * 0.77 + 14.0;
        let room = all - left - lean;
        let width = (room / columns.len().max(1) as f64).min(72.0);
        let height = match rows.len() {
            0..=4 => 32.0,
            5..=16 => 22.0,
            _ => 15.0,
        };
        let every = |size: f64| (12.0 / size).ceil().max(1.0) as usize;
        let (every_row, every_column) = (every(height), every(width));
        Self { left, top, cell: (width, height), every_row, every_column }
    }

    fn x(&self, column: usize) -> f64 {
        self.left + self.cell.0 * column as f64
    }

    fn y(&self, row: usize) -> f64 {
        self.top + self.cell.1 * row as f64
    }

    fn height(&self, rows: usize) -> f64 {
        self.y(rows) + 4.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::Fold;
    use super::*;

    #[test]
    fn any_grid_draws() {
        let hostile = "layers.0.<b>&\"";
        for values in [vec![], vec![(hostile, 0.0)], vec![(hostile, f64::NAN), ("layers.1.x", 2.0)]]
        {
            for scale in [Scale::UpTo(0.0), Scale::UpTo(2.0), Scale::Signed(1.0), Scale::Chance] {
                let grid = Grid::new(values.clone().into_iter(), Fold::Norm);
                let svg = Heat::layers("t", "r", grid, scale).draw("h0");
                assert!(
                    svg.contains("</svg>") && !svg.contains("<b>") && !svg.contains("NaN"),
                    "{svg}"
                );
            }
        }
    }

    #[test]
    fn chance_is_blank() {
        assert_eq!([0.0, 0.5, 1.0].map(|value| Scale::Chance.strength(value)), [1.0, 0.0, -1.0]);
        assert_eq!(Scale::Signed(0.2).strength(-0.1), -0.5);
        assert_eq!(Scale::UpTo(0.0).strength(1.0), 0.0);
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.12345, -0.5, 1.0, 12.345, 1234.5, 1e7, 1e-9].map(number);
        assert_eq!(texts, ["0", "0.123", "-0.500", "1.00", "12.3", "1234", "1.0e7", "1.0e-9"]);
    }
}
