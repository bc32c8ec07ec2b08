//! OFT (Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>) as PEFT has it since 0.14
//! (`tuners/oft/layer.py`): W · Rᵀ with rotations R of blocks of the inputs. A block is stored as the
//! upper triangle of a skew matrix Q; R is (I − Q)·(I + Q)⁻¹, or with `use_cayley_neumann` the first
//! terms of a series, I + 2Q + 2Q² + … + Qⁿ, whose sign is the other way round. `coft` bounds ‖Q‖, and
//! `block_share` repeats one block.

use super::prelude::*;
use crate::math::forms::chain::cayley;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family =
    Family { name: "oft", signs: &[Part::Named("oft_R")], parts: &[], build };

#[derive(Debug)]
struct Oft {
    tensor: String,
    /// How many blocks are stored, and the size of each.
    blocks: usize,
    size: usize,
    /// One block stands for all.
    shared: bool,
    /// Terms of the series; none for the Cayley transform itself.
    terms: Option<usize>,
    /// The most that ‖Q‖ of a block may be, before it is shared out.
    bound: Option<f64>,
}

impl Form for Oft {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.tensor]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::rotation("PEFT's rotates inputs, LyCORIS' outputs"))
    }

    fn load(&self, file: &Checkpoint, (_, inputs): (usize, usize)) -> Result<Update> {
        let count = self.size * (self.size - 1) / 2;
        let stored = read_f64(find(file, &self.tensor)?, 0, self.blocks * count)?;
        let turned = stored.chunks(count.max(1)).map(|triangle| {
            let mut q = skew(triangle, self.size);
            if let Some(bound) = self.bound {
                let bound = bound / (self.blocks as f64).sqrt();
                let norm = q.norm();
                if norm > bound {
                    q *= bound / norm;
                }
            }
            self.terms.map_or_else(|| cayley(&q), |terms| series(&q, terms)).transpose()
        });
        let mut blocks: Vec<Matrix> = turned.collect();
        if let (true, Some(block)) = (self.shared, blocks.first()) {
            blocks = vec![block.clone(); inputs / self.size];
        }
        let stage = Stage::Blocks { blocks, order: None };
        Ok(Update::Transform(Transform::right(Chain::new(vec![stage]))))
    }

    fn check(&self, (outputs, inputs): (usize, usize)) -> Result<()> {
        if inputs.is_multiple_of(self.size) {
            return Ok(());
        }
        let expected = format!("inputs in steps of {}", self.size);
        Err(ErrorKind::BadShape { expected, found: vec![outputs, inputs] }.into())
    }
}

/// The skew matrix with this upper triangle, row by row.
fn skew(triangle: &[f64], size: usize) -> Matrix {
    let mut q = Matrix::zeros(size, size);
    let places = (0..size).flat_map(|row| (row + 1..size).map(move |column| (row, column)));
    for ((row, column), value) in places.zip(triangle) {
        q[(row, column)] = *value;
        q[(column, row)] = -value;
    }
    q
}

/// I + 2Q + … + 2Qⁿ⁻² + Qⁿ⁻¹ for n terms, with the exceptions PEFT's loop makes below five.
fn series(q: &Matrix, terms: usize) -> Matrix {
    let mut sum = Matrix::identity(q.nrows(), q.nrows());
    if terms > 1 {
        sum += q * 2.0;
    }
    if terms > 2 {
        let mut power = q * q;
        sum += &power * 2.0;
        for _ in 3..terms - 1 {
            power *= q;
            sum += &power * 2.0;
        }
        sum += power * q;
    }
    sum
}

fn build(source: &Source<'_>) -> Result<Module> {
    let tensor = source.required("oft_R", "a module")?;
    let (blocks, count, rest) = source.matrix(tensor)?;
    source.expect(tensor, blocks, count, rest.get(..0).unwrap_or_default())?;
    // count = size·(size − 1)/2.
    let size = (1 + 8 * count).isqrt().div_ceil(2);
    if size * (size - 1) / 2 != count {
        let expected = "[blocks, size·(size − 1)/2]".to_owned();
        return Err(ErrorKind::BadShape { expected, found: vec![blocks, count] }).in_tensor(tensor);
    }
    let Some(config) = source.config else { return Err(ErrorKind::UnknownScale.into()) };
    let has = |field: &str| config.document.contains_key(field);
    if !has("oft_block_size") || !has("use_cayley_neumann") {
        let reason = "it is of a PEFT before 0.18, whose OFT is another one".to_owned();
        return Err(ErrorKind::BadConfig { reason }.into());
    }
    let terms = config.number("num_cayley_neumann_terms")?.unwrap_or(5.0);
    let shared = config.flag("block_share") && blocks == 1;
    Ok(Module {
        rank: blocks,
        inputs: if shared { 0 } else { blocks * size },
        ..source.linear(
            &FAMILY,
            Oft {
                tensor: tensor.to_owned(),
                blocks,
                size,
                shared,
                terms: config.flag("use_cayley_neumann").then_some(terms as usize),
                bound: match config.flag("coft") {
                    true => Some(config.number("eps")?.unwrap_or(6e-5)),
                    false => None,
                },
            },
        )
    })
}
