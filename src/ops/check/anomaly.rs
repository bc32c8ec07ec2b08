//! What is strange in an adapter whatever loads it, seen in its factors: values that are no numbers,
//! modules that do nothing, rows that outgrow the rest, ranks that hold next to nothing.

use super::place::Place;
use super::report::{Finding, Severity};
use super::rule::Effect;
use super::shared::{is_promised_dora, two_alphas};
use crate::adapter::Adapter;
use crate::adapter::module::{Module, Update};
use crate::adapter::tensor::check_finite;
use crate::error::{ErrorKind, Result};

/// How much longer than the median row an outlier is.
const OUTLIER: f64 = 50.0;

/// The most that a direction's column of B may itself be longer than the median, where its row of A is an outlier:
/// factors of singular vectors have both, or neither.
const ALIKE: f64 = 5.0;

/// The largest number of float16.
const HALF_LARGEST: f64 = 65504.0;

/// A scale that no training chooses: alpha is some multiples of the rank.
const SCALE: f64 = 1000.0;

/// The share of a module's directions that hold something, below which its rank is mostly zeros.
const USED: f64 = 0.25;

/// Everything strange, the gravest first. Reads every factor.
pub(super) fn all(adapter: &Adapter) -> Result<Vec<Finding>> {
    let broken = not_finite(adapter)?;
    if !broken.is_empty() {
        let says = "they hold values that are no finite numbers: the training diverged, or the file is damaged";
        return Ok(vec![finding("not-finite", Severity::Breaks, Effect::Refused, says, broken)]);
    }
    let (mut dead, mut outliers, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    let (mut large, mut scaled) = (Vec::new(), Vec::new());
    for module in &adapter.modules {
        let place = || Place::from(module.name.as_str());
        if module.scale.value.abs() > SCALE {
            scaled.push(Place { factor: Some(module.scale.value), ..place() });
        }
        let Some(seen) = Seen::of(adapter, module)? else { continue };
        if seen.largest > HALF_LARGEST {
            large.push(place());
        }
        if seen.dead {
            dead.push(place());
            continue;
        }
        if let Some(factor) = seen.outlier {
            outliers.push(Place { factor: Some(factor), ..place() });
        }
        if (seen.used as f64) < USED * module.rank as f64 {
            empty.push(place());
        }
    }
    let mut found = Vec::new();
    let whole = adapter.faults.is_empty() && adapter.unknown.is_empty();
    let all_dead = whole && dead.len() == adapter.modules.len() && adapter.replacements.is_empty();
    if all_dead {
        let says = match adapter.modules.as_slice() {
            [] => "it holds no modules: the adapter changes nothing",
            _ => "all modules are zero: the adapter changes nothing",
        };
        found.push(finding("dead-adapter", Severity::Changes, Effect::Changed, says, dead));
    } else if !dead.is_empty() {
        let says = "these modules are zero and change nothing";
        found.push(finding("dead-modules", Severity::Note, Effect::Note, says, dead));
    }
    if !outliers.is_empty() {
        let says = "one row of A or B is more than 50 times as long as the median row";
        found.push(finding("outlier-row", Severity::Changes, Effect::Changed, says, outliers));
    }
    if !large.is_empty() {
        let says =
            "they hold numbers above 65504, which are infinite where a program computes in float16";
        found.push(finding("overflow", Severity::Changes, Effect::Changed, says, large));
    }
    if !scaled.is_empty() {
        let says = "alpha is more than 1000 times what it is divided by: a mistake, or factors of another alpha";
        found.push(finding("scale", Severity::Changes, Effect::ScaledWrongly, says, scaled));
    }
    if is_promised_dora(adapter) {
        let says = "use_dora is set, and there are no magnitudes: the file is not whole, or it is a plain LoRA";
        let places = vec![Place::from("use_dora")];
        found.push(finding("magnitudes", Severity::Changes, Effect::Changed, says, places));
    }
    let contested: Vec<Place> = two_alphas(adapter).collect();
    if !contested.is_empty() {
        let says = "their alpha tensors and adapter_config.json say different alphas; programs read the one or the other, and which is right the factors do not tell";
        found.push(finding(
            "two-alphas",
            Severity::Changes,
            Effect::ScaledWrongly,
            says,
            contested,
        ));
    }
    if !empty.is_empty() {
        let says = "less than a quarter of the rank holds anything; a lower one says the same";
        found.push(finding("empty-rank", Severity::Note, Effect::Note, says, empty));
    }
    Ok(found)
}

fn finding(
    rule: &'static str,
    severity: Severity,
    effect: Effect,
    says: &str,
    places: Vec<Place>,
) -> Finding {
    let says = says.to_owned();
    Finding { program: None, rule, severity, effect, says, places, source: "", fix: None }
}

/// Tensors with a NaN or an infinity.
fn not_finite(adapter: &Adapter) -> Result<Vec<Place>> {
    let factors = adapter.modules.iter().flat_map(Module::tensors);
    let replaced = adapter.replacements.iter().map(|replacement| replacement.tensor.as_str());
    let names: std::collections::BTreeSet<&str> = factors.chain(replaced).collect();
    let mut found = Vec::new();
    for name in names {
        let Some(view) = adapter.file.tensor(name) else { continue };
        match check_finite(view) {
            Err(error) if matches!(error.kind(), ErrorKind::NonFinite { .. }) => {
                found.push(name.into());
            }
            other => other?,
        }
    }
    Ok(found)
}

/// What a module's factors show.
struct Seen {
    /// Whether the update is zero.
    dead: bool,
    /// The longest row of A or B over the median one, where that is an outlier.
    outlier: Option<f64>,
    /// The largest number of both factors.
    largest: f64,
    /// Directions in which both factors hold something.
    used: usize,
}

impl Seen {
    /// Nothing of what has no factors.
    fn of(adapter: &Adapter, module: &Module) -> Result<Option<Self>> {
        if module.outputs == 0 || module.inputs == 0 {
            return Ok(None);
        }
        let update = adapter.update(module, (module.outputs, module.inputs))?;
        let Update::Factors(up, down) = update else { return Ok(None) };
        let (up, down) = (up.values, down.values);
        let rank = module.rank.max(1);
        let square = |values: &[f32]| {
            values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>()
        };
        let rows: Vec<f64> = up.chunks(rank).map(square).collect();
        let mut columns = vec![0.0; rank];
        for row in up.chunks(rank) {
            for (sum, value) in columns.iter_mut().zip(row) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        let directions: Vec<f64> = down.chunks(down.len() / rank).map(square).collect();
        let held: Vec<f64> =
            columns.iter().zip(&directions).map(|(up, down)| (up * down).sqrt()).collect();
        let alike = longest(&directions).is_some_and(|at| {
            columns.get(at).is_some_and(|column| column.sqrt() > ALIKE * median(&columns))
        });
        let of_a = outlier(&directions).filter(|_| !alike);
        let values = up.iter().chain(down.iter());
        let largest = f64::from(values.fold(0.0f32, |most, value| most.max(value.abs())));
        let most = held.iter().copied().fold(0.0, f64::max);
        let used = held.iter().filter(|size| **size > most * 1e-6).count();
        let dead = most == 0.0 || module.scale.value == 0.0;
        Ok(Some(Self { dead, outlier: outlier(&rows).or(of_a), largest, used }))
    }
}

/// Which of some squares is the largest.
fn longest(squares: &[f64]) -> Option<usize> {
    let all = squares.iter().enumerate();
    all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
}

/// The median of lengths, by their squares, that are not zero.
fn median(squares: &[f64]) -> f64 {
    let mut lengths: Vec<f64> = squares.iter().copied().filter(|square| *square > 0.0).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.get(lengths.len() / 2).map_or(0.0, |square| square.sqrt())
}

/// The longest of rows, by the squares of their lengths, over the median of those that are not zero.
fn outlier(rows: &[f64]) -> Option<f64> {
    let median = median(rows);
    let longest = rows.get(longest(rows)?)?.sqrt();
    // Of two or three rows none is the rest.
    let many = rows.iter().filter(|square| **square > 0.0).count() >= 4;
    (many && longest > OUTLIER * median).then(|| longest / median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_is_fifty_times_the_median() {
        assert_eq!(outlier(&[1.0, 1.0, 1.0, 1.0, 10_000.0]), Some(100.0));
        assert_eq!(outlier(&[1.0, 1.0, 1.0, 1.0, 2_000.0]), None);
        assert_eq!(outlier(&[0.0, 0.0, 0.0, 1.0]), None);
        assert_eq!(outlier(&[]), None);
    }
}
