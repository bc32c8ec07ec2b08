//! Rank policies: how many singular values to keep, of one module or shared out over all.

use super::noise::above_factor_noise;

/// One module as a rank policy sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Singular values, descending.
    pub singular_values: Vec<f64>,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub columns: usize,
    /// What B · A is multiplied by; kohya's criteria look at the unscaled values.
    pub scale: f64,
}

impl Candidate {
    /// The most singular values the matrix can have.
    fn full(&self) -> usize {
        self.rows.min(self.columns)
    }

    /// Parameters that one more rank costs.
    fn cost(&self) -> u64 {
        (self.rows + self.columns) as u64
    }
}

/// Which singular values are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RankPolicy {
    /// Exactly so many, or as many as there are.
    Fixed(usize),
    /// All that are not zero within f32's precision of the largest.
    Lossless,
    /// The fewest with Σσ² ≥ this share of all.
    Energy(f64),
    /// The fewest with √Σσ² ≥ this share of all: energy of its square.
    Frobenius(f64),
    /// The fewest with Σσ ≥ this share of all.
    Nuclear(f64),
    /// Those above σ₁ / this.
    Ratio(f64),
    /// Those above this.
    Absolute(f64),
    /// Those that noise in the factors does not explain (Marchenko and Pastur 1967); all, where none stands out.
    MarchenkoPastur,
    /// The fewest parameters with a relative error of at most this over all modules.
    Error(f64),
    /// The least error in a file of so many bytes.
    Size(u64),
    /// The least error with so many parameters.
    Parameters(u64),
    /// kohya's `sv_ratio`, with its extra rank (`networks/resize_lora.py`).
    KohyaRatio(f64),
    /// kohya's `sv_fro`, likewise.
    KohyaFrobenius(f64),
    /// kohya's `sv_cumulative`, likewise.
    KohyaCumulative(f64),
}

/// A budget that does not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// What one rank of every module takes, in the policy's own unit.
    pub least: u64,
}

/// Relative size below which a singular value is rounding of f32 factors.
pub(in crate::math) const NEGLIGIBLE: f64 = 1.0 / 16_777_216.0;

/// Below this largest singular value kohya keeps one rank (`MIN_SV`).
const KOHYA_LEAST: f64 = 1e-6;

impl RankPolicy {
    /// Whether ranks are shared out over all modules.
    pub fn is_global(self) -> bool {
        matches!(self, Self::Error(_) | Self::Size(_) | Self::Parameters(_))
    }

    /// The rank of one module, at least 1; of a global policy, its share if it were alone.
    pub fn of(self, module: &Candidate) -> usize {
        let values = &module.singular_values;
        let count = |keep: &dyn Fn(f64) -> bool| values.iter().take_while(|v| keep(**v)).count();
        let first = values.first().copied().unwrap_or(0.0);
        let rank = match self {
            Self::Fixed(rank) => rank,
            Self::Lossless => count(&|value| value > first * NEGLIGIBLE),
            Self::Energy(share) => reaching(values, share, |value| value * value),
            Self::Frobenius(share) => reaching(values, share * share, |value| value * value),
            Self::Nuclear(share) => reaching(values, share, |value| value),
            Self::Ratio(ratio) => count(&|value| value > first / ratio),
            Self::Absolute(least) => count(&|value| value > least),
            Self::MarchenkoPastur => {
                match above_factor_noise(values, module.rows.max(module.columns)) {
                    0 => count(&|value| value > first * NEGLIGIBLE),
                    rank => rank,
                }
            }
            Self::Error(error) => reaching(values, 1.0 - error * error, |value| value * value),
            Self::Size(_) | Self::Parameters(_) => values.len(),
            Self::KohyaRatio(_) | Self::KohyaFrobenius(_) | Self::KohyaCumulative(_) => {
                self.kohya(module)
            }
        };
        rank.clamp(1, values.len().max(1))
    }

