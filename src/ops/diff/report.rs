//! What is compared, and what was found.

use std::path::PathBuf;

use serde::Serialize;

use crate::adapter::OpenOptions;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// One checkpoint or adapter.
    pub a: PathBuf,
    /// The other.
    pub b: PathBuf,
    /// How they are opened.
    pub open: OpenOptions,
    /// Relative difference up to which two are the same; 1e-6 of adapters and 0 of checkpoints if `None`.
    pub tolerance: Option<f64>,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compared {
    /// Tensors of two checkpoints.
    Checkpoints,
    /// Deltas of two adapters.
    Adapters,
    /// Tensors of two adapters whose deltas depend on the base.
    Tensors,
}

/// One tensor or module that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differs {
    /// Its name, in A.
    pub name: String,
    /// What differs beside the values: dtype or shape.
    pub what: Option<String>,
    /// ‖A − B‖ / max(‖A‖, ‖B‖).
    pub relative: Option<f64>,
    /// The largest |a − b|; of deltas the largest singular value of A − B, which no element exceeds.
    pub largest: Option<f64>,
    /// Elements that differ; unknown of deltas.
    pub elements: Option<u64>,
}

/// The whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was compared.
    pub compared: Compared,
    /// Whether nothing differs.
    pub same: bool,
    /// Tensors or modules that are the same.
    pub equal: usize,
    /// Names only A has.
    pub only_a: Vec<String>,
    /// Names only B has.
    pub only_b: Vec<String>,
    /// What both have and is not the same.
    pub different: Vec<Differs>,
    /// ‖A − B‖ / max(‖A‖, ‖B‖) over all that both have.
    pub relative: f64,
}

/// What comparing the same thing of both found.
pub(super) struct Found {
    pub(super) differs: Option<Differs>,
    /// ‖A − B‖², ‖A‖², ‖B‖².
    pub(super) squares: [f64; 3],
}

impl Found {
    pub(super) fn new(name: &str, squares: [f64; 3], largest: f64, tolerance: f64) -> Self {
        let relative = relative(squares);
        // Not `relative > tolerance`, which a NaN would pass.
        let same = relative <= tolerance;
        let differs = (!same).then(|| Differs {
            name: name.to_owned(),
            what: None,
            relative: Some(relative),
            largest: Some(largest),
            elements: None,
        });
        Self { differs, squares }
    }

    pub(super) fn other(name: &str, what: String) -> Self {
        let (name, what) = (name.to_owned(), Some(what));
        let differs = Some(Differs { name, what, relative: None, largest: None, elements: None });
        Self { differs, squares: [0.0; 3] }
    }
}

fn relative([off, a, b]: [f64; 3]) -> f64 {
    if off == 0.0 { 0.0 } else { (off / a.max(b)).sqrt() }
}

/// Puts a report together.
pub(super) fn report(
    compared: Compared,
    found: Vec<Found>,
    only_a: Vec<String>,
    only_b: Vec<String>,
) -> Report {
    let all = found.len();
    let mut squares = [0.0; 3];
    let mut different = Vec::new();
    for found in found {
        for (sum, square) in squares.iter_mut().zip(found.squares) {
            *sum += square;
        }
        different.extend(found.differs);
    }
    Report {
        compared,
        same: different.is_empty() && only_a.is_empty() && only_b.is_empty(),
        equal: all - different.len(),
        only_a,
        only_b,
        different,
        relative: relative(squares),
    }
}
