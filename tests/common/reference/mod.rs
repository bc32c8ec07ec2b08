//! Every combination method as a dense f64 formula, written from the papers and the peers' code by the
//! plainest loops. Nothing here uses the tool's own arithmetic but its public random numbers.
//!
//! A reference that meets a decision which rounding could turn (which of two equal magnitudes is larger,
//! which sign wins a draw, which direction is one) says so in [`Problem::doubt`].

mod blend;
mod elements;
mod peers;
mod spectral;
mod sums;

use std::cell::Cell;
use std::collections::BTreeMap;

use lora_tool::method::{Compat, Method, Space};

use super::dense::Dense;
pub use elements::Trim;

/// One input: weight · scale · up · down.
#[derive(Debug, Clone)]
pub struct Input {
    pub up: Dense,
    pub down: Dense,
    pub scale: f64,
    pub weight: f64,
    /// Which of all adapters it is.
    pub adapter: usize,
}

impl Input {
    /// scale · up · down.
    pub fn delta(&self) -> Dense {
        self.up.times(&self.down).scaled(self.scale)
    }

    pub fn weighted(&self) -> Dense {
        self.delta().scaled(self.weight)
    }
}

/// A module to combine.
#[derive(Debug)]
pub struct Problem<'a> {
    pub name: &'a str,
    pub rows: usize,
    pub columns: usize,
    /// Those that have the module and a weight that is not 0.
    pub inputs: &'a [Input],
    /// The weights of all adapters.
    pub weights: &'a [f64],
    /// Every parameter of the method, as text.
    pub params: &'a BTreeMap<String, String>,
    /// Those of them that are no defaults.
    pub given: &'a BTreeMap<String, String>,
    pub compat: Option<Compat>,
    /// The rank the result is cut to, if that is a number.
    pub rank: Option<usize>,
    /// Whether all numbers are multiples of small powers of 2, so that f32 and f64 decide alike.
    pub exact: bool,
    /// How close decisions came, relative to what they decided on: the least of all.
    pub margin: Cell<f64>,
}

impl Problem<'_> {
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let text = self.params.get(name).unwrap_or_else(|| panic!("no {name}"));
        text.split(',').map(|part| part.parse().expect("a number")).collect()
    }

    pub fn number(&self, name: &str) -> f64 {
        self.numbers(name)[0]
    }

    /// The number of an adapter, of a list or for all.
    pub fn number_of(&self, name: &str, adapter: usize) -> f64 {
        let all = self.numbers(name);
        if all.len() == 1 { all[0] } else { all[adapter] }
    }

    pub fn word(&self, name: &str) -> &str {
        &self.params[name]
    }

    pub fn has(&self, name: &str) -> bool {
        self.params.contains_key(name)
    }

    pub fn weighted(&self) -> Vec<Dense> {
        self.inputs.iter().map(Input::weighted).collect()
    }

    pub fn zeros(&self) -> Dense {
        Dense::zeros(self.rows, self.columns)
    }

    pub fn sum(&self, parts: &[Dense]) -> Dense {
        parts.iter().fold(self.zeros(), |sum, part| sum.plus(part))
    }

    /// Records how far a decision was from going the other way.
    pub fn decided_by(&self, margin: f64) {
        self.margin.set(self.margin.get().min(margin.abs()));
    }

    /// Whether rounding may have decided.
    pub fn doubt(&self, rounding: f64) -> bool {
        self.margin.get() < rounding
    }
}

/// What a method makes of a module.
pub type Reference = fn(&Problem) -> Dense;

/// How a method is written here.
#[derive(Clone, Copy)]
pub enum Formula {
    /// On the deltas, or the factors.
    Whole(Reference),
    /// On elements of deltas or of whatever space is asked for.
    Elements(Trim, elements::Mix),
}

/// All references. A method without one fails the tests.
const FORMULAS: &[(&str, Formula)] = &[
    ("linear", Formula::Whole(sums::linear)),
    ("cat", Formula::Whole(sums::linear)),
    ("slerp", Formula::Whole(sums::slerp)),
    ("karcher", Formula::Whole(sums::karcher)),
    ("model-stock", Formula::Whole(sums::model_stock)),
    ("ema", Formula::Whole(sums::ema)),
    ("tsv", Formula::Whole(spectral::tsv)),
    ("iso-c", Formula::Whole(spectral::iso_c)),
    ("iso-cts", Formula::Whole(spectral::iso_cts)),
    ("star", Formula::Whole(spectral::star)),
    ("shared-basis", Formula::Whole(spectral::shared_basis)),
    ("df-regmean", Formula::Whole(spectral::df_regmean)),
    ("peft-linear", Formula::Whole(peers::peft_linear)),
    ("kohya-linear", Formula::Whole(peers::kohya_linear)),
    ("kohya-cat", Formula::Whole(peers::kohya_cat)),
    ("ties", Formula::Elements(Trim::Largest, elements::Mix::Elect)),
    ("magnitude-prune", Formula::Elements(Trim::Largest, elements::Mix::Sum)),
    ("dare-linear", Formula::Elements(Trim::Random, elements::Mix::Sum)),
    ("dare-ties", Formula::Elements(Trim::Random, elements::Mix::Elect)),
    ("breadcrumbs", Formula::Elements(Trim::Middle, elements::Mix::Sum)),
    ("breadcrumbs-ties", Formula::Elements(Trim::Middle, elements::Mix::Elect)),
    ("della-linear", Formula::Elements(Trim::RandomByRank, elements::Mix::Sum)),
    ("della", Formula::Elements(Trim::RandomByRank, elements::Mix::Elect)),
    ("sce", Formula::Elements(Trim::Varying, elements::Mix::ElectByEnergy)),
    ("ram", Formula::Elements(Trim::Tiny, elements::Mix::Share)),
    ("ram-plus", Formula::Elements(Trim::Tiny, elements::Mix::ShareReinforced)),
];

pub fn formula(name: &str) -> Option<Formula> {
    FORMULAS.iter().find(|(known, _)| *known == name).map(|(_, formula)| *formula)
}

/// What `method` makes of a module in a space, by its reference.
pub fn combined(method: &Method, space: Space, problem: &Problem) -> Dense {
    match formula(method.name).unwrap_or_else(|| panic!("`{}` has no reference", method.name)) {
        Formula::Whole(reference) => reference(problem).scaled(problem.number("lambda")),
        Formula::Elements(trim, mix) => blend::in_space(space, trim, mix, problem),
    }
}
