//! What a method makes of a module in factors, cut to its rank.

use super::group::Group;
use super::module_inputs::combine_group;
use super::open::Combine;
use super::rank::{candidate, fixed, highest_rank, policy, written_scale};
use crate::error::Result;
use crate::math::linalg::grams::Grams;
use crate::math::linalg::low_rank::Svd;
use crate::math::{LowRank, Matrix, RankPolicy};
use crate::method::{Combined, Law, Weighted};

/// What a method made of a module, cut to its rank.
pub(super) struct Outcome {
    pub(super) written: Combined,
    /// ‖written‖² and ‖combined‖².
    pub(super) kept: f64,
    pub(super) total: f64,
    /// ‖combined − Σ wᵢΔᵢ‖², and ‖Σ wᵢΔᵢ‖² if it is another than the combined.
    pub(super) off_sum: f64,
    pub(super) exact: Option<f64>,
    /// Inner products of the weighted deltas' factors, where a decomposition had them.
    pub(super) grams: Option<Grams>,
}

/// What the method makes of a module in factors, cut to its rank; `rank` is the one that all modules together
/// decide.
///
/// # Errors
/// If factors cannot be read.
pub(super) fn by_factors(
    combine: &Combine,
    group: &Group,
    inputs: &[Weighted],
    rank: Option<usize>,
) -> Result<Outcome> {
    let policy = policy(combine, group);
    let combined = combine_group(combine, group, inputs, fixed(combine, group, rank))?;
    let ranks: Vec<usize> = inputs.iter().map(|input| input.factors.rank()).collect();
    let Distance { off_sum, exact, mut grams } =
        distance(combine, group, &combined, inputs, &ranks);
    let (written, kept, total) = match policy {
        None => {
            let energy = combined.factors.squared_norm() * combined.scale * combined.scale;
            (combined, energy, energy)
        }
        Some(policy) => {
            let svd = combined.factors.svd();
            if combine.method.laws.contains(&Law::Stack) && combine.adapters.len() > 1 {
                grams = Some(Grams::of_stack(&svd.coordinates(&combined.factors), &ranks));
            }
            truncate(combine, group, &combined, &svd, policy, rank)
        }
    };
    Ok(Outcome { written, kept, total, off_sum, exact, grams })
}

/// How far a result is from the weighted sum.
struct Distance {
    /// ‖combined − Σ wᵢΔᵢ‖².
    off_sum: f64,
    /// ‖Σ wᵢΔᵢ‖², of methods that make something else.
    exact: Option<f64>,
    /// Inner products of the weighted deltas' factors.
    grams: Option<Grams>,
}

/// By the singular values of the difference, since the difference of norms would be lost in rounding. The exact
/// methods are not measured against themselves.
fn distance(
    combine: &Combine,
    group: &Group,
    combined: &Combined,
    inputs: &[Weighted],
    ranks: &[usize],
) -> Distance {
    if combine.method.laws.contains(&Law::WeightedSum) {
        return Distance { off_sum: 0.0, exact: None, grams: None };
    }
    let deltas: Vec<LowRank> = inputs.iter().map(Weighted::delta).collect();
    let exact = LowRank::sum(group.outputs, group.inputs, &deltas);
    let norm = exact.squared_norm();
    let minus = LowRank::new(&combined.factors.up * -combined.scale, combined.factors.down.clone());
    let difference = LowRank::sum(group.outputs, group.inputs, &[exact, minus]);
    let svd = difference.svd();
    let squares = svd.singular_values().iter().map(|value| value * value);
    let grams = Grams::of_stack(&svd.coordinates(&difference), ranks);
    Distance { off_sum: squares.sum(), exact: Some(norm), grams: Some(grams) }
}

/// The best approximation that the policy asks for: (factors, energy kept, energy before).
fn truncate(
    combine: &Combine,
    group: &Group,
    combined: &Combined,
    svd: &Svd,
    policy: RankPolicy,
    shared: Option<usize>,
) -> (Combined, f64, f64) {
    let candidate = candidate(group, svd.singular_values().to_vec(), combined.scale);
    let most = highest_rank(combine, group);
    let rank = shared.unwrap_or_else(|| policy.of(&candidate).min(most));
    let energies = candidate.singular_values.iter().map(|value| value * value);
    let (kept, total): (f64, f64) = (energies.clone().take(rank).sum(), energies.sum());
    let mut factors = svd.truncate(rank);
    if factors.rank() == 0 {
        factors = LowRank::new(Matrix::zeros(group.outputs, 1), Matrix::zeros(1, group.inputs));
    }
    let scale = written_scale(combine, group);
    // scale · up · down stays what it was: the change is shared by both factors.
    let share = (combined.scale.abs() / scale).sqrt();
    let factors =
        LowRank::new(factors.up * share, factors.down * (share * combined.scale.signum()));
    (Combined { factors, scale }, kept, total)
}
