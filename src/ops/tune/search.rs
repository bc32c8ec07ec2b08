//! The search itself: a factor for each adapter first, then one for all.

use crate::error::Result;

/// Evaluations of the factor for all, with that of the weights as they are.
pub(super) const GLOBAL: usize = 6;
/// The first step between factors for all, in powers of 2.
const STEP: f64 = 0.5;
/// An adapter's factors: lower first, since most of what is lost is one writing over another; then further where that
/// was better, and higher where it was not.
const LOWER: f64 = 0.8;
const LOWEST: f64 = 0.64;
const HIGHER: f64 = 1.25;

/// What a combination is multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// All of it.
    pub(super) lambda: f64,
    /// Each adapter's weight.
    pub(super) factors: Vec<f64>,
}

/// Finds the point with the highest score, in [`GLOBAL`] + 2·`adapters` evaluations: each adapter's factor down, and
/// further down or up, then λ by halving steps around the best so far. λ comes last, since one adapter that is too
/// loud would take it down for all, from where two steps of their own do not bring the others back. Of equals the
/// first stays, so that the same scores lead to the same point.
///
/// # Errors
/// Whatever the evaluation fails with.
pub(super) fn search(
    adapters: usize,
    mut score: impl FnMut(&Point) -> Result<f64>,
) -> Result<(Point, f64)> {
    let mut best = Point { lambda: 1.0, factors: vec![1.0; adapters] };
    let mut highest = score(&best)?;
    for adapter in 0..adapters {
        let middle = best.clone();
        let mut is_better = |factor| -> Result<bool> {
            let mut point = middle.clone();
            if let Some(tried) = point.factors.get_mut(adapter) {
                *tried = factor;
            }
            let found = score(&point)?;
            let better = found > highest;
            if better {
                (best, highest) = (point, found);
            }
            Ok(better)
        };
        let next = if is_better(LOWER)? { LOWEST } else { HIGHER };
        is_better(next)?;
    }
    let at = |power: f64| {
        // Three digits are as much as a score can tell apart, and as people write.
        let lambda = (power.exp2() * 1000.0).round() / 1000.0;
        Point { lambda, factors: best.factors.clone() }
    };
    let mut tried = vec![(0.0, highest)];
    let mut step = STEP;
    let best_of = |tried: &[(f64, f64)]| {
        tried.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best })
    };
    while tried.len() < GLOBAL {
        let best = best_of(&tried).map_or(0.0, |(power, _)| power);
        let new = |power: &f64| tried.iter().all(|(known, _)| (known - power).abs() > 1e-9);
        match [best - step, best + step].into_iter().find(new) {
            Some(power) => tried.push((power, score(&at(power))?)),
            None => step /= 2.0,
        }
    }
    let (power, highest) = best_of(&tried).unwrap_or_default();
    Ok((at(power), highest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches for a known point; what was tried on the way.
    fn found(lambda: f64, factors: [f64; 2]) -> (Point, Vec<Point>) {
        let mut tried = Vec::new();
        let best = search(2, |point| {
            tried.push(point.clone());
            let away = |a: f64, b: f64| (a / b).ln().powi(2);
            let each = point.factors.iter().zip(factors).map(|(a, b)| away(*a, b)).sum::<f64>();
            Ok(-away(point.lambda, lambda) - each)
        });
        (best.map_or(Point { lambda: 0.0, factors: vec![] }, |(point, _)| point), tried)
    }

    #[test]
    fn it_ends_near_the_best_in_as_many_evaluations_as_it_says() {
        for (lambda, reached) in
            [(1.0, 1.0), (0.6, 0.595), (0.3, 0.297), (1.5, 1.414), (0.72, 0.707)]
        {
            let each = if lambda < 1.0 { [1.25, 0.8] } else { [1.0, 0.64] };
            let (best, tried) = found(lambda, each);
            assert_eq!(best.lambda, reached, "{lambda}: {tried:?}");
            assert_eq!(best.factors, each);
            assert_eq!(tried.len(), GLOBAL + 4);
            assert_eq!(tried[0], Point { lambda: 1.0, factors: vec![1.0, 1.0] });
        }
    }

    #[test]
    fn of_equals_the_first_stays() {
        let best = search(3, |_| Ok(0.5)).map(|(point, _)| point);
        assert_eq!(best.ok(), Some(Point { lambda: 1.0, factors: vec![1.0; 3] }));
    }
}
