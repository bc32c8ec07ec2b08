//! Line plots as SVG.

use std::fmt::Write;

use super::html::{escape, figure};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;
/// Colours of the style sheet, and as many dashes, so that colour alone never decides.
const DASHES: [&str; 8] = ["none", "7 3", "2 3", "9 3 2 3", "none", "5 2", "1 2", "6 2 1 2"];

/// How many lines can be told apart.
pub(super) const DISTINCT: usize = DASHES.len();

/// One line: y at x = 1, 2, …
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

/// The vertical axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Axis {
    /// Powers of ten, from the least positive value shown to the largest.
    Log,
    /// Shares from 0 to 1, in per cent.
    Share,
}

/// A plot of lines over ranks 1, 2, …
#[derive(Debug)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) reading: &'a str,
    pub(super) axis: Axis,
    /// The least and the largest value of all modules at each rank.
    pub(super) band: Vec<(f64, f64)>,
    pub(super) series: Vec<Series>,
}

impl Plot<'_> {
    /// The plot as HTML; `id` is unique on the page.
    pub(super) fn draw(&self, id: &str) -> String {
        let longest = self.series.iter().map(|s| s.values.len()).chain([self.band.len()]).max();
        let ranks = longest.unwrap_or(0).max(2);
        let frame = Frame { ranks, axis: self.axis, range: self.range() };
        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}t {id}d\">\n<title id=\"{id}t\">{}</title>\n<desc id=\"{id}d\">{}</desc>\n",
            escape(self.title),
            escape(&self.description()),
        );
        frame.draw(&mut svg);
        self.draw_band(&mut svg, &frame);
        for (at, series) in self.series.iter().enumerate() {
            draw_curve(&mut svg, &frame, at, series);
        }
        svg.push_str("</svg>\n");
        figure((self.title, self.reading), &svg, &self.legend(), false)
    }

    fn description(&self) -> String {
        let names: Vec<_> = self.series.iter().map(|series| series.name.as_str()).collect();
        format!("{} Lines: {}.", self.reading, names.join(", "))
    }

    /// The values at the bottom and the top of a logarithmic axis, in powers of ten.
    fn range(&self) -> (f64, f64) {
        if self.axis == Axis::Share {
            return (0.0, 1.0);
        }
        let bands = self.band.iter().flat_map(|(low, high)| [*low, *high]);
        let values = self.series.iter().flat_map(|series| series.values.iter().copied());
        let shown = values.chain(bands).filter(|value| *value > 0.0 && value.is_finite());
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in shown {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        if low > high {
            return (-1.0, 0.0);
        }
        // A little room on both sides, and never less than a third of a power.
        let room = ((high - low) * 0.04).max(0.15);
        (low - room, high + room)
    }

    fn draw_band(&self, svg: &mut String, frame: &Frame) {
        if self.band.len() < 2 {
            return;
        }
        let points = |side: fn(&(f64, f64)) -> f64| {
            let values = self.band.iter().map(side).enumerate();
            values.filter_map(|(at, value)| frame.point(at, value)).collect::<Vec<_>>()
        };
        let mut around = points(|band| band.1);
        around.extend(points(|band| band.0).into_iter().rev());
        let _ = writeln!(
            svg,
            "<polygon class=\"band\" points=\"{}\"><title>all modules</title></polygon>",
            around.join(" ")
        );
    }

    fn legend(&self) -> String {
        let mut list = String::from("<ul class=\"legend\">\n");
        for (at, series) in self.series.iter().enumerate() {
            let (colour, dash) = style(at);
            let _ = writeln!(
                list,
                "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\"><path class=\"curve\" d=\"M0 4H28\" \
                 style=\"stroke:{colour};stroke-dasharray:{dash}\"/></svg>{}</li>",
                escape(&series.name)
            );
        }
        if self.band.len() > 1 {
            list.push_str(
                "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\"><rect class=\"band\" width=\"28\" \
                 height=\"8\"/></svg>all modules</li>\n",
            );
        }
        list + "</ul>\n"
    }
}

fn style(at: usize) -> (String, &'static str) {
    let at = at % DISTINCT;
    (format!("var(--s{at})"), DASHES.get(at).copied().unwrap_or("none"))
}

