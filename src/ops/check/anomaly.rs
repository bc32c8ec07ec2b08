//! What is strange in an adapter whatever loads it, seen in its factors: values that are no numbers,
//! modules that do nothing, rows that outgrow the rest, ranks that hold next to nothing.

use super::place::Place;
use super::report::{Finding, Severity};
use super::rule::Effect;
use crate::adapter::Adapter;
use crate::adapter::module::{Module, Update};
use crate::adapter::tensor::check_finite;
use crate::error::{ErrorKind, Result};

/// How much longer than the median row an outlier is.
const OUTLIER: f64 = 50.0;

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
    for module in &adapter.modules {
        let Some(seen) = Seen::of(adapter, module)? else { continue };
        let place = || Place::from(module.name.as_str());
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
    let all_dead =
        !dead.is_empty() && dead.len() == adapter.modules.len() && adapter.replacements.is_empty();
    if all_dead {
        let says = "all modules are zero: the adapter changes nothing";
        found.push(finding("dead-adapter", Severity::Changes, Effect::Changed, says, dead));
    } else if !dead.is_empty() {
        let says = "these modules are zero and change nothing";
        found.push(finding("dead-modules", Severity::Note, Effect::Note, says, dead));
    }
    if !outliers.is_empty() {
        let says = "one row of B is more than 50 times as long as the median row";
        found.push(finding("outlier-row", Severity::Changes, Effect::Changed, says, outliers));
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
    /// The longest row of B over the median one, where that is an outlier.
    outlier: Option<f64>,
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
        let directions = down.chunks(down.len() / rank).map(square);
        let held: Vec<f64> =
            columns.iter().zip(directions).map(|(up, down)| (up * down).sqrt()).collect();
        let most = held.iter().copied().fold(0.0, f64::max);
        let used = held.iter().filter(|size| **size > most * 1e-6).count();
        Ok(Some(Self { dead: most == 0.0, outlier: outlier(&rows), used }))
    }
}

/// The longest of rows, by the squares of their lengths, over the median of those that are not zero.
fn outlier(rows: &[f64]) -> Option<f64> {
    let mut lengths: Vec<f64> =
        rows.iter().filter(|square| **square > 0.0).map(|square| square.sqrt()).collect();
    lengths.sort_by(f64::total_cmp);
    // Of two or three rows none is the rest.
    let (median, longest) = (*lengths.get(lengths.len() / 2)?, *lengths.last()?);
    (lengths.len() >= 4 && longest > OUTLIER * median).then(|| longest / median)
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
