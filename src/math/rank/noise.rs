//! How many singular values stand above noise: the rank of an adapter that was merged and rounded.
//!
//! Rounding W + Δ to the checkpoint's dtype adds noise whose singular values end where Marchenko and
//! Pastur (1967) say: at s·(√m + √n) for elements of variance s². What is above is not noise. The
//! variance is that of what is left when the values above are taken away, so the edge needs no
//! knowledge of dtypes.

/// How far above the edge a value must be: noise is not evenly spread over rows and columns.
const MARGIN: f64 = 0.05;

/// How far above the edge noise reaches where rows and columns differ in size.
const UNEVEN: f64 = 3.0;
/// How steep a step is that no noise continues below: rows of large weights, whose rounding is coarser,
/// leave values of up to three times the edge, with steps of less than this to those above them.
const CLIFF: f64 = 2.0;
/// How steep a step from signal to noise is at least; steps within even noise are below 1.35.
const STEEP: f64 = 1.5;

/// Relative size of what sums and products in f32 leave behind.
const LEAST: f64 = 1.0 / 4_194_304.0;

/// The number of leading singular values of an m × n matrix that are above its noise; as many as are
/// given if the noise is further down.
pub fn above_noise(values: &[f64], squared_norm: f64, rows: usize, columns: usize) -> usize {
    let first = values.first().copied().unwrap_or(0.0);
    let least = rows.min(columns);
    // The largest value of small matrices varies (Tracy and Widom 1994) on the scale n^(−2/3).
    let margin = 1.0 + MARGIN.max(1.5 * (least.max(1) as f64).powf(-2.0 / 3.0));
    let mut left = squared_norm;
    for (rank, value) in values.iter().enumerate() {
        let (m, n) = ((rows - rank) as f64, (columns - rank) as f64);
        // Sums of squares cancel to about this.
        let energy = left.max(1e-14 * squared_norm);
        let edge = (energy / (m * n)).sqrt() * (m.sqrt() + n.sqrt());
        if *value <= (edge * margin).max(first * LEAST) {
            return cliff(values, rank, edge);
        }
        left -= value * value;
    }
    values.len()
}

/// The number of leading singular values of an update that noise in its factors does not explain.
///
/// An update of rank R has just R values, so noise in it is that of a `size` × R matrix (the longer side of the weight,
/// and the R coordinates that the factors have), whose values lie between s·(√size − √R) and s·(√size + √R): all close
/// to one another, as the values of a factor are that training hardly moved. What is above the upper edge is more than
/// that; s² is that of what is left when the values above are taken away, as in [`above_noise`].
pub fn above_factor_noise(values: &[f64], size: usize) -> usize {
    let energy = values.iter().map(|value| value * value).sum();
    above_noise(values, energy, size.max(values.len()), values.len())
}

/// Noise that is uneven leaves some values above its edge, but close to it: it begins at the first
/// cliff that ends there, else at the last steep step.
fn cliff(values: &[f64], above: usize, edge: f64) -> usize {
    let mut steps = values.windows(2).take(above).enumerate().filter_map(|(at, pair)| match pair {
        [high, low] if *low <= UNEVEN * edge && *high >= STEEP * low => Some((at + 1, high / low)),
        _ => None,
    });
    let first = steps.clone().find(|(_, step)| *step >= CLIFF);
    first.or(steps.next_back()).map_or(above, |(rank, _)| rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_noise(signal: &[f64], noise: f64, size: usize) -> usize {
        // The quarter circle's quantiles are near enough to linear for a test.
        let edge = noise * 2.0 * (size as f64).sqrt();
        let tail = (0..size - signal.len()).map(|at| edge * (1.0 - at as f64 / size as f64));
        let mut values: Vec<f64> = signal.iter().copied().chain(tail).collect();
        let energy =
            signal.iter().map(|v| v * v).sum::<f64>() + noise * noise * (size * size) as f64;
        values.truncate(signal.len() + 16);
        above_noise(&values, energy, size, size)
    }

    #[test]
    fn signal_above_noise_is_counted() {
        assert_eq!(with_noise(&[10.0, 5.0, 3.0], 0.01, 256), 3);
        assert_eq!(with_noise(&[1.0; 8], 1e-6, 256), 8);
        assert_eq!(with_noise(&[], 0.5, 256), 0);
    }

    #[test]
    fn uneven_noise_is_not_counted() {
        let rank = |leading: &[f64]| {
            let tail = [1.3, 1.2, 1.12, 1.08, 0.9, 0.85, 0.8];
            let values: Vec<f64> = leading.iter().chain(&tail).copied().collect();
            let signal: f64 = leading.iter().map(|value| value * value).sum();
            above_noise(&values, signal + 256.0 * 256.0 * 0.03f64.powi(2), 256, 256)
        };
        assert_eq!(rank(&[9.0, 5.0, 2.1]), 2);
        assert_eq!(rank(&[9.0, 5.0, 3.2, 2.1]), 4);
        assert_eq!(rank(&[9.0, 5.0]), 2);
    }

    #[test]
    fn noise_in_factors_is_told_from_what_they_learnt() {
        // Gaussian noise of 256 × 16 beside three directions: the quantiles of its quarter circle are nearly linear.
        let (edge, least) = (16.0 + 4.0, 16.0 - 4.0);
        let noise = (0..13).map(|at| edge - (edge - least) * f64::from(at) / 12.0);
        let values: Vec<f64> = [90.0, 60.0, 45.0].into_iter().chain(noise.clone()).collect();
        assert_eq!(above_factor_noise(&values, 256), 3);
        assert_eq!(above_factor_noise(&noise.collect::<Vec<_>>(), 256), 0);
        assert_eq!(above_factor_noise(&[], 256), 0);
        assert_eq!(above_factor_noise(&[3.0], 1), 0);
    }

    #[test]
    fn an_exact_matrix_has_its_rank() {
        assert_eq!(above_noise(&[2.0, 1.0, 1e-9, 1e-9], 5.0, 64, 64), 2);
        assert_eq!(above_noise(&[0.0; 4], 0.0, 64, 64), 0);
    }
}
