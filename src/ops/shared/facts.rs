//! What adapters that are to be put together show of themselves, module by module: what the advice looks at.

use super::advice::Facts;
use crate::math::Matrix;
use crate::math::linalg::grams::Grams;
use crate::math::linalg::spill::Spill;

/// One module of several adapters, at their weights.
#[derive(Debug, Clone)]
pub(in crate::ops) struct ModuleFacts {
    /// What they write over each other.
    pub(in crate::ops) spill: Spill,
    /// ⟨Dᵢ, Dⱼ⟩ of all adapters; 0 of those that have no such module.
    gram: Matrix,
    /// Whether two of them have it.
    shared: bool,
    convolution: bool,
}

impl ModuleFacts {
    /// Of weighted deltas, by the inner products of their factors and the numbers of their adapters.
    ///
    /// # Panics
    /// If a number is not below `adapters`, or there are more deltas than numbers.
    #[track_caller]
    pub(in crate::ops) fn new(
        adapters: usize,
        numbers: &[usize],
        grams: &Grams,
        convolution: bool,
    ) -> Self {
        let mut gram = Matrix::zeros(adapters, adapters);
        for (at, a) in numbers.iter().enumerate().take(grams.count()) {
            for (other, b) in numbers.iter().enumerate().take(grams.count()).skip(at) {
                let inner = grams.inner(at, other);
                (gram[(*a, *b)], gram[(*b, *a)]) = (inner, inner);
            }
        }
        let writes = numbers.iter().filter(|at| gram[(**at, **at)] > 0.0).count();
        let spill = Spill::of_grams(adapters, numbers, grams);
        Self { spill, gram, shared: writes > 1, convolution }
    }

    /// All modules together: what is known of so many adapters, and what they write over each other.
    pub(in crate::ops) fn all<'a>(
        adapters: usize,
        modules: impl IntoIterator<Item = &'a Self>,
    ) -> (Facts, Spill) {
        let (mut spill, mut gram) = (Spill::new(adapters), Matrix::zeros(adapters, adapters));
        let (mut shared, mut convolutions, mut count) = (false, 0, 0);
        for module in modules {
            spill = spill.plus(&module.spill);
            gram += &module.gram;
            shared |= module.shared;
            convolutions += usize::from(module.convolution);
            count += 1;
        }
        let mut cosine = f64::NEG_INFINITY;
        for a in 0..adapters {
            for b in a + 1..adapters {
                let norms = (gram[(a, a)] * gram[(b, b)]).sqrt();
                cosine = if norms > 0.0 { cosine.max(gram[(a, b)] / norms) } else { cosine };
            }
        }
        let facts = Facts {
            adapters: (0..adapters).filter(|at| gram[(*at, *at)] > 0.0).count(),
            spill: spill.mean().filter(|_| shared),
            cosine,
            convolutions: 2 * convolutions > count,
        };
        (facts, spill)
    }
}