    fn kohya(self, module: &Candidate) -> usize {
        let scale = if module.scale == 0.0 { 1.0 } else { module.scale.abs() };
        let values: Vec<f64> = module.singular_values.iter().map(|value| value / scale).collect();
        let first = values.first().copied().unwrap_or(0.0);
        if first <= KOHYA_LEAST {
            return 1;
        }
        let index = match self {
            Self::KohyaRatio(ratio) => {
                values.iter().filter(|value| **value > first / ratio).count()
            }
            Self::KohyaFrobenius(share) => reaching(&values, share * share, |value| value * value),
            Self::KohyaCumulative(share) => reaching(&values, share, |value| value),
            _ => values.len(),
        };
        // kohya counts the dense matrix's values, clamps to one less, and then adds one.
        index.clamp(1, module.full().saturating_sub(1).max(1)) + 1
    }

    /// The ranks of all modules. Those of `most` cap each; `bytes(ranks)` is the size of a file.
    ///
    /// Global budgets are filled with the largest σ² per stored parameter first, which keeps the most
    /// energy for the space, from one rank everywhere upwards.
    ///
    /// # Errors
    /// [`TooSmall`] if one rank of every module exceeds the budget.
    pub fn share(
        self,
        modules: &[Candidate],
        most: &[usize],
        bytes: &dyn Fn(&[usize]) -> u64,
    ) -> Result<Vec<usize>, TooSmall> {
        let cap = |at: usize| most.get(at).copied().unwrap_or(usize::MAX).max(1);
        if !self.is_global() {
            return Ok(modules.iter().enumerate().map(|(at, m)| self.of(m).min(cap(at))).collect());
        }
        let mut ranks = vec![1; modules.len()];
        let steps = steps(modules, &cap);
        match self {
            Self::Error(error) => {
                fill_to_error(modules, &steps, error, &mut ranks);
                return Ok(ranks);
            }
            Self::Parameters(budget) => {
                let least = modules.iter().map(Candidate::cost).sum();
                if least > budget {
                    return Err(TooSmall { least });
                }
                fill(modules, &steps, budget - least, &mut ranks);
            }
            Self::Size(budget) => {
                let least = bytes(&ranks);
                if least > budget {
                    return Err(TooSmall { least });
                }
                fill_bytes(modules, &steps, budget, bytes, &mut ranks);
            }
            _ => {}
        }
        Ok(ranks)
    }

    /// As [`RankPolicy::share`], where all modules will be filled up to the highest rank: a budget pays
    /// for that rank everywhere, so all modules may use it.
    ///
    /// # Errors
    /// [`TooSmall`] if one rank of every module exceeds the budget.
    pub fn share_evenly(
        self,
        modules: &[Candidate],
        most: &[usize],
        bytes: &dyn Fn(&[usize]) -> u64,
    ) -> Result<Vec<usize>, TooSmall> {
        let cap = most.iter().copied().min().unwrap_or(usize::MAX);
        let useful = modules.iter().map(|module| Self::Lossless.of(module)).max().unwrap_or(1);
        let highest = useful.min(cap).max(1);
        let evenly = |rank: usize| vec![rank; modules.len()];
        let cost: u64 = modules.iter().map(Candidate::cost).sum();
        let takes = |rank: usize| match self {
            Self::Parameters(_) => cost * rank as u64,
            _ => bytes(&evenly(rank)),
        };
        let rank = match self {
            Self::Parameters(budget) | Self::Size(budget) => {
                if takes(1) > budget {
                    return Err(TooSmall { least: takes(1) });
                }
                // What is taken grows with the rank, so the last that fits can be searched for.
                let (mut fits, mut exceeds) = (1, highest + 1);
                while exceeds - fits > 1 {
                    let middle = fits + (exceeds - fits) / 2;
                    *(if takes(middle) <= budget { &mut fits } else { &mut exceeds }) = middle;
                }
                fits
            }
            Self::Error(error) => {
                let beyond = |rank: usize| -> f64 {
                    let values = modules.iter().flat_map(|m| m.singular_values.iter().skip(rank));
                    values.map(|value| value * value).sum()
                };
                let allowed = error * error * beyond(0) * (1.0 + 1e-12);
                (1..highest).find(|rank| beyond(*rank) <= allowed).unwrap_or(highest)
            }
            _ => return self.share(modules, most, bytes),
        };
        Ok(evenly(rank))
    }
}

