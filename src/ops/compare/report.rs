//! What a comparison found.

use std::path::PathBuf;

use serde::Serialize;

use crate::ops::shared::advice::Advice;
use crate::ops::shared::spills::PairSpill;

/// What two adapters are to each other.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Measures {
    /// ⟨Δₐ, Δ_b⟩ / (‖Δₐ‖·‖Δ_b‖).
    pub cosine: f64,
    /// Share of the smaller output space that lies in the other's.
    pub output_overlap: f64,
    /// Share of the smaller input space that lies in the other's.
    pub input_overlap: f64,
    /// Share of elements with opposite signs, sampled.
    pub sign_conflict: f64,
    /// ‖wₐΔₐ‖ / ‖w_bΔ_b‖.
    pub norm_ratio: f64,
}

/// One module of a pair.
#[derive(Debug, Clone, Serialize)]
pub struct ModulePair {
    /// Its name.
    pub name: String,
    /// What the two are to each other here.
    #[serde(flatten)]
    pub measures: Measures,
}

/// Adapters each of which says much the same as another one of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// Numbers of the adapters, ascending.
    pub adapters: Vec<usize>,
    /// The smallest cosine of two of them.
    pub least_cosine: f64,
}

/// One pair of adapters.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Number of the first adapter.
    pub a: usize,
    /// Number of the second.
    pub b: usize,
    /// Modules that both have.
    pub shared_modules: usize,
    /// Over all modules.
    #[serde(flatten)]
    pub measures: Measures,
    /// By module.
    pub modules: Vec<ModulePair>,
}

/// One adapter.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterSummary {
    /// Its path.
    pub path: PathBuf,
    /// Its weight in the sum.
    pub weight: f64,
    /// Its modules.
    pub modules: usize,
    /// ‖Δ‖ over all modules.
    pub norm: f64,
    /// What the others together write where it writes, relative to it, at their weights: 0 is nothing. None of an
    /// adapter that adds nothing.
    pub spill: Option<f64>,
}

/// The whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The adapters.
    pub adapters: Vec<AdapterSummary>,
    /// All pairs.
    pub pairs: Vec<Pair>,
    /// Numbers of the pairs, those first that are worth a look: the most alike or the most opposed.
    pub by_interest: Vec<usize>,
    /// Groups of adapters that say much the same.
    pub clusters: Vec<Cluster>,
    /// What each pair writes over each other, at the weights, in the order of `pairs`.
    pub spills: Vec<PairSpill>,
    /// The mean spill of the adapters.
    pub spill: Option<f64>,
    /// What to do.
    pub advice: Advice,
}
