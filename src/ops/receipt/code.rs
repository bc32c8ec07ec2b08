//! Blocks of steps as bytes, and back.

use crate::format::coder::{Decoder, Encoder, Model};
use crate::math::ElementType;
use crate::math::forms::residual::{Guess, fineness, step, steps};

/// Elements of a block, about: blocks are coded on their own, so that threads can share a tensor.
const BLOCK: usize = 1 << 18;
/// Different finenesses.
const KINDS: usize = 16;
/// Binary digits of a number of steps.
const DIGITS: usize = 64;

/// What is known of the steps where places are so much finer.
#[derive(Clone, Copy)]
struct Models {
    zero: Model,
    negative: Model,
    longer: [Model; DIGITS],
}

impl Default for Models {
    fn default() -> Self {
        let model = Model::default();
        Self { zero: model, negative: model, longer: [model; DIGITS] }
    }
}

/// Rows of one block of a tensor with so many columns.
pub(super) fn block_rows(columns: usize) -> usize {
    (BLOCK / columns.max(1)).max(1)
}

/// Codes the elements of one tensor as steps from those of another, less a guess of their difference.
#[derive(Debug, Clone)]
pub(super) struct StepCoder {
    pub(super) from: ElementType,
    pub(super) to: ElementType,
    pub(super) columns: usize,
    pub(super) guess: Guess,
}

impl StepCoder {
    /// (the merged values, the base's bytes as they are guessed) of whole rows from `first` on.
    fn guessed(&self, first: usize, merged: &[u8]) -> (Vec<f64>, Vec<u8>) {
        let count = merged.len() / self.from.size();
        let mut values = vec![0.0; count];
        self.from.decode(merged, &mut values);
        let known = values.clone();
        self.guess.subtract(first, self.columns, &mut values);
        let mut bytes = vec![0; count * self.to.size()];
        self.to.encode(&values, &mut bytes);
        (known, bytes)
    }

    fn kinds(&self, merged: &[f64], guess: &[u8]) -> Vec<usize> {
        let mut guessed = vec![0.0; merged.len()];
        self.to.decode(guess, &mut guessed);
        merged.iter().zip(guessed).map(|(merged, guess)| fineness(*merged, guess)).collect()
    }

    /// Codes the base's rows from `first` on.
    pub(super) fn encode(&self, first: usize, merged: &[u8], base: &[u8]) -> Vec<u8> {
        let (values, guess) = self.guessed(first, merged);
        let kinds = self.kinds(&values, &guess);
        let mut models = [Models::default(); KINDS];
        let mut encoder = Encoder::default();
        for (kind, steps) in kinds.into_iter().zip(steps(self.to, base, &guess)) {
            let Some(models) = models.get_mut(kind) else { continue };
            encoder.bit(&mut models.zero, steps != 0);
            if steps == 0 {
                continue;
            }
            encoder.bit(&mut models.negative, steps < 0);
            let size = steps.unsigned_abs();
            let digits = size.ilog2();
            for (at, model) in models.longer.iter_mut().enumerate().take(digits as usize + 1) {
                encoder.bit(model, at < digits as usize);
            }
            encoder.raw(size, digits);
        }
        encoder.finish()
    }

    /// The base's rows from `first` on.
    pub(super) fn decode(&self, first: usize, merged: &[u8], codes: &[u8]) -> Vec<u8> {
        let (values, mut guess) = self.guessed(first, merged);
        let kinds = self.kinds(&values, &guess);
        let mut models = [Models::default(); KINDS];
        let mut decoder = Decoder::new(codes);
        for (kind, element) in kinds.into_iter().zip(guess.chunks_exact_mut(self.to.size())) {
            let Some(models) = models.get_mut(kind) else { continue };
            if !decoder.bit(&mut models.zero) {
                continue;
            }
            let negative = decoder.bit(&mut models.negative);
            let mut digits = 0;
            for model in &mut models.longer {
                if !decoder.bit(model) {
                    break;
                }
                digits += 1;
            }
            let digits = digits.min(63);
            let size = (1u64 << digits | decoder.raw(digits)).cast_signed();
            step(self.to, element, if negative { size.wrapping_neg() } else { size });
        }
        guess
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::math::{LowRank, Matrix};

    proptest! {
        #[test]
        fn any_tensor_is_told_by_any_other(
            rows in 1usize..6, columns in 1usize..20, rank in 0usize..3, words in prop::collection::vec(any::<u64>(), 240),
        ) {
            use ElementType::{Bf16, F16, F32, F64};
            let factors = LowRank::new(
                Matrix::from_fn(rows, rank, |row, at| (row + at) as f64 - 1.5),
                Matrix::from_fn(rank, columns, |at, column| column as f64 * 0.1 - at as f64),
            );
            let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for (from, to) in [(Bf16, Bf16), (F16, F32), (F32, Bf16), (F64, F64)] {
                let coder = StepCoder { from, to, columns, guess: Guess::new(&factors) };
                let merged = &words[..rows * columns * from.size()];
                let base = &words[words.len() - rows * columns * to.size()..];
                let codes = coder.encode(0, merged, base);
                prop_assert_eq!(coder.decode(0, merged, &codes), base);
            }
        }
    }
}