/// Fewest values whose sum of `measure` reaches `share` of the whole.
fn reaching(values: &[f64], share: f64, measure: impl Fn(f64) -> f64) -> usize {
    let total: f64 = values.iter().map(|value| measure(*value)).sum();
    let mut sum = 0.0;
    for (at, value) in values.iter().enumerate() {
        sum += measure(*value);
        // The last sums differ from the total by rounding only.
        if sum >= share * total * (1.0 - 1e-14) {
            return at + 1;
        }
    }
    values.len()
}

/// One more rank for one module, and what it is worth.
struct Step {
    module: usize,
    /// Its rank after this step.
    rank: usize,
    energy: f64,
}

/// All steps above rank 1, the most energy per parameter first.
fn steps(modules: &[Candidate], cap: &dyn Fn(usize) -> usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for (at, module) in modules.iter().enumerate() {
        let first = module.singular_values.first().copied().unwrap_or(0.0);
        for (index, value) in module.singular_values.iter().enumerate().take(cap(at)).skip(1) {
            if *value > first * NEGLIGIBLE {
                steps.push(Step { module: at, rank: index + 1, energy: value * value });
            }
        }
    }
    let worth = |step: &Step| {
        modules.get(step.module).map_or(0.0, |module| step.energy / module.cost() as f64)
    };
    steps.sort_by(|a, b| {
        worth(b).total_cmp(&worth(a)).then((a.module, a.rank).cmp(&(b.module, b.rank)))
    });
    steps
}

/// Takes steps while they fit; a module that lost one takes no later one.
fn fill(modules: &[Candidate], steps: &[Step], mut budget: u64, ranks: &mut [usize]) {
    for step in steps {
        let (Some(module), Some(rank)) = (modules.get(step.module), ranks.get_mut(step.module))
        else {
            continue;
        };
        if module.cost() <= budget && *rank + 1 == step.rank {
            budget -= module.cost();
            *rank = step.rank;
        }
    }
}

/// As [`fill`], by the size of the file: the most parameters whose file still fits.
fn fill_bytes(
    modules: &[Candidate],
    steps: &[Step],
    budget: u64,
    bytes: &dyn Fn(&[usize]) -> u64,
    ranks: &mut Vec<usize>,
) {
    let everything: u64 =
        steps.iter().filter_map(|step| Some(modules.get(step.module)?.cost())).sum();
    let (mut fits, mut exceeds) = (0, everything + 1);
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        let mut attempt = vec![1; modules.len()];
        fill(modules, steps, middle, &mut attempt);
        if bytes(&attempt) <= budget {
            fits = middle;
            *ranks = attempt;
        } else {
            exceeds = middle;
        }
    }
}

