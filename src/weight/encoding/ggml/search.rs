//! How ggml looks for the scales of a group (`ggml-quants.c`: `make_qx_quants`, `make_q3_quants`, `make_qkx2_quants`, and
//! the search of `quantize_row_iq4_nl_impl`): the same operations on f32 in the same order, as a build without fused
//! multiplication does them, so that the same bytes come out.

/// An element's random number, if it is rounded by one.
pub(super) type Draw<'a> = &'a dyn Fn(usize) -> Option<f32>;

/// A group whose largest magnitude is below it is all zero.
pub(super) const LEAST: f32 = 1e-15;

/// The nearest whole number, ties to even, by the bits of a sum: what ggml does, also beyond the range that it is for.
#[inline(always)]
pub(super) fn nearest(value: f32) -> i32 {
    let bits = (value + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff).cast_signed() - 0x0040_0000
}

/// The first of the values with the largest magnitude, and that.
pub(super) fn extreme(values: &[f32]) -> (f32, f32) {
    let larger = |found: (f32, f32), value: &f32| {
        if value.abs() > found.1 { (*value, value.abs()) } else { found }
    };
    values.iter().fold((0.0, 0.0), larger)
}

/// Sums that a scale is made of: Σ w·x·l and Σ w·l².
fn sums(values: &[f32], code: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut product, mut square) = (0.0_f32, 0.0_f32);
    for value in values {
        let (code, weight) = (code(*value), value * value);
        product += weight * value * code;
        square += weight * code * code;
    }
    (product, square)
}

/// A scale for codes from −`half` to `half` − 1, weighted by squares, and the codes plus `half`.
pub(super) fn symmetric(values: &[f32], half: i32, codes: &mut [u8]) -> f32 {
    let (extreme, size) = extreme(values);
    if size < LEAST {
        codes.fill(0);
        return 0.0;
    }
    let code = |inverse: f32, value: f32| nearest(inverse * value).clamp(-half, half - 1);
    let put = |inverse: f32, codes: &mut [u8]| {
        let pairs = codes.iter_mut().zip(values);
        pairs.for_each(|(slot, value)| *slot = (code(inverse, *value) + half) as u8);
    };
    let inverse = -half as f32 / extreme;
    put(inverse, codes);
    let (product, square) = sums(values, |value| code(inverse, value) as f32);
    let mut scale = if square == 0.0 { 0.0 } else { product / square };
    let mut best = scale * product;
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = -(half as f32 + 0.1 * step as f32) / extreme;
        let (product, square) = sums(values, |value| code(inverse, value) as f32);
        if square > 0.0 && product * product > best * square {
            put(inverse, codes);
            scale = product / square;
            best = scale * product;
        }
    }
    scale
}

/// A scale for three bits: codes are changed one at a time while that brings them nearer; they come out plus 4.
pub(super) fn refined(values: &[f32], codes: &mut [u8]) -> f32 {
    let (extreme, size) = extreme(values);
    if size < LEAST {
        codes.fill(0);
        return 0.0;
    }
    let inverse = -4.0 / extreme;
    let mut levels = [0.0_f32; 16];
    for (level, value) in levels.iter_mut().zip(values) {
        *level = nearest(inverse * value).clamp(-4, 3) as f32;
    }
    let (mut product, mut square) = (0.0_f32, 0.0_f32);
    for (level, value) in levels.iter().zip(values) {
        let weight = value * value;
        product += weight * value * level;
        square += weight * level * level;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (level, value) in levels.iter_mut().zip(values) {
            let weight = value * value;
            let mut others = product - weight * value * *level;
            if others <= 0.0 {
                continue;
            }
            let mut squares = square - weight * *level * *level;
            let new = nearest(value * squares / others).clamp(-4, 3) as f32;
            if new == *level {
                continue;
            }
            others += weight * value * new;
            squares += weight * new * new;
            if squares > 0.0 && others * others * square > product * product * squares {
                (*level, product, square, changed) = (new, others, squares, true);
            }
        }
        if !changed {
            break;
        }
    }
    codes.iter_mut().zip(levels).for_each(|(slot, level)| *slot = (level + 4.0) as u8);
    if square > 0.0 { product / square } else { 0.0 }
}

/// How scales with a least value are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// The largest code.
    pub(super) most: i32,
    /// Where the steps of the search begin, in codes.
    pub(super) from: f32,
    /// How many there are, each of a tenth.
    pub(super) steps: i32,
    /// Whether errors count by their size, and not by their square.
    pub(super) by_size: bool,
}

impl Search {
    fn code(self, inverse: f32, least: f32, value: f32) -> i32 {
        nearest(inverse * (value - least)).clamp(0, self.most)
    }

