//! How much of the updates will survive where their weights are quantised, before the work starts: by how large the
//! scheme's own error is beside the update, ‖Wq − W‖ / ‖update‖.
//!
//! The scheme's error relative to a weight is that of normally distributed numbers (`weight/noise.rs`); the norms of the
//! weight and of its update are those of a few of its rows. What survives at which ratio was measured with four
//! adapters of a sentence encoder, quantised in eleven schemes. On the packages' own cases it is within 0.12 of what
//! survives where the ratio is at most 1, and within 0.35 beyond: there all that is sure is that much is lost.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::compute::encoded::{Encoding, Survey};
use super::open::Merge;
use super::plan::predicted::{Prediction, SchemePrediction};
use super::plan::tensor_plan::{Encode, TensorPlan};
use crate::error::{Locate, Result};
use crate::ops::merge::OutputTensor;
use crate::ops::thread_pool;
use crate::weight::{Rounding, Scales, Stored, Weight, Writing};

/// Elements of a weight that are looked at, about, and in how many places.
const ELEMENTS: usize = 16 << 10;
const PLACES: usize = 4;

/// ‖Wq − W‖ / ‖update‖, and the share of the update that survives there with new scales.
const FRESH: [(f64, f64); 9] = [
    (0.0, 1.0),
    (0.2, 1.0),
    (0.46, 0.96),
    (0.8, 0.885),
    (1.0, 0.83),
    (1.2, 0.75),
    (1.65, 0.6),
    (2.1, 0.51),
    (3.0, 0.3),
];

/// The same with the base's scales, on whose steps its weights lie already.
const REUSED: [(f64, f64); 10] = [
    (0.0, 1.0),
    (0.23, 0.99),
    (0.41, 0.95),
    (0.7, 0.84),
    (0.85, 0.77),
    (1.05, 0.69),
    (1.45, 0.5),
    (1.9, 0.4),
    (2.75, 0.15),
    (3.5, 0.08),
];

/// One weight.
struct Found {
    name: String,
    scheme: String,
    ratio: f64,
    expected: f64,
}

impl Merge {
    /// What is expected to survive; `None`, if no weight is quantised that changes, or a method decides what changes.
    ///
    /// # Errors
    /// If reading rows of the base or factors fails.
    pub(in crate::ops::merge) fn predict(&self) -> Result<Option<Prediction>> {
        if self.plan.requantised.is_none() || self.plan.method.is_some() {
            return Ok(None);
        }
        let dense = self.plan.tensors().filter_map(|tensor| match &tensor.plan {
            TensorPlan::Encode(Encode { part: 0, dense }) if dense.plan.changes() => Some(&**dense),
            _ => None,
        });
        let dense: Vec<&OutputTensor> = dense.collect();
        let pool = thread_pool(self.options.threads)?;
        let noises = pool.install(|| self.noises(&dense))?;
        let expect = |dense: &&OutputTensor| self.expect(dense, &noises);
        let found: Vec<Result<Option<Found>>> =
            pool.install(|| dense.par_iter().map(expect).collect());
        let found = found.into_iter().collect::<Result<Vec<_>>>()?;
        let found: Vec<Found> = found.into_iter().flatten().collect();
        let Some(least) = found.iter().min_by(|a, b| a.expected.total_cmp(&b.expected)) else {
            return Ok(None);
        };
        let mut schemes: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
        for one in &found {
            schemes.entry(&one.scheme).or_default().push(one);
        }
        let mean = |of: &[&Found], number: fn(&Found) -> f64| {
            of.iter().map(|found| number(found)).sum::<f64>() / of.len().max(1) as f64
        };
        let all: Vec<&Found> = found.iter().collect();
        Ok(Some(Prediction {
            expected: mean(&all, |found| found.expected),
            least: least.name.clone(),
            least_expected: least.expected,
            schemes: schemes
                .into_iter()
                .map(|(scheme, found)| SchemePrediction {
                    scheme: scheme.to_owned(),
                    weights: found.len(),
                    ratio: mean(&found, |found| found.ratio),
                    expected: mean(&found, |found| found.expected),
                })
                .collect(),
        }))
    }

    /// What each scheme loses of a weight, for every shape that it is used for.
    fn noises(&self, dense: &[&OutputTensor]) -> Result<BTreeMap<Scheme<'_>, Option<f64>>> {
        let mut weights = BTreeMap::new();
        for dense in dense {
            let (weight, _) = self.inputs.weight(&dense.full_name)?;
            weights.entry(scheme(weight)).or_insert(weight);
        }
        let weights: Vec<&Weight> = weights.into_values().collect();
        let found: Vec<Result<(Scheme<'_>, Option<f64>)>> =
            weights.par_iter().map(|weight| Ok((scheme(weight), weight.noise()?))).collect();
        found.into_iter().collect()
    }

