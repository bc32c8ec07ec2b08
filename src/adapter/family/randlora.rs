//! RandLoRA (Albert et al. 2025, <https://arxiv.org/abs/2502.00987>): a sum over random bases that all modules share,
//! Σ B[:, b, k] · (λ[k, b] · γ[b, :] ⊙ A[k, :]), A taking the smaller side of the weight and B the larger, each as much of
//! the bases as the module is large; times alpha / r (PEFT `tuners/randlora/layer.py`). PEFT flattens the pairs (k, b) of
//! A row by row and those of B column by column, and so pairs other levels than the paper; it is repeated here.
//!
//! Bases that were not saved would have to be made by PyTorch's random numbers; such a file is refused.

use super::prelude::*;

const LAMBDA: &str = "randlora_lambda";
const GAMMA: &str = "randlora_gamma";

pub(super) static FAMILY: Family = Family {
    name: "randlora",
    signs: &[Part::Named(LAMBDA), Part::Named(GAMMA)],
    parts: &[Part::Named("randlora_A"), Part::Named("randlora_B")],
    build,
};

#[derive(Debug)]
struct RandLora {
    lambda: String,
    gamma: String,
    /// A, rank × 1 × (the smaller side of any module).
    small: String,
    /// B, (the larger side of any module) × bases × rank.
    large: String,
    rank: usize,
    bases: usize,
    /// The smaller side of the weight.
    least: usize,
    /// Sizes of the shared tensors: of A the last, of B the first two.
    shared: (usize, usize, usize),
}

impl Form for RandLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.lambda, &self.gamma, &self.small, &self.large]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank * self.bases)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let (rank, bases, least) = (self.rank, self.bases, self.least);
        let (width, high, depth) = self.shared;
        let read = |name: &str, count| read_f64(find(file, name)?, 0, count);
        let lambda = read(&self.lambda, rank * bases)?;
        let gamma = read(&self.gamma, bases * least)?;
        let small = read(&self.small, rank * width)?;
        let large = read(&self.large, high * depth * rank)?;
        let at = |values: &[f64], place: usize| values.get(place).copied().unwrap_or(0.0);
        let narrow = Matrix::from_fn(rank * bases, least, |level, column| {
            let (k, base) = (level / bases, level % bases);
            at(&lambda, level) * at(&gamma, base * least + column) * at(&small, k * width + column)
        });
        let wide = Matrix::from_fn(outputs.max(inputs), rank * bases, |row, level| {
            at(&large, row * depth * rank + level)
        });
        let product = LowRank::new(wide, narrow);
        Ok(Update::LowRank(if least == inputs { product } else { product.transposed() }))
    }

    fn check(&self, (outputs, inputs): (usize, usize)) -> Result<()> {
        if outputs.min(inputs) == self.least && outputs.max(inputs) <= self.shared.1 {
            return Ok(());
        }
        let expected =
            format!("a smaller side of {} and a larger of at most {}", self.least, self.shared.1);
        Err(ErrorKind::BadShape { expected, found: vec![outputs, inputs] }.into())
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let shared = |part: &'static str| {
        let tensor = source.shared.get(&Part::Named(part));
        tensor.ok_or(ErrorKind::MissingFactor {
            present: LAMBDA,
            missing: "randlora_A and randlora_B: save the adapter with save_projection",
        })
    };
    let (small, large) = (shared("randlora_A")?, shared("randlora_B")?);
    // PEFT writes them once more beside every module.
    for (part, all) in [("randlora_A", small), ("randlora_B", large)] {
        if let Some(copy) = source.named(part)
            && !source.view(copy)?.same_bytes(source.view(all)?)?
        {
            return Err(FAMILY.stray(copy));
        }
    }
    let (lambda, gamma) = (source.required(LAMBDA, GAMMA)?, source.required(GAMMA, LAMBDA)?);
    let (rank, bases) = source.plain_matrix(lambda)?;
    let (_, least, _) = source.matrix(gamma)?;
    source.expect(gamma, bases, least, &[])?;
    let width = source.view(small)?.spec.shape.last().copied().unwrap_or(0);
    source.expect(small, rank, 1, &[width])?;
    let (high, depth, _) = source.matrix(large)?;
    source.expect(large, high, depth, &[rank])?;
    if width < least || depth < bases {
        let expected = format!("bases of {least} columns and {bases} parts or more");
        return Err(ErrorKind::BadShape { expected, found: vec![width, depth] }).in_tensor(large);
    }
    Ok(Module {
        rank,
        scale: source.scales.resolve(source.name, rank, source.alpha()?)?,
        ..source.linear(
            &FAMILY,
            RandLora {
                lambda: lambda.to_owned(),
                gamma: gamma.to_owned(),
                small: small.clone(),
                large: large.clone(),
                rank,
                bases,
                least,
                shared: (width, high, depth),
            },
        )
    })
}
