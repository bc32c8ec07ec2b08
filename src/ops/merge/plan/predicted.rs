//! What is expected to survive of updates whose weights are quantised.

use serde::{Deserialize, Serialize};

/// What of the updates is expected to survive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prediction {
    /// The share, on average over the weights that change.
    pub expected: f64,
    /// The weight of whose update least is expected to.
    pub least: String,
    /// The share of that.
    pub least_expected: f64,
    /// The same by scheme.
    pub schemes: Vec<SchemePrediction>,
}

/// What is expected of the weights of one scheme.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SchemePrediction {
    /// The scheme.
    pub scheme: String,
    /// Weights in it that change.
    pub weights: usize,
    /// ‖Wq − W‖ / ‖update‖, on average.
    pub ratio: f64,
    /// The share of an update that is expected to survive, on average.
    pub expected: f64,
}