    /// What is expected of one weight; `None`, if nothing changes in the rows that were looked at.
    fn expect(
        &self,
        dense: &OutputTensor,
        noises: &BTreeMap<Scheme<'_>, Option<f64>>,
    ) -> Result<Option<Found>> {
        let (weight, writing) = self.inputs.weight(&dense.full_name)?;
        let Some(Some(noise)) = noises.get(&scheme(weight)) else { return Ok(None) };
        let (norm, update) = self.norms(dense).in_tensor(&dense.full_name)?;
        if update == 0.0 {
            return Ok(None);
        }
        let ratio = noise * norm / update;
        // Numbers that lie on no steps yet lose nothing on average.
        let expected = match (self.inputs.values.is_some(), writing.scales) {
            (true, _) => 1.0,
            (false, Scales::Fresh) => survives(ratio, writing),
            (false, Scales::Reuse) => {
                survives(ratio, writing) * within(update / norm, group(weight))
            }
        };
        let scheme = format!("{}, {}", weight.encoding, weight.detail);
        Ok(Some(Found { name: dense.full_name.clone(), scheme, ratio, expected }))
    }

    /// Norms of a few rows of a weight and of its update.
    fn norms(&self, dense: &OutputTensor) -> Result<(f64, f64)> {
        let encoding = Encoding::new(self.making(), dense, Survey::default())?;
        let (mut norm, mut update) = (0.0, 0.0);
        // Values, not codes: rows that are written together need not be looked at together.
        for sample in encoding.samples(ELEMENTS, PLACES)? {
            for (after, before) in sample.values.iter().zip(&sample.before) {
                let (after, before) = (f64::from(*after), f64::from(*before));
                norm += before * before;
                update += (after - before) * (after - before);
            }
        }
        Ok((norm.sqrt(), update.sqrt()))
    }
}

/// An encoding, its bits and groups in words, and a shape.
type Scheme<'a> = (&'a str, &'a str, &'a [usize]);

fn scheme(weight: &Weight) -> Scheme<'_> {
    (weight.encoding, &weight.detail, &weight.shape)
}

/// The share of an update that survives at a ratio of the scheme's error to it.
fn survives(ratio: f64, writing: Writing) -> f64 {
    let points = match (writing.rounding, writing.scales) {
        (Rounding::Stochastic { .. }, _) => return 1.0,
        (Rounding::Nearest, Scales::Fresh) => &FRESH[..],
        (Rounding::Nearest, Scales::Reuse) => &REUSED,
    };
    let between = points.windows(2).find_map(|pair| {
        let [(low, first), (high, second)] = *pair else { return None };
        let share = (ratio - low) / (high - low);
        (share <= 1.0).then_some(first + (second - first) * share)
    });
    between.unwrap_or_else(|| {
        // Beyond what was measured it falls with the square, as it does there.
        let (last, share) = points.last().copied().unwrap_or((1.0, 0.0));
        share * (last / ratio).powi(2)
    })
}

/// The share of an update so many times as large as its weight that fits between the ends of scales that stay, both
/// taken for normally distributed: of numbers that are cut at ±a standard deviations, erf(a/√2) is passed on (Bussgang's
/// theorem), for scales of so many numbers each.
fn within(size: f64, group: usize) -> f64 {
    // What the largest of a group is expected to be: the median is this within 0.03 from 32 numbers to millions.
    let end = (2.0 * (group.max(32) as f64).ln()).sqrt() - 0.33;
    // Within 4e-4 of the error function.
    let erf = |x: f64| (std::f64::consts::FRAC_2_SQRT_PI * x + 0.1009 * x.powi(3)).tanh();
    let passed = |spread: f64| erf(end / spread / std::f64::consts::SQRT_2);
    let spread = (1.0 + size * size).sqrt();
    if spread.is_finite() { passed(spread) / passed(1.0) } else { 0.0 }
}

/// How many numbers of a weight have a scale together, about: the companion that has most elements is the scales. Blocks
/// hold their own, of 32 numbers mostly.
fn group(weight: &Weight) -> usize {
    let scales = weight.parts.iter().skip(1).map(Stored::elements).max();
    weight.elements() / scales.unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_survives_the_smaller_an_update_is() {
        for scales in [Scales::Fresh, Scales::Reuse] {
            let writing = Writing { scales, rounding: Rounding::Nearest };
            let shares: Vec<f64> =
                (0..60).map(|at| survives(f64::from(at) / 10.0, writing)).collect();
            assert!(shares.windows(2).all(|pair| pair[1] <= pair[0]), "{shares:?}");
            assert!(shares[0] == 1.0 && shares[59] > 0.0 && shares[59] < 0.1, "{shares:?}");
        }
    }

    #[test]
    fn what_leaves_the_ends_of_kept_scales_is_lost() {
        assert!(within(0.0, 32) == 1.0 && within(0.1, 32) > 0.99);
        assert!((within(1.6, 32) - 0.79).abs() < 0.02, "{}", within(1.6, 32));
        assert!(within(8.0, 32) < 0.25 && within(f64::INFINITY, 32) == 0.0);
        // Blocks of 128 × 128.
        assert!(within(1.6, 1 << 14) > 0.95, "{}", within(1.6, 1 << 14));
    }

    #[test]
    fn rounding_at_random_keeps_the_mean() {
        let rounding = Rounding::Stochastic { seed: 1 };
        assert!(survives(9.0, Writing { scales: Scales::Fresh, rounding }) == 1.0);
    }
}
