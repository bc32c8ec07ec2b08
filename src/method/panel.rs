//! What elementwise methods are handed: rows of deltas, and what one thread counted of them.

use crate::math::elements::select::Tally;

/// One input of a tensor's update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputWeight {
    /// Which adapter it is of: the place of its density, and of its random numbers.
    pub adapter: usize,
    /// What the user multiplies it by.
    pub weight: f64,
}

/// Whole rows of all inputs' deltas, without their weights; scratch, overwritten by each step.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    pub(super) first: usize,
    pub(super) columns: usize,
    pub(super) deltas: Vec<Vec<f32>>,
    pub(super) variances: Vec<f32>,
}

impl Panel {
    /// Makes it hold `rows` rows, from row number `first` on, of so many inputs.
    pub fn begin(&mut self, inputs: usize, first: usize, rows: usize, columns: usize) {
        (self.first, self.columns) = (first, columns);
        self.deltas.resize_with(inputs, Vec::new);
        for delta in &mut self.deltas {
            delta.resize(rows * columns, 0.0);
        }
    }

    /// The rows of each input's delta, row by row, for the caller to fill.
    pub fn deltas_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.deltas
    }

    /// The rows of each input's delta.
    pub fn deltas(&self) -> impl Iterator<Item = &[f32]> {
        self.deltas.iter().map(Vec::as_slice)
    }

    /// How much the inputs vary at each element, the weighted deltas' variance among `adapters`, those
    /// that have no part counted as 0.
    pub(super) fn vary(&mut self, weights: &[f32], adapters: usize) {
        let length = self.deltas.first().map_or(0, Vec::len);
        let share = 1.0 / adapters.max(1) as f32;
        let absent = adapters.saturating_sub(self.deltas.len()) as f32;
        self.variances.clear();
        self.variances.resize(length, 0.0);
        for (at, variance) in self.variances.iter_mut().enumerate() {
            let values = self.deltas.iter().zip(weights).map(|(delta, weight)| delta[at] * weight);
            let mean = values.clone().sum::<f32>() * share;
            let squares: f32 = values.map(|value| (value - mean) * (value - mean)).sum();
            *variance = (squares + absent * mean * mean) * share;
        }
    }
}

/// Counts of one pass by one thread.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By input and selection, or of the one selection among variances.
    pub(super) tallies: Vec<Vec<Tally>>,
    /// By input and row: what there was, and what the trim left of it.
    pub(super) norms: Vec<Vec<(f64, f64)>>,
}

impl Counts {
    /// Adds another thread's counts of the same pass.
    ///
    /// # Panics
    /// If it is of another pass.
    #[track_caller]
    pub fn add(&mut self, other: &Self) {
        for (tally, other) in self.tallies.iter_mut().flatten().zip(other.tallies.iter().flatten())
        {
            tally.add(other);
        }
        for (norms, other) in self.norms.iter_mut().zip(&other.norms) {
            norms.resize(norms.len().max(other.len()), (0.0, 0.0));
            // A row is counted by one thread; the others have 0 there.
            for (sum, other) in norms.iter_mut().zip(other) {
                *sum = (sum.0 + other.0, sum.1 + other.1);
            }
        }
    }
}