    /// A scale and what is taken off (the least value with another sign) for weighted values, and the codes.
    pub(super) fn run(self, values: &[f32], weights: &[f32], codes: &mut [u8]) -> (f32, f32) {
        let (first, rest) = (values[0], values.iter().skip(1).zip(weights.iter().skip(1)));
        let (mut least, mut most) = (first, first);
        let (mut all, mut sum) = (weights[0], weights[0] * first);
        for (value, weight) in rest {
            least = if *value < least { *value } else { least };
            most = if *value > most { *value } else { most };
            all += weight;
            sum += weight * value;
        }
        least = if least > 0.0 { 0.0 } else { least };
        if most == least {
            codes.fill(0);
            return (0.0, -least);
        }
        let inverse = self.most as f32 / (most - least);
        let mut scale = 1.0 / inverse;
        for (slot, value) in codes.iter_mut().zip(values) {
            *slot = self.code(inverse, least, *value) as u8;
        }
        let mut best = self.error(values, weights, codes, (scale, least));
        let mut tried = [0_u8; 32];
        let tried = &mut tried[..values.len()];
        for step in 0..=self.steps {
            let inverse = (self.from + 0.1 * step as f32 + self.most as f32) / (most - least);
            let fit = self.fit((values, weights), (inverse, least), (all, sum), tried);
            let Some(fit) = fit else { continue };
            let error = self.error(values, weights, tried, fit);
            if error < best {
                codes.copy_from_slice(tried);
                // The next steps are from there.
                (best, scale, least) = (error, fit.0, fit.1);
            }
        }
        (scale, -least)
    }

    /// The codes at a scale, and the scale and least value that fit these best.
    fn fit(
        self,
        (values, weights): (&[f32], &[f32]),
        (inverse, least): (f32, f32),
        (all, sum): (f32, f32),
        codes: &mut [u8],
    ) -> Option<(f32, f32)> {
        let (mut levels, mut squares, mut products) = (0.0_f32, 0.0_f32, 0.0_f32);
        for ((slot, value), weight) in codes.iter_mut().zip(values).zip(weights) {
            let code = self.code(inverse, least, *value);
            *slot = code as u8;
            let level = code as f32;
            levels += weight * level;
            squares += weight * level * level;
            products += weight * level * value;
        }
        let determinant = all * squares - levels * levels;
        (determinant > 0.0).then(|| {
            let least = (squares * sum - levels * products) / determinant;
            match least > 0.0 {
                true => (products / squares, 0.0),
                false => ((all * products - sum * levels) / determinant, least),
            }
        })
    }

    fn error(
        self,
        values: &[f32],
        weights: &[f32],
        codes: &[u8],
        (scale, least): (f32, f32),
    ) -> f32 {
        let mut error = 0.0_f32;
        for ((value, weight), code) in values.iter().zip(weights).zip(codes) {
            let off = scale * f32::from(*code) + least - value;
            error += weight * if self.by_size { off.abs() } else { off * off };
        }
        error
    }
}

/// A scale for numbers of a table, weighted by squares; `place` finds the nearest number.
pub(super) fn of_table(values: &[f32], table: &[f32; 16], place: impl Fn(f32) -> usize) -> f32 {
    let (extreme, size) = extreme(values);
    if size < LEAST {
        return 0.0;
    }
    let at = |inverse: f32| {
        let (mut product, mut square) = (0.0_f32, 0.0_f32);
        for value in values {
            let (number, weight) = (table[place(inverse * value)], value * value);
            product += weight * number * value;
            square += weight * number * number;
        }
        (product, square)
    };
    let (product, square) = at(1.0 / (-extreme / table[0]));
    let mut scale = if square > 0.0 { product / square } else { 0.0 };
    let mut best = scale * product;
    for step in -7..=7 {
        let (product, square) = at((step as f32 + table[0]) / extreme);
        if square > 0.0 && product * product > best * square {
            scale = product / square;
            best = scale * product;
        }
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_the_nearest_and_ties_even() {
        let found = [0.5, 1.5, -0.5, -1.5, 2.49, -7.51, 4_000_000.4].map(nearest);
        assert_eq!(found, [0, 2, 0, -2, 2, -8, 4_000_000]);
    }

    #[test]
    fn exact_grids_are_found() {
        let values: Vec<f32> = (0..16).map(|at| (at as f32 - 8.0) * 0.25).collect();
        let mut codes = [0; 16];
        assert!((symmetric(&values, 8, &mut codes).abs() - 0.25).abs() < 1e-6);
        let search = Search { most: 15, from: -1.0, steps: 20, by_size: false };
        let (scale, least) = search.run(&values, &[1.0; 16], &mut codes);
        assert!((scale - 0.25).abs() < 1e-6 && (least - 2.0).abs() < 1e-6, "{scale} {least}");
        assert!(codes.iter().zip(0..16).all(|(code, at)| i32::from(*code) == at));
    }
}
