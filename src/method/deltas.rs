//! Deltas of low rank as panels: recomputed from their factors whenever they are asked for.

use std::convert::Infallible;

use super::elementwise::Blending;
use super::inputs::Weighted;
use super::panel::Panel;
use crate::math::elements::blend;
use crate::math::kernel::fused;
use crate::math::linalg::panels::Panels;
use crate::math::{Factor, Matrix, PackedLeft, PackedRight};

/// Floats of all inputs' rows that are computed together: they stay in the core's own cache.
const BLOCK: usize = 48 << 10;

/// The deltas of one module, each scale · up · down, without their weights.
#[derive(Debug)]
pub struct Deltas {
    rows: usize,
    columns: usize,
    factors: Vec<(Vec<(Factor, f64)>, PackedRight)>,
    /// Rows that are computed together.
    block: usize,
}

impl Deltas {
    /// Of inputs of rows × columns.
    pub fn new(rows: usize, columns: usize, inputs: &[Weighted]) -> Self {
        let packed = |input: &Weighted| {
            let up = row_major(&input.factors.up);
            let down = row_major(&input.factors.down);
            (vec![(up, input.scale)], PackedRight::new(columns, &[down]))
        };
        let at_once = BLOCK / ((inputs.len() + 1) * columns.max(1));
        let block = (at_once / 4 * 4).max(4);
        Self { rows, columns, factors: inputs.iter().map(packed).collect(), block }
    }

    /// The same, so many rows at a time; they change nothing but the speed.
    #[must_use]
    pub fn in_blocks_of(mut self, rows: usize) -> Self {
        self.block = rows.max(1);
        self
    }

    /// Fills a panel with some rows.
    fn read(&self, panel: &mut Panel, first: usize, rows: usize) {
        panel.begin(self.factors.len(), first, rows, self.columns);
        for (delta, (up, down)) in panel.deltas_mut().iter_mut().zip(&self.factors) {
            fused::product(delta, &PackedLeft::new(up, first, rows), down);
        }
    }

    /// Makes all passes that a method wants before it can combine.
    pub fn prepare(&self, blending: &mut Blending) {
        let mut panel = Panel::default();
        while blending.wants_pass() {
            let mut counts = blending.counts();
            for first in (0..self.rows).step_by(self.block) {
                self.read(&mut panel, first, self.block.min(self.rows - first));
                blending.count(&mut panel, &mut counts);
            }
            blending.finish_pass(&counts);
        }
    }
}

fn row_major(matrix: &Matrix) -> Factor {
    let values = matrix.transpose().iter().map(|value| *value as f32).collect();
    Factor::new(matrix.nrows(), matrix.ncols(), values)
}

/// What an elementwise method makes of deltas, row by row.
#[derive(Debug)]
pub struct Blended<'a> {
    deltas: &'a Deltas,
    blending: &'a Blending<'a>,
    weights: Vec<f32>,
    panel: Panel,
    /// Weighted sums of the rows at hand, and what they came to over all rows seen for the first time:
    /// ‖blended − sum‖² and ‖sum‖².
    sum: Vec<f32>,
    measured: (usize, f64, f64),
}

impl<'a> Blended<'a> {
    /// Of a method that wants no more passes.
    pub fn new(deltas: &'a Deltas, blending: &'a Blending<'a>) -> Self {
        let weights = blending.weights();
        let (panel, sum) = (Panel::default(), Vec::new());
        Self { deltas, blending, weights, panel, sum, measured: (0, 0.0, 0.0) }
    }

    /// ‖blended − Σ wᵢΔᵢ‖² and ‖Σ wᵢΔᵢ‖², after a pass.
    pub fn distance(&self) -> (f64, f64) {
        (self.measured.1, self.measured.2)
    }

    /// Compares with the plain sum, each row once.
    fn measure(&mut self, first: usize, out: &[f32]) {
        let columns = self.deltas.columns.max(1);
        let rows = out.chunks_exact(columns).zip(self.sum.chunks_exact(columns));
        for (at, (blended, sum)) in rows.enumerate() {
            if first + at < self.measured.0 {
                continue;
            }
            let (mut off, mut whole) = (0.0, 0.0);
            for (blended, sum) in blended.iter().zip(sum) {
                off += f64::from(blended - sum) * f64::from(blended - sum);
                whole += f64::from(*sum) * f64::from(*sum);
            }
            self.measured = (first + at + 1, self.measured.1 + off, self.measured.2 + whole);
        }
    }
}

impl Panels for Blended<'_> {
    type Error = Infallible;

    fn rows(&self) -> usize {
        self.deltas.rows
    }

    fn columns(&self) -> usize {
        self.deltas.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<(), Infallible> {
        let (columns, block) = (self.deltas.columns.max(1), self.deltas.block);
        for (at, out) in out.chunks_mut(block * columns).enumerate() {
            let first = first + at * block;
            self.deltas.read(&mut self.panel, first, out.len() / columns);
            let new = first + out.len() / columns > self.measured.0;
            if new {
                self.sum.resize(out.len(), 0.0);
                let parts: Vec<&[f32]> = self.panel.deltas().collect();
                blend::sum(&parts, &self.weights, &mut self.sum);
            }
            self.blending.combine(&mut self.panel, out);
            if new {
                self.measure(first, out);
            }
        }
        Ok(())
    }
}
