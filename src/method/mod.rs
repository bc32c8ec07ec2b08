//! How deltas are combined: one pure file a method, `methods!` the one list.
//!
//! **Invariant:** a method sees matrices and numbers, never files, names, alpha or dtypes.

use crate::math::LowRank;

/// One input of a combination: weight · scale · up · down.
#[derive(Debug, Clone)]
pub struct Weighted {
    /// The factors as they are stored.
    pub factors: LowRank,
    /// What the adapter multiplies them by.
    pub scale: f64,
    /// What the user multiplies that by.
    pub weight: f64,
}

impl Weighted {
    /// Weight · scale.
    pub fn coefficient(&self) -> f64 {
        self.weight * self.scale
    }

    /// The weighted delta, √|c| on each side and the sign on `down`.
    pub fn delta(&self) -> LowRank {
        let coefficient = self.coefficient();
        let share = coefficient.abs().sqrt();
        LowRank::new(&self.factors.up * share, &self.factors.down * (share * coefficient.signum()))
    }
}

/// scale · up · down.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The factors.
    pub factors: LowRank,
    /// What they are multiplied by.
    pub scale: f64,
}

/// Why a method cannot combine these inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It adds factors, so they must have one rank.
    #[error(
        "this method adds factors to factors, which takes equal ranks; these are {first} and {second}"
    )]
    RanksDiffer {
        /// One input's rank.
        first: usize,
        /// Another's.
        second: usize,
    },
    /// It takes roots of scales.
    #[error("this method takes the root of every scale, so they must be above 0; one is {scale}")]
    ScaleNotPositive {
        /// The scale.
        scale: f64,
    },
}

/// Which inputs a law's test gives a method; every method names the laws it obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// One adapter at weight 1 is itself.
    Identity,
    /// One adapter at weight −1 is its negative.
    Negation,
    /// The order of the inputs does not matter.
    Permutation,
    /// The result is the weighted sum of the deltas.
    WeightedSum,
}

/// What is known of an input before its factors are read: (rank, scale).
pub type Sketch = (usize, f64);

/// Says why a method does not take some inputs, if it does not.
pub type Check = fn(&[Sketch]) -> Result<(), Refusal>;

/// One way to combine deltas.
#[derive(Debug)]
pub struct Method {
    /// Its name in `--method`.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it does, in a line.
    pub summary: &'static str,
    /// Where the formula is from.
    pub source: &'static str,
    /// Whether the factors themselves are the result, unless a rank is asked for.
    pub keeps_factors: bool,
    /// Laws it obeys.
    pub laws: &'static [Law],
    /// Whether it takes such inputs; what `combine` is given has passed.
    pub check: Check,
    /// The method itself, for inputs of rows × columns, at least one.
    pub combine: fn(rows: usize, columns: usize, &[Weighted]) -> Combined,
}

macro_rules! methods {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// All methods.
        pub static METHODS: &[&Method] = &[$(&$name::METHOD),+];
    };
}

methods! { linear, cat, peft_linear, kohya_linear, kohya_cat }

/// The method of a name, with `-` and `_` alike.
pub fn by_name(name: &str) -> Option<&'static Method> {
    let name = name.replace('_', "-");
    METHODS
        .iter()
        .copied()
        .find(|method| method.name == name || method.aliases.contains(&name.as_str()))
}

/// Takes all inputs.
fn anything(_inputs: &[Sketch]) -> Result<(), Refusal> {
    Ok(())
}

/// Takes inputs of one rank.
fn equal_ranks(inputs: &[Sketch]) -> Result<(), Refusal> {
    let first = inputs.first().map_or(0, |(rank, _)| *rank);
    match inputs.iter().find(|(rank, _)| *rank != first) {
        Some((second, _)) => Err(Refusal::RanksDiffer { first, second: *second }),
        None => Ok(()),
    }
}

/// Takes inputs with scales above 0.
fn positive_scales(inputs: &[Sketch]) -> Result<(), Refusal> {
    match inputs.iter().find(|(_, scale)| *scale <= 0.0) {
        Some((_, scale)) => Err(Refusal::ScaleNotPositive { scale: *scale }),
        None => Ok(()),
    }
}

/// Adds factors of one rank to each other, each times its own share: what peers' `linear` does.
#[track_caller]
fn add_factors(inputs: &[Weighted], share: impl Fn(&Weighted) -> (f64, f64)) -> LowRank {
    let mut inputs = inputs.iter().map(|input| {
        let (up, down) = share(input);
        (&input.factors.up * up, &input.factors.down * down)
    });
    let (mut up, mut down) = inputs.next().unwrap_or_default();
    for (other_up, other_down) in inputs {
        up += other_up;
        down += other_down;
    }
    LowRank::new(up, down)
}
