//! Rotations of the outputs, stored as `oft_blocks`: LyCORIS' Diag-OFT and BOFT (`modules/diag_oft.py`,
//! `modules/boft.py`) and the OFT of kohya's scripts (`networks/oft.py`).
//!
//! A block B makes Q = B − Bᵀ and R = (I + Q)·(I − Q)⁻¹. Diag-OFT turns each block of outputs by Rᵀ;
//! BOFT has several stages of R, each between a butterfly's permutation and its inverse. Afterwards
//! outputs may be scaled (`rescale`).
//!
//! Alpha is no scale but a constraint: while they train, ‖Q‖ over all blocks is kept to alpha · outputs.
//! (ComfyUI keeps it to alpha, which is not what was trained.) In kohya's scripts 0 allows no rotation
//! at all, in LyCORIS any.

use std::sync::Arc;

use super::prelude::*;
use crate::math::forms::chain::cayley;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family = Family {
    name: "diag-oft",
    signs: &[Part::Named("oft_blocks")],
    parts: &[Part::Alpha, Part::Named("rescale")],
    build,
};

/// The prefix that kohya's own OFT has.
const KOHYA: &str = "oft_unet_";

#[derive(Debug)]
struct Rotations {
    tensor: String,
    rescale: Option<String>,
    /// Stages of a butterfly; none for plain blocks.
    stages: Option<usize>,
    blocks: usize,
    size: usize,
    constraint: Constraint,
}

#[derive(Debug, Clone, Copy)]
enum Constraint {
    None,
    /// LyCORIS: to at most this, if it is more.
    Lycoris(f64),
    /// kohya: to at most this, 1e-8 added on both sides of the quotient.
    Kohya(f64),
}

impl Constraint {
    /// What a module's alpha means by its name.
    fn of(name: &str, alpha: Option<f64>, outputs: usize) -> Self {
        match alpha.map(|alpha| alpha * outputs as f64) {
            Some(most) if name.starts_with(KOHYA) => Self::Kohya(most),
            Some(most) if most > 0.0 => Self::Lycoris(most),
            _ => Self::None,
        }
    }

    /// What Q is multiplied by.
    fn factor(self, norm: f64) -> f64 {
        match self {
            Self::Lycoris(most) if norm + 1e-8 > most => most / (norm + 1e-8),
            Self::Kohya(most) => (norm.min(most) + 1e-8) / (norm + 1e-8),
            Self::None | Self::Lycoris(_) => 1.0,
        }
    }
}

impl Form for Rotations {
    fn tensors(&self) -> Vec<&str> {
        [Some(&self.tensor), self.rescale.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::rotation("LyCORIS' and kohya's rotate outputs, PEFT's inputs"))
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let (size, outputs) = (self.size, self.blocks * self.size);
        let count = self.stages.unwrap_or(1) * outputs * size;
        let stored = read_f64(find(file, &self.tensor)?, 0, count)?;
        let skew = stored.chunks(size * size).map(|block| {
            let block = Matrix::from_row_slice(size, size, block);
            &block - block.transpose()
        });
        let skew: Vec<Matrix> = skew.collect();
        let norm = skew.iter().map(Matrix::norm_squared).sum::<f64>().sqrt();
        let factor = self.constraint.factor(norm);
        // Diag-OFT's Rᵀ is the Cayley transform of Q, BOFT's R that of −Q.
        let sign = if self.stages.is_some() { -factor } else { factor };
        let rotations: Vec<Matrix> = skew.iter().map(|q| cayley(&(q * sign))).collect();
        let stages = rotations.chunks(self.blocks).enumerate().map(|(stage, blocks)| {
            let order = self.stages.map(|_| order(outputs, size, stage));
            Stage::Blocks { blocks: blocks.to_vec(), order }
        });
        // The first stage is applied to the weight first: it stands last in the product.
        let mut chain: Vec<Stage> = stages.rev().collect();
        if let Some(rescale) = &self.rescale {
            let values = read_f64(find(file, rescale)?, 0, outputs)?;
            chain.insert(0, Stage::Diagonal(values));
        }
        Ok(Update::Transform(Transform::left(Chain::new(chain))))
    }
}

/// What the constraint multiplies Q by, of blocks of `size` squared values.
pub(crate) fn held(
    name: &str,
    (alpha, outputs): (Option<f64>, usize),
    (blocks, size): (&[f64], usize),
) -> f64 {
    let skew = blocks.chunks(size * size).map(|block| {
        let block = Matrix::from_row_slice(size, size, block);
        (&block - block.transpose()).norm_squared()
    });
    Constraint::of(name, alpha, outputs).factor(skew.sum::<f64>().sqrt())
}

/// The outputs as (group, 2, k) with k = 2ˢ·size/2, read as (group, k, 2).
fn order(outputs: usize, size: usize, stage: usize) -> Vec<usize> {
    let k = (size / 2) << stage;
    (0..outputs).map(|at| at / (2 * k) * (2 * k) + at % 2 * k + at / 2 % k).collect()
}

fn build(source: &Source<'_>) -> Result<Module> {
    let tensor = source.required("oft_blocks", "rescale")?;
    let shape = source.view(tensor)?.spec.shape.as_slice();
    let (stages, blocks, size) = match *shape {
        [blocks, size, other] if size == other => (None, blocks, size),
        [stages, blocks, size, other] if size == other && butterfly(stages, blocks, size) => {
            (Some(stages), blocks, size)
        }
        _ => {
            let expected = "[blocks, size, size], or stages of an even size of them".to_owned();
            return Err(ErrorKind::BadShape { expected, found: shape.to_vec() }).in_tensor(tensor);
        }
    };
    let outputs = blocks * size;
    let rescale = source.named("rescale");
    if let Some(rescale) = rescale {
        super::check_length(source.view(rescale)?, outputs)?;
    }
    let alpha = source.alpha()?;
    let kohya = source.name.starts_with(KOHYA);
    let constraint = Constraint::of(source.name, alpha, outputs);
    Ok(Module {
        name: source.name.to_owned(),
        family: match (stages, kohya) {
            (Some(_), _) => "boft",
            (None, true) => "oft",
            (None, false) => FAMILY.name,
        },
        kind: Kind::Linear,
        rank: blocks,
        inputs: 0,
        outputs,
        scale: Scale::of_family(1.0, alpha),
        form: Arc::new(Rotations {
            tensor: tensor.to_owned(),
            rescale: rescale.map(str::to_owned),
            stages,
            blocks,
            size,
            constraint,
        }),
        bias: None,
        magnitude: None,
    })
}

/// Whether the outputs divide into the groups of every stage.
fn butterfly(stages: usize, blocks: usize, size: usize) -> bool {
    let last = stages.saturating_sub(1) as u32;
    let group = 1usize.checked_shl(last).and_then(|groups| groups.checked_mul(size));
    let outputs = blocks.checked_mul(size);
    size.is_multiple_of(2)
        && group.zip(outputs).is_some_and(|(group, outputs)| outputs.is_multiple_of(group))
}
