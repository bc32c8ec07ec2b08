//! Key lists of the known architectures, which `fixtures/make_keys.py` takes from the published models'
//! own classes and diffusers' own converters.

use super::fixture;

/// A module in diffusers' layout and its place in the published one.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub module: String,
    pub tensor: String,
    pub rows: usize,
    pub columns: usize,
    pub place: Place,
    pub turned: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    All,
    Rows(usize, usize),
    Swapped,
}

/// The key list of an architecture, its rows scaled down where that leaves whole numbers, three columns.
pub fn lines(name: &str) -> Vec<Line> {
    read(&format!("keys/{name}"), Some(3), SCALE)
}

/// The same, its columns scaled like its rows: what attention's proportions need.
pub fn proportional(name: &str) -> Vec<Line> {
    read(&format!("keys/{name}"), None, SCALE)
}

/// The list of a model's layouts, in its real widths.
pub fn real(name: &str) -> Vec<Line> {
    read(&format!("layouts/{name}"), None, 1)
}

/// By how much sizes are divided that divide.
const SCALE: usize = 64;

fn read(name: &str, columns: Option<usize>, scale: usize) -> Vec<Line> {
    let text = std::fs::read_to_string(fixture(&format!("{name}.txt"))).expect("a key list");
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        let rows = number(2);
        let unit = if rows.is_multiple_of(scale) { scale } else { 1 };
        let place = match words[4] {
            "all" => Place::All,
            "swap" => Place::Swapped,
            range => {
                let (start, end) = range.split_once("..").expect("a range");
                let scaled = |text: &str| text.parse::<usize>().expect("a row") / unit;
                Place::Rows(scaled(start), scaled(end))
            }
        };
        let turned = words.get(5) == Some(&"T");
        Line {
            module: words[0].to_owned(),
            tensor: words[1].to_owned(),
            rows: rows / unit,
            columns: match columns {
                Some(columns) if !turned => columns,
                _ if number(3).is_multiple_of(unit) => number(3) / unit,
                _ => number(3),
            },
            place,
            turned,
        }
    };
    text.lines().map(parse).collect()
}

impl Line {
    /// (outputs, inputs) of the module.
    pub fn shape(&self) -> (usize, usize) {
        match self.place {
            Place::Rows(start, end) => (end - start, self.columns),
            _ if self.turned => (self.columns, self.rows),
            _ => (self.rows, self.columns),
        }
    }
}
