//! Elementwise methods on matrices of one shape: which elements are dropped, and how the others are
//! mixed. Ours as METHODS says; PEFT's (`utils/merge_utils.py`) and mergekit's (`sparsify.py`,
//! `merge_methods/generalized_task_arithmetic.py`, `merge_methods/sce.py`) where they differ.

use lora_tool::math::elements::random::Stream;
use lora_tool::method::Compat;

use super::{Dense, Problem};

/// Which elements of each matrix become 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    Largest,
    Middle,
    Random,
    RandomByRank,
    Varying,
    Tiny,
}

/// How the others become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    Sum,
    Elect,
    ElectByEnergy,
    Share,
    ShareReinforced,
}

/// Matrices with their weights apart, and the name their random numbers are drawn for.
pub struct Place<'a> {
    pub problem: &'a Problem<'a>,
    pub name: String,
    pub matrices: Vec<Dense>,
    pub weights: Vec<f64>,
    /// All numbers are multiples of a small power of 2, so that f32 and f64 decide alike.
    pub exact: bool,
}

/// Positions by magnitude, the largest first; of equal ones, the first first.
fn by_magnitude(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
    order
}

impl Place<'_> {
    fn mergekit(&self) -> bool {
        self.problem.compat == Some(Compat::Mergekit)
    }

    fn decided_by(&self, margin: f64) {
        if !self.exact {
            self.problem.decided_by(margin);
        }
    }

    /// Records how close the magnitudes on both sides of a cut are.
    fn cut_at(&self, values: &[f64], order: &[usize], at: usize) {
        if at > 0 && at < order.len() {
            let largest = values[order[0]].abs();
            let (above, below) = (values[order[at - 1]].abs(), values[order[at]].abs());
            // Zeros are the same whether they are kept or not.
            if above > 0.0 {
                self.decided_by((above - below) / largest);
            }
        }
    }

    pub fn result(&self, trim: Trim, mix: Mix) -> Dense {
        let trimmed: Vec<Dense> = match trim {
            Trim::Varying => self.most_varying(),
            _ => (0..self.matrices.len()).map(|at| self.trimmed(trim, at)).collect(),
        };
        match mix {
            Mix::Sum => self.sum(&trimmed),
            Mix::Elect => self.elect(trim, &trimmed),
            Mix::ElectByEnergy => self.elect_by_energy(&trimmed),
            Mix::Share | Mix::ShareReinforced => self.shared(mix, &trimmed),
        }
    }

    fn trimmed(&self, trim: Trim, at: usize) -> Dense {
        let (matrix, adapter) = (&self.matrices[at], self.problem.inputs[at].adapter);
        if trim == Trim::Tiny {
            return self.above(matrix, self.problem.number_of("epsilon", adapter));
        }
        let density = self.problem.number_of("density", adapter);
        if density >= 1.0 {
            return matrix.clone();
        }
        let kept = match trim {
            Trim::Largest => self.largest(matrix, density),
            Trim::Middle => self.middle(matrix, density, self.problem.number_of("gamma", adapter)),
            Trim::Random => self.drawn(matrix, adapter, |_, _| density),
            _ => self.drawn_by_rank(matrix, adapter, density),
        };
        if self.mergekit() && matches!(trim, Trim::Random | Trim::RandomByRank) {
            return restored(matrix, &kept);
        }
        let value = |(value, share): (&f64, &f64)| value * share;
        let values = matrix.values.iter().zip(&kept).map(value).collect();
        Dense::new(matrix.rows, matrix.columns, values)
    }

    /// How many a density keeps: one at least, but for peers.
    fn count(&self, elements: usize, density: f64) -> usize {
        let count = (density * elements as f64).floor() as usize;
        if self.problem.compat.is_none() { count.max(1) } else { count }
    }

    fn largest(&self, matrix: &Dense, density: f64) -> Vec<f64> {
        let order = by_magnitude(&matrix.values);
        let count = self.count(order.len(), density);
        self.cut_at(&matrix.values, &order, count);
        mask(order.len(), &order[..count])
    }

    /// Without the γ largest and the smallest; where both cannot be, fewer of the largest go.
    fn middle(&self, matrix: &Dense, density: f64, gamma: f64) -> Vec<f64> {
        let order = by_magnitude(&matrix.values);
        let count = self.count(order.len(), density);
        let top = ((gamma * order.len() as f64).floor() as usize).min(order.len() - count);
        self.cut_at(&matrix.values, &order, top);
        self.cut_at(&matrix.values, &order, top + count);
        // Python's [bottom:-0] is empty.
        if self.mergekit() && top == 0 {
            return vec![0.0; order.len()];
        }
        mask(order.len(), &order[top..top + count])
    }

    /// 1 / chance where drawn; the key is (seed, name, adapter), the counter the element, row by row.
    fn drawn(
        &self,
        matrix: &Dense,
        adapter: usize,
        chance: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        let stream = Stream::new(self.problem.number("seed") as u64, &self.name, adapter);
        let mut kept = Vec::new();
        for row in 0..matrix.rows {
            for column in 0..matrix.columns {
                let chance = chance(row, column);
                let element = (row * matrix.columns + column) as u64;
                kept.push(if stream.bernoulli(element, chance) { 1.0 / chance } else { 0.0 });
            }
        }
        kept
    }

    /// From density − ε for the smallest of a row to density + ε for its largest.
    fn drawn_by_rank(&self, matrix: &Dense, adapter: usize, density: f64) -> Vec<f64> {
        let epsilon = self.problem.number_of("epsilon", adapter);
        let mut chances = Vec::new();
        for row in matrix.values.chunks(matrix.columns) {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| row[*a].abs().total_cmp(&row[*b].abs()));
            let largest = order.last().map_or(1.0, |at| row[*at].abs());
            for pair in order.windows(2) {
                let apart = row[pair[1]].abs() - row[pair[0]].abs();
                if largest > 0.0 && !self.problem.exact {
                    self.problem.decided_by(apart / largest);
                }
            }
            let mut own = vec![0.0; row.len()];
            for (rank, at) in order.iter().enumerate() {
                let share = if row.len() == 1 { 0.5 } else { rank as f64 / (row.len() - 1) as f64 };
                own[*at] = density - epsilon + 2.0 * epsilon * share;
            }
            chances.push(own);
        }
        self.drawn(matrix, adapter, |row, column| chances[row][column])
    }

    /// The share `density` of the places whose variance is not 0, the most varying first.
    fn most_varying(&self) -> Vec<Dense> {
        let count = self.problem.weights.len();
        let density = self.problem.number("density");
        if density >= 1.0 || count < 2 {
            return self.matrices.clone();
        }
        let mut variances = Vec::new();
        for at in 0..self.matrices[0].values.len() {
            let own = self.matrices.iter().zip(&self.weights);
            let mut values: Vec<f64> = own.map(|(matrix, w)| matrix.values[at] * w).collect();
            values.resize(count, 0.0);
            let mean = values.iter().sum::<f64>() / count as f64;
            let variance =
                values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
            let squares: f64 = values.iter().map(|value| value * value).sum();
            if squares > 0.0 && !(self.exact && count.is_power_of_two()) {
                // Values that are all but equal vary by rounding.
                self.problem.decided_by(1e6 * variance / squares);
            }
            variances.push(variance);
        }
        let order = by_magnitude(&variances);
        let varying = variances.iter().filter(|variance| **variance > 0.0).count();
        let kept = (density * varying as f64).floor() as usize;
        if !count.is_power_of_two() && kept > 0 && kept < order.len() {
            // A mean of three is rounded: equal variances are not quite.
            let (above, below) = (variances[order[kept - 1]], variances[order[kept]]);
            self.problem.decided_by((above - below) / variances[order[0]]);
        }
        self.cut_at(&variances, &order, kept);
        let mask = mask(order.len(), &order[..kept]);
        let masked = |matrix: &Dense| {
            let values = matrix.values.iter().zip(&mask).map(|(value, kept)| value * kept);
            Dense::new(matrix.rows, matrix.columns, values.collect())
        };
        self.matrices.iter().map(masked).collect()
    }

    /// The elements whose magnitude is above ε.
    fn above(&self, matrix: &Dense, epsilon: f64) -> Dense {
        let largest = matrix.values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let value = |value: &f64| {
            if *value != 0.0 {
                self.decided_by((value.abs() - epsilon) / largest);
            }
            if value.abs() > epsilon { *value } else { 0.0 }
        };
        Dense::new(matrix.rows, matrix.columns, matrix.values.iter().map(value).collect())
    }

    /// mergekit's `ram.py`: elements of one alone, times 1 + r·min(ρ, α) of RAM+, and the mean of those of several.
    fn shared(&self, mix: Mix, trimmed: &[Dense]) -> Dense {
        let holders = |at: usize| trimmed.iter().filter(|matrix| matrix.values[at] != 0.0).count();
        let raise = |matrix: &Dense| {
            let own = (0..matrix.values.len()).filter(|at| matrix.values[*at] != 0.0);
            let (shared, alone): (Vec<usize>, Vec<usize>) = own.partition(|at| holders(*at) > 1);
            let overlap = shared.len() as f64 / f64::max(alone.len() as f64, 1e-5);
            let cap = self.problem.number("overlap-cap");
            1.0 + self.problem.number("overlap-gain") * overlap.min(cap)
        };
        let raised: Vec<f64> = match mix {
            Mix::ShareReinforced => trimmed.iter().map(raise).collect(),
            _ => vec![1.0; trimmed.len()],
        };
        self.each(trimmed, |values| {
            let own =
                values.iter().zip(&self.weights).zip(&raised).filter(|((x, _), _)| **x != 0.0);
            let count = own.clone().count();
            let value = |((x, w), raise): ((&f64, &f64), &f64)| match count {
                1 => x * w * raise,
                _ => x * w / count as f64,
            };
            own.map(value).sum()
        })
    }

    /// λ times a sum over the inputs at each element.
    fn each(&self, trimmed: &[Dense], of: impl Fn(&[f64]) -> f64) -> Dense {
        let (rows, columns) = (trimmed[0].rows, trimmed[0].columns);
        let lambda = self.problem.number("lambda");
        let at = |at: usize| {
            let values: Vec<f64> = trimmed.iter().map(|matrix| matrix.values[at]).collect();
            lambda * of(&values)
        };
        Dense::new(rows, columns, (0..rows * columns).map(at).collect())
    }

    fn sum(&self, trimmed: &[Dense]) -> Dense {
        self.each(trimmed, |values| values.iter().zip(&self.weights).map(|(x, w)| x * w).sum())
    }

    /// 1 or −1, or 0 for a draw that nobody wins.
    fn winner(&self, votes: &[f64]) -> f64 {
        let frequency =
            self.problem.has("majority-sign") && self.problem.word("majority-sign") == "frequency";
        let total: f64 = if frequency {
            votes.iter().map(|vote| if *vote == 0.0 { 0.0 } else { vote.signum() }).sum()
        } else {
            let size: f64 = votes.iter().map(|vote| vote.abs()).sum();
            let total: f64 = votes.iter().sum();
            if size > 0.0 {
                self.decided_by(total / size);
            }
            total
        };
        match total {
            0.0 if self.problem.compat.is_some() => 1.0,
            0.0 => 0.0,
            _ => total.signum(),
        }
    }

    fn elect(&self, trim: Trim, trimmed: &[Dense]) -> Dense {
        let peft = self.problem.compat == Some(Compat::Peft);
        // mergekit's `dare_ties` and `breadcrumbs_ties` do not normalise unless they are told to.
        let summed = self.mergekit()
            && matches!(trim, Trim::Random | Trim::Middle)
            && !self.problem.given.contains_key("reduce");
        let mean = self.problem.word("reduce") != "sum" && !summed;
        self.each(trimmed, |values| {
            let weighted: Vec<f64> = values.iter().zip(&self.weights).map(|(x, w)| x * w).collect();
            let votes = if peft { values } else { &weighted };
            let winner = self.winner(votes);
            let (mut sum, mut divisor) = (0.0, 0.0);
            for ((value, vote), weight) in weighted.iter().zip(votes).zip(&self.weights) {
                if vote * winner > 0.0 {
                    sum += value;
                    divisor += match self.problem.compat {
                        Some(Compat::Peft) => 1.0,
                        Some(_) => *weight,
                        None => weight.abs(),
                    };
                }
            }
            if self.mergekit() && mean && sum != 0.0 {
                // Weights of both signs that all but cancel leave rounding to divide by.
                let size: f64 = self.weights.iter().map(|weight| weight.abs()).sum();
                let margin = if divisor == 0.0 { 1.0 } else { 2e-4 * divisor / size };
                self.problem.decided_by(margin);
            }
            if mean && divisor != 0.0 { sum / divisor } else { sum }
        })
    }

    fn elect_by_energy(&self, trimmed: &[Dense]) -> Dense {
        let energy = |(matrix, w): (&Dense, &f64)| matrix.inner(matrix) * w * w;
        let energies: Vec<f64> = trimmed.iter().zip(&self.weights).map(energy).collect();
        let total: f64 = energies.iter().sum();
        let elements = (trimmed[0].rows * trimmed[0].columns) as f64;
        // mergekit takes a mean square below 1e-6 for none.
        let none = total == 0.0 || (self.mergekit() && total / elements < 1e-6);
        let share = |energy: &f64| if none { 1.0 } else { energy / total };
        let shares: Vec<f64> = energies.iter().map(share).collect();
        self.each(trimmed, |values| {
            let weighted: Vec<f64> = values.iter().zip(&self.weights).map(|(x, w)| x * w).collect();
            let winner = self.winner(&weighted);
            let (mut sum, mut divisor) = (0.0, 0.0);
            for (value, share) in weighted.iter().zip(&shares) {
                if value * winner > 0.0 {
                    sum += share * value;
                    divisor += share;
                }
            }
            // mergekit divides by 1e-6 at least.
            let divisor = if self.mergekit() { f64::max(divisor, 1e-6) } else { divisor };
            if divisor > 0.0 { sum / divisor } else { 0.0 }
        })
    }
}

fn mask(elements: usize, kept: &[usize]) -> Vec<f64> {
    let mut mask = vec![0.0; elements];
    for at in kept {
        mask[*at] = 1.0;
    }
    mask
}

/// What is kept, scaled up to the sum of magnitudes there was, as mergekit's `rescale_norm` l1.
fn restored(matrix: &Dense, kept: &[f64]) -> Dense {
    let masked = matrix.values.iter().zip(kept);
    let masked: Vec<f64> = masked.map(|(x, kept)| if *kept > 0.0 { *x } else { 0.0 }).collect();
    let size = |values: &[f64]| values.iter().map(|value| value.abs()).sum::<f64>();
    let (before, after) = (size(&matrix.values), size(&masked));
    let gain = if before < 1e-7 || after < 1e-7 { 1.0 } else { before / after };
    Dense::new(matrix.rows, matrix.columns, masked).scaled(gain)
}
