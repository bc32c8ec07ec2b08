//! Elementwise methods on the deltas themselves: panels of them are recomputed as often as needed, and
//! what comes out, which has no low rank, is cut to one by a randomised SVD whose error is known.

use super::group::Group;
use super::open::Combine;
use super::outcome::Outcome;
use super::rank::written_scale;
use crate::math::elements::random::Stream;
use crate::math::linalg::grams::Grams;
use crate::math::linalg::sketch::{self, Settings};
use crate::math::{LowRank, Matrix};
use crate::method::{Blended, Blending, Combined, Deltas, Elementwise, InputWeight, Weighted};

/// Combines one module and cuts it to a rank.
pub(super) fn combine(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rule: Elementwise,
    rank: usize,
) -> Outcome {
    let (rows, columns) = (group.outputs, group.inputs);
    let rank = rank.min(rows).min(columns);
    let parts: Vec<InputWeight> = inputs
        .iter()
        .map(|input| InputWeight { adapter: input.adapter, weight: input.weight })
        .collect();
    let how = (combine.settings(group), combine.options.compat);
    let shape = (group.name.as_str(), rows, columns);
    let mut blending = Blending::new(rule, how, shape, &parts, combine.adapters.len());
    let mut deltas = Deltas::new(rows, columns, inputs);
    if let Some(block) = combine.options.block_rows {
        deltas = deltas.in_blocks_of(block);
    }
    deltas.prepare(&mut blending);
    let mut blended = Blended::new(&deltas, &blending);
    // What is left of the deltas lies much where their sum lay.
    let ranks: Vec<usize> = inputs.iter().map(|input| input.factors.rank()).collect();
    let plain: Vec<LowRank> = inputs.iter().map(Weighted::delta).collect();
    let sum = LowRank::sum(rows, columns, &plain);
    let svd = sum.svd();
    let start = svd.vectors(svd.numerical_rank()).1;
    let settings =
        Settings { start: Some(&start), ..Settings::new(rank, Stream::new(0, &group.name, 0)) };
    let Ok(sketch) = sketch::sketch(&mut blended, &settings);
    let (off_sum, exact) = blended.distance();
    let mut factors = sketch.svd.truncate(rank);
    if factors.rank() == 0 {
        factors = LowRank::new(Matrix::zeros(rows, 1), Matrix::zeros(1, columns));
    }
    let scale = written_scale(combine, group);
    let share = (1.0 / scale).sqrt();
    let factors = LowRank::new(factors.up * share, factors.down * share);
    let total = sketch.squared_norm;
    Outcome {
        written: Combined { factors, scale },
        kept: total - sketch.squared_error(rank),
        total,
        off_sum,
        exact: Some(exact),
        grams: Some(Grams::of_stack(&svd.coordinates(&sum), &ranks)),
    }
}
