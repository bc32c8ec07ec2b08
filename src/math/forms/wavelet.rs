//! One step of the inverse wavelet transform in two dimensions, of single coefficients.

use super::row_matrix::Element;

/// The synthesis filters of the low band (Daubechies, symlets, coiflets), a line a wavelet: the values that PEFT 0.21.2
/// computes with (`tuners/waveft/wavelet.py`). Its coif4 is not the orthogonal one, which sums to √2; adapters were
/// trained with what it is.
const TABLE: &str = include_str!("wavelets.txt");

/// A wavelet's synthesis filters.
#[derive(Debug, Clone)]
pub struct Wavelet {
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Wavelet {
    /// By its name: `db1`, `sym4`, `coif2`.
    pub fn named(name: &str) -> Option<Self> {
        let line = TABLE.lines().find(|line| line.split(' ').next() == Some(name))?;
        let low: Vec<f64> = line.split(' ').skip(1).map_while(|text| text.parse().ok()).collect();
        let sign = |at: usize| if at.is_multiple_of(2) { 1.0 } else { -1.0 };
        let high = low.iter().rev().enumerate().map(|(at, value)| sign(at) * value).collect();
        Some(Self { low, high })
    }

    /// How many coefficients there are of `size` samples: so many more as the filter reaches beyond the ends, and an
    /// even number.
    pub fn coefficients(&self, size: usize) -> usize {
        (size + self.low.len() - 2).next_multiple_of(2)
    }

    /// The elements of a rows × columns matrix that coefficients make. The coefficients of the low bands come first,
    /// along either side; a coefficient's place is its row and column among them.
    pub fn synthesise(
        &self,
        (rows, columns): (usize, usize),
        coefficients: impl Iterator<Item = ((usize, usize), f64)>,
    ) -> Vec<Element> {
        let half = (self.coefficients(rows) / 2, self.coefficients(columns) / 2);
        let mut elements = Vec::new();
        for ((row, column), value) in coefficients {
            let (row_band, column_band) = (row / half.0, column / half.1);
            // PEFT takes the two mixed bands one for the other.
            let (along_rows, along_columns) = (self.filter(column_band), self.filter(row_band));
            let across = self.reach(along_columns, column % half.1, columns);
            for (row, a) in self.reach(along_rows, row % half.0, rows) {
                elements.extend(across.iter().map(|(column, b)| (row, *column, value * a * b)));
            }
        }
        elements
    }

    fn filter(&self, band: usize) -> &[f64] {
        if band == 0 { &self.low } else { &self.high }
    }

    /// The samples that one coefficient reaches, and how much of it each gets.
    fn reach(&self, filter: &[f64], at: usize, size: usize) -> Vec<(u32, f64)> {
        let cut = self.low.len() - 2;
        let places = filter.iter().enumerate().filter_map(|(step, value)| {
            let place = (2 * at + step).checked_sub(cut).filter(|place| *place < size)?;
            Some((u32::try_from(place).ok()?, *value))
        });
        places.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_orthonormal_to_their_even_shifts() {
        let names = TABLE.lines().filter_map(|line| line.split(' ').next());
        for name in names.filter(|name| *name != "coif4") {
            let wavelet = Wavelet::named(name).expect(name);
            let length = wavelet.low.len();
            for shift in (0..length).step_by(2) {
                let inner = |a: &[f64], b: &[f64]| -> f64 {
                    a.iter().zip(b.iter().skip(shift)).map(|(a, b)| a * b).sum()
                };
                let expected = f64::from(u8::from(shift == 0));
                assert!((inner(&wavelet.low, &wavelet.low) - expected).abs() < 1e-10, "{name}");
                assert!((inner(&wavelet.high, &wavelet.high) - expected).abs() < 1e-10, "{name}");
                assert!(inner(&wavelet.low, &wavelet.high).abs() < 1e-10, "{name}");
            }
        }
        assert!(Wavelet::named("coif5").is_none() && Wavelet::named("").is_none());
    }
}