fn fill_to_error(modules: &[Candidate], steps: &[Step], error: f64, ranks: &mut [usize]) {
    let squares = |module: &Candidate| module.singular_values.iter().map(|v| v * v).sum::<f64>();
    let total: f64 = modules.iter().map(squares).sum();
    let held: f64 = modules.iter().filter_map(|m| m.singular_values.first()).map(|v| v * v).sum();
    let mut dropped = total - held;
    for step in steps {
        if dropped <= error * error * total * (1.0 + 1e-12) {
            return;
        }
        if let Some(rank) = ranks.get_mut(step.module) {
            *rank = step.rank;
            dropped -= step.energy;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn module(values: &[f64]) -> Candidate {
        // As wide as the values are many: kohya's vectors are of dense matrices.
        let size = values.len();
        Candidate { singular_values: values.to_vec(), rows: size, columns: size, scale: 1.0 }
    }

    #[test]
    fn criteria_on_a_known_spectrum() {
        let module = module(&[8.0, 4.0, 2.0, 1.0, 0.5]);
        let rank = |text: &str| text.parse::<RankPolicy>().expect(text).of(&module);
        // kohya's own results, PEFT's energy, and the minimal ranks that reach the share.
        for (share, cumulative, fro, energy, minimal_fro, nuclear) in [
            ("0.5", 2, 2, 1, 1, 1),
            ("0.9", 4, 3, 2, 2, 3),
            ("0.95", 5, 3, 3, 2, 4),
            ("0.99", 5, 4, 4, 3, 5),
        ] {
            assert_eq!(rank(&format!("sv_cumulative:{share}")), cumulative, "{share}");
            assert_eq!(rank(&format!("sv_fro:{share}")), fro, "{share}");
            assert_eq!(rank(&format!("energy:{share}")), energy, "{share}");
            assert_eq!(rank(&format!("fro:{share}")), minimal_fro, "{share}");
            assert_eq!(rank(&format!("nuclear:{share}")), nuclear, "{share}");
        }
        for (ratio, expected) in [("2", 2), ("4", 3), ("5", 4), ("16", 5)] {
            assert_eq!(rank(&format!("sv_ratio:{ratio}")), expected, "{ratio}");
        }
        assert_eq!(rank("ratio:2"), 1);
        assert_eq!(rank("abs:1"), 3);
        assert_eq!(rank("lossless"), 5);
        assert_eq!(rank("99"), 5);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "0",
            "-1",
            "energy",
            "energy:0",
            "energy:2",
            "energy:x",
            "ratio:1",
            "size:0",
            "params:2X",
            "best:1",
            "abs:nan",
        ] {
            assert!(text.parse::<RankPolicy>().is_err(), "{text}");
        }
        for text in
            ["16", "lossless", "mp", "energy:0.9", "ratio:10", "abs:0.001", "size:32", "sv_fro:0.9"]
        {
            assert_eq!(text.parse::<RankPolicy>().expect(text).to_string(), text);
        }
        assert_eq!("size:32MiB".parse(), Ok(RankPolicy::Size(32 << 20)));
        assert_eq!("params:2M".parse(), Ok(RankPolicy::Parameters(2_000_000)));
    }

    proptest! {
        #[test]
        fn budgets_are_met_and_more_budget_keeps_more(
            spectra in prop::collection::vec(prop::collection::vec(0.01f64..10.0, 1..8), 1..6),
            extra in 0u64..400,
        ) {
            let modules: Vec<_> = spectra
                .into_iter()
                .enumerate()
                .map(|(at, mut values)| {
                    values.sort_by(|a, b| b.total_cmp(a));
                    Candidate { singular_values: values, rows: 10 + at, columns: 12, scale: 1.0 }
                })
                .collect();
            let cost = |ranks: &[usize]| {
                modules.iter().zip(ranks).map(|(m, rank)| m.cost() * *rank as u64).sum::<u64>()
            };
            let bytes = |ranks: &[usize]| 100 + 4 * cost(ranks);
            let least = cost(&vec![1; modules.len()]);
            let energy = |ranks: &[usize]| {
                modules.iter().zip(ranks).flat_map(|(m, rank)| &m.singular_values[..*rank]).map(|v| v * v).sum::<f64>()
            };
            let ranks = RankPolicy::Parameters(least + extra).share(&modules, &[], &bytes).expect("fits");
            prop_assert!(cost(&ranks) <= least + extra);
            let more = RankPolicy::Parameters(least + extra + 30).share(&modules, &[], &bytes).expect("fits");
            prop_assert!(energy(&more) >= energy(&ranks) - 1e-9);
            let size = 100 + 4 * (least + extra);
            let ranks = RankPolicy::Size(size).share(&modules, &[], &bytes).expect("fits");
            prop_assert!(bytes(&ranks) <= size);
            let short = RankPolicy::Size(99 + 4 * least).share(&modules, &[], &bytes);
            prop_assert_eq!(short, Err(TooSmall { least: 100 + 4 * least }));
            let everything: f64 = modules.iter().flat_map(|m| &m.singular_values).map(|v| v * v).sum();
            let ranks = RankPolicy::Error(0.3).share(&modules, &[], &bytes).expect("always");
            let least_energy = energy(&vec![1; modules.len()]);
            prop_assert!(everything - energy(&ranks) <= (0.09 * everything).max(everything - least_energy) + 1e-9);
        }
    }
}
