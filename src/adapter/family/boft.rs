//! BOFT (Liu et al. 2024, <https://arxiv.org/abs/2311.06243>) as PEFT has it (`tuners/boft/layer.py`):
//! diag(s) · W · B₁ᵀ · B₂ᵀ · …, each Bᵢ a rotation of blocks between a butterfly's permutation and its
//! inverse. A block A is stored whole; its rotation is the Cayley transform of (A − Aᵀ)/2.

use super::prelude::*;
use crate::math::forms::chain::cayley;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family = Family {
    name: "boft",
    signs: &[Part::Named("boft_R"), Part::Named("boft_s")],
    parts: &[],
    build,
};

#[derive(Debug)]
struct Boft {
    tensor: String,
    scales: String,
    stages: usize,
    blocks: usize,
    size: usize,
    outputs: usize,
}

impl Form for Boft {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.tensor, &self.scales]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::rotation("PEFT's rotates inputs, LyCORIS' outputs"))
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let (size, area) = (self.size, self.size * self.size);
        let stored = find(file, &self.tensor)?;
        let stages = (0..self.stages).map(|stage| {
            let all = self.blocks * area;
            let values = read_f64(stored, stage * all, all)?;
            let blocks = values.chunks(area).map(|block| {
                let block = Matrix::from_row_slice(size, size, block);
                cayley(&((&block - block.transpose()) * 0.5)).transpose()
            });
            Ok(Stage::Blocks { blocks: blocks.collect(), order: self.order(stage) })
        });
        let right = Chain::new(stages.collect::<Result<_>>()?);
        let scales = read_f64(find(file, &self.scales)?, 0, self.outputs)?;
        let left = Chain::new(vec![Stage::Diagonal(scales)]);
        Ok(Update::Transform(Transform::Linear { left, right, plus: None }))
    }
}

impl Boft {
    /// Where each input goes before the blocks of a stage: within every group of 2ˢ blocks, half
    /// blocks of even number first, then those of odd number. A single stage permutes nothing.
    fn order(&self, stage: usize) -> Option<Vec<usize>> {
        if self.stages == 1 {
            return None;
        }
        let (half, group) = (self.size / 2, self.size << stage);
        let halves = group / half;
        let from = (0..halves).step_by(2).chain((1..halves).step_by(2));
        let within: Vec<usize> =
            from.flat_map(|number| number * half..(number + 1) * half).collect();
        // The stored permutation sends input i to `within[i]`; blocks read from where it came.
        let mut order = vec![0; self.blocks * self.size];
        for (at, (first, to)) in (0..order.len())
            .step_by(group)
            .flat_map(|first| within.iter().map(move |to| (first, to)))
            .enumerate()
        {
            if let Some(slot) = order.get_mut(first + to) {
                *slot = at;
            }
        }
        Some(order)
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let tensor = source.required("boft_R", "boft_s")?;
    let scales = source.required("boft_s", "boft_R")?;
    let shape = source.view(tensor)?.spec.shape.as_slice();
    let fits = |stages: usize, blocks: usize, size: usize| {
        // Butterflies pair half blocks in groups of 2ˢ blocks.
        let last = stages.saturating_sub(1) as u32;
        stages == 1
            || (size.is_multiple_of(2)
                && 1usize.checked_shl(last).is_some_and(|group| blocks.is_multiple_of(group)))
    };
    let &[stages, blocks, size, other] = shape else { return bad_shape(tensor, shape) };
    if size != other || !fits(stages, blocks, size) {
        return bad_shape(tensor, shape);
    }
    let outputs = source.view(scales)?.spec.elements();
    check_length(source.view(scales)?, outputs)?;
    Ok(Module {
        rank: blocks,
        inputs: blocks * size,
        outputs,
        ..source.linear(
            &FAMILY,
            Boft {
                tensor: tensor.to_owned(),
                scales: scales.to_owned(),
                stages,
                blocks,
                size,
                outputs,
            },
        )
    })
}

fn bad_shape(tensor: &str, found: &[usize]) -> Result<Module> {
    let expected = "[stages, blocks, size, size], blocks in groups of 2^(stages − 1)".to_owned();
    Err(ErrorKind::BadShape { expected, found: found.to_vec() }).in_tensor(tensor)
}