fn draw_curve(svg: &mut String, frame: &Frame, at: usize, series: &Series) {
    let points: Vec<_> = series
        .values
        .iter()
        .enumerate()
        .filter_map(|(at, value)| frame.point(at, *value))
        .collect();
    let (colour, dash) = style(at);
    let name = escape(&series.name);
    if let [single] = points.as_slice() {
        let (x, y) = single.split_once(',').unwrap_or(("0", "0"));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" style=\"fill:{colour}\"><title>{name}</title></circle>"
        );
        return;
    }
    let _ = writeln!(
        svg,
        "<polyline class=\"curve\" points=\"{}\" style=\"stroke:{colour};stroke-dasharray:{dash}\">\
         <title>{name}</title></polyline>",
        points.join(" ")
    );
}

/// Where values lie on the drawing.
struct Frame {
    ranks: usize,
    axis: Axis,
    range: (f64, f64),
}

impl Frame {
    fn x(&self, at: usize) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * at as f64 / (self.ranks - 1) as f64
    }

    fn y(&self, height: f64) -> f64 {
        let (low, high) = self.range;
        let share = (height - low) / (high - low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }

    /// `x,y` of the value at rank `at + 1`; nothing for what the axis cannot show.
    fn point(&self, at: usize, value: f64) -> Option<String> {
        let height = if self.axis == Axis::Log { value.log10() } else { value };
        let height = height.is_finite().then_some(height)?;
        Some(format!("{:.1},{:.1}", self.x(at), self.y(height)))
    }

    fn draw(&self, svg: &mut String) {
        for (height, label) in self.heights() {
            let y = self.y(height);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let bottom = HEIGHT - BOTTOM;
        for rank in ticks(self.ranks) {
            let x = self.x(rank - 1);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v4\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{rank}</text>",
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">rank</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 4.0
        );
    }

    /// Heights of the horizontal lines, and what is written at them.
    fn heights(&self) -> Vec<(f64, String)> {
        if self.axis == Axis::Share {
            return (0..=4).map(|q| (f64::from(q) / 4.0, format!("{} %", q * 25))).collect();
        }
        let (low, high) = self.range;
        let mantissas: &[f64] = if high - low > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let step = ((high - low) / 6.0).ceil().max(1.0) as usize;
        let mut heights = Vec::new();
        for power in (low.floor() as i32..=high.ceil() as i32).step_by(step) {
            for mantissa in mantissas {
                let height = f64::from(power) + mantissa.log10();
                if (low..=high).contains(&height) {
                    heights.push((height, label(*mantissa, power)));
                }
            }
        }
        heights
    }
}

/// mantissa · 10^power in few characters.
fn label(mantissa: f64, power: i32) -> String {
    match power {
        -3..0 => format!("{:.*}", power.unsigned_abs() as usize, mantissa * 10f64.powi(power)),
        0..5 => format!("{:.0}", mantissa * 10f64.powi(power)),
        _ => format!("{mantissa:.0}e{power}"),
    }
}

/// Ranks to write below the axis: the first, and round ones up to the last.
fn ticks(ranks: usize) -> Vec<usize> {
    let step = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].into_iter().find(|s| ranks / s <= 8);
    let step = step.unwrap_or(2048);
    let mut ticks = vec![1];
    ticks.extend((1..=ranks / step).map(|at| at * step).filter(|at| *at > 1));
    if step > 2 && ticks.get(1).is_some_and(|second| *second < 3) {
        ticks.remove(0);
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(axis: Axis, values: Vec<f64>) -> String {
        let series = vec![Series { name: "<q>".to_owned(), values }];
        Plot { title: "σ", reading: "r", axis, band: Vec::new(), series }.draw("p0")
    }

    #[test]
    fn zeros_and_emptiness_draw_something() {
        for values in [vec![], vec![0.0], vec![1.0], vec![1.0, 0.0, f64::NAN], vec![2.0; 300]] {
            for axis in [Axis::Log, Axis::Share] {
                let svg = plot(axis, values.clone());
                assert!(svg.contains("&lt;q&gt;") && svg.contains("</svg>"), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn labels_are_short_and_ticks_few() {
        assert_eq!(label(5.0, -2), "0.05");
        assert_eq!(label(1.0, 0), "1");
        assert_eq!(label(2.0, 3), "2000");
        assert_eq!(label(1.0, -7), "1e-7");
        assert_eq!(ticks(4), [1, 2, 3, 4]);
        assert_eq!(ticks(16), [1, 2, 4, 6, 8, 10, 12, 14, 16]);
        assert!(ticks(5000).len() < 10);
    }
}
