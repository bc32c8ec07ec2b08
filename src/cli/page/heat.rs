//! Heat maps as SVG: a cell a value, as strong as the value.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::grid::Grid;
use super::html::{escape, figure};

const WIDTH: f64 = 420.0;
/// Width of a character of a label, about.
const CHARACTER: f64 = 6.0;
/// Characters of a label that are shown; a cell's tooltip has the whole name.
const LABEL: usize = 24;

/// What full strength stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// The largest value shown; 0 is blank.
    Largest,
    /// 1; 0 is blank.
    One,
    /// ±1, in two colours; 0 is blank.
    Signed,
    /// The largest size shown, in two colours; 0 is blank.
    SignedLargest,
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
    /// Layers down, what is in them across.
    pub(super) fn layers(title: &'a str, reading: &'a str, grid: Grid, scale: Scale) -> Self {
        let prefix = grid.common_prefix().to_owned();
        let short = |row: &String| row.strip_prefix(&prefix).unwrap_or(row).to_owned();
        let rows = grid.rows.iter().map(short).collect();
        Self { title, reading, rows, columns: grid.columns, cells: grid.cells, scale }
    }

    /// The heat map as HTML; `id` is unique on the page.
    pub(super) fn draw(&self, id: &str) -> String {
        let place = Place::new(&self.rows, &self.columns);
        let full = match self.scale {
            Scale::Largest | Scale::SignedLargest => {
                self.cells.values().fold(0f64, |most, (_, value)| most.max(value.abs()))
            }
            Scale::One | Scale::Signed => 1.0,
        };
        let mut svg = format!(
            "<svg class=\"heat\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" \
             aria-labelledby=\"{id}t {id}d\">\n<title id=\"{id}t\">{}</title>\n<desc id=\"{id}d\">{}</desc>\n",
            place.height(self.rows.len()),
            escape(self.title),
            escape(&format!("{} {}", self.reading, self.extremes())),
        );
        self.draw_labels(&mut svg, &place);
        self.draw_cells(&mut svg, &place, full);
        svg.push_str("</svg>\n");
        figure(self.title, self.reading, &svg, &self.legend(full))
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
                escape(&tail(name))
            );
        }
        for (at, name) in self.rows.iter().enumerate().step_by(place.every_row) {
            let y = place.y(at) + place.cell.1 / 2.0 + 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
                place.left - 6.0,
                escape(&tail(name))
            );
        }
    }

    fn draw_cells(&self, svg: &mut String, place: &Place, full: f64) {
        // Numbers where they fit.
        let numbers = place.cell.0 >= 34.0 && place.cell.1 >= 18.0;
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let cell = format!(
                    "x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"",
                    place.x(column),
                    place.y(row),
                    place.cell.0 - 1.0,
                    place.cell.1 - 1.0
                );
                let Some((name, value)) = self.cells.get(&(row, column)) else {
                    let _ = writeln!(svg, "<rect class=\"empty\" {cell}/>");
                    continue;
                };
                let share =
                    if full > 0.0 && value.is_finite() { (value / full).abs() } else { 0.0 };
                let colour = if *value < 0.0 { "--minus" } else { "--heat" };
                let _ = writeln!(
                    svg,
                    "<rect {cell} style=\"fill:var({colour});fill-opacity:{:.3};stroke:var(--line);\
                     stroke-width:.5\"><title>{}: {}</title></rect>",
                    share.min(1.0) * if numbers { 0.55 } else { 1.0 },
                    escape(name),
                    number(*value)
                );
                if numbers {
                    let _ = writeln!(
                        svg,
                        "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                        place.x(column) + place.cell.0 / 2.0,
                        place.y(row) + place.cell.1 / 2.0 + 3.5,
                        number(*value)
                    );
                }
            }
        }
    }

    fn legend(&self, full: f64) -> String {
        let swatch = |colour: &str, opacity: f64, text: &str| {
            format!(
                "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><rect width=\"28\" height=\"10\" \
                 style=\"fill:var({colour});fill-opacity:{opacity};stroke:var(--line)\"/></svg>{text}</li>\n"
            )
        };
        let mut list = String::from("<ul class=\"legend\">\n");
        if matches!(self.scale, Scale::Signed | Scale::SignedLargest) {
            list += &swatch("--minus", 1.0, &number(-full));
        }
        list += &swatch("--heat", 0.0, "0");
        list += &swatch("--heat", 0.5, &number(full / 2.0));
        list += &swatch("--heat", 1.0, &number(full));
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

/// The end of a long name, which tells it from its neighbours.
fn tail(name: &str) -> String {
    let length = name.chars().count();
    if length <= LABEL {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - LABEL + 1).collect();
    format!("…{end}")
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
    fn new(rows: &[String], columns: &[String]) -> Self {
        let longest = |names: &[String]| {
            let lengths = names.iter().map(|name| name.chars().count().min(LABEL));
            lengths.max().unwrap_or(0) as f64 * CHARACTER
        };
        let left = longest(rows) + 12.0;
        // The last column's label leans out to the right.
        let lean = (longest(columns) * 0.64).min(60.0);
        let top = longest(columns) * 0.77 + 14.0;
        let room = WIDTH - left - lean;
        let width = (room / columns.len().max(1) as f64).min(72.0);
        let height = match rows.len() {
            0..=4 => 32.0,
            5..=12 => 22.0,
            13..=40 => 15.0,
            _ => 10.0,
        };
        let every = |size: f64| (11.0 / size).ceil().max(1.0) as usize;
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
    use super::*;

    #[test]
    fn any_grid_draws() {
        let hostile = "layers.0.<b>&\"";
        for values in [vec![], vec![(hostile, 0.0)], vec![(hostile, f64::NAN), ("layers.1.x", 2.0)]]
        {
            let grid = Grid::new(values.into_iter());
            let svg = Heat::layers("t", "r", grid, Scale::Largest).draw("h0");
            assert!(
                svg.contains("</svg>") && !svg.contains("<b>") && !svg.contains("NaN"),
                "{svg}"
            );
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.12345, -0.5, 1.0, 12.345, 1234.5, 1e7, 1e-9].map(number);
        assert_eq!(texts, ["0", "0.123", "-0.500", "1.00", "12.3", "1234", "1.0e7", "1.0e-9"]);
    }

    #[test]
    fn long_labels_keep_their_end() {
        assert_eq!(tail("short"), "short");
        assert_eq!(tail(&format!("{}end", "x".repeat(40))).chars().count(), LABEL);
    }
}
