//! RoAd (Liao and Monz 2024, <https://arxiv.org/abs/2409.00119>): outputs turned and stretched in pairs, R·W and R·b.
//! A pair are an output of the first half of a group and the one as far into the second half; y₀ = x₀·α·cos θ − x₁·α·sin θ
//! and y₁ = x₀·α·sin θ + x₁·α·cos θ. `road_1` has one θ and α a pair, `road_2` one an output, `road_4` two an output, for
//! the cosine and the sine (PEFT `tuners/road/layer.py`).

use std::sync::Arc;

use super::prelude::*;
use crate::adapter::module::{Bias, BiasEffect};
use crate::math::{Chain, Stage, Transform};

const ANGLES: &str = "road_theta";
const LENGTHS: &str = "road_alpha";

pub(super) static FAMILY: Family =
    Family { name: "road", signs: &[Part::Named(ANGLES), Part::Named(LENGTHS)], parts: &[], build };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// One number a pair.
    Pair,
    /// One an output.
    Output,
    /// Two an output.
    Both,
}

#[derive(Debug)]
struct Road {
    angles: String,
    lengths: String,
    /// Values of either.
    count: usize,
    variant: Variant,
    group: usize,
}

impl Road {
    /// Places of what makes the cosine and the sine of an output.
    fn places(&self, output: usize) -> (usize, usize) {
        let (group, within) = (output / self.group, output % self.group);
        match self.variant {
            Variant::Pair => {
                let place = group * self.group / 2 + within % (self.group / 2);
                (place, place)
            }
            Variant::Output => (output, output),
            Variant::Both => {
                let first = 2 * group * self.group + within;
                (first, first + self.group)
            }
        }
    }
}

impl Form for Road {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.angles, &self.lengths]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::rotation("only PEFT has the family"))
    }

    fn load(&self, file: &Checkpoint, (outputs, _): (usize, usize)) -> Result<Update> {
        Ok(Update::Transform(Transform::left(self.rotation(file, outputs)?)))
    }

    fn bias(&self, file: &Checkpoint, outputs: usize) -> Result<Transform> {
        // b is a row here: (R·b)ᵀ = bᵀ·Rᵀ.
        Ok(Transform::right(self.rotation(file, outputs)?.transposed()))
    }
}

impl Road {
    /// R, outputs × outputs.
    fn rotation(&self, file: &Checkpoint, outputs: usize) -> Result<Chain> {
        let angles = read_f64(find(file, &self.angles)?, 0, self.count)?;
        let lengths = read_f64(find(file, &self.lengths)?, 0, self.count)?;
        let at = |values: &[f64], place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let turn = |output: usize| {
            let (cosine, sine) = self.places(output);
            let cosine = at(&lengths, cosine) * at(&angles, cosine).cos();
            (cosine, at(&lengths, sine) * at(&angles, sine).sin())
        };
        let half = self.group / 2;
        let firsts = (0..outputs).filter(|output| output % self.group < half);
        let (mut order, mut blocks) = (Vec::with_capacity(outputs), Vec::new());
        for first in firsts {
            order.extend([first, first + half]);
            let ((c0, s0), (c1, s1)) = (turn(first), turn(first + half));
            blocks.push(Matrix::from_row_slice(2, 2, &[c0, -s0, s1, c1]));
        }
        let stage = Stage::Blocks { blocks, order: Some(order) };
        Ok(Chain::new(vec![stage]))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let angles = source.required(ANGLES, LENGTHS)?;
    let lengths = source.required(LENGTHS, ANGLES)?;
    let count = source.vector(angles)?;
    check_length(source.view(lengths)?, count)?;
    let config = source.required_config()?;
    let bad = |reason: String| ErrorKind::BadConfig { reason };
    let (variant, outputs) = match config.text("variant").unwrap_or("road_1") {
        "road_1" => (Variant::Pair, 2 * count),
        "road_2" => (Variant::Output, count),
        "road_4" => (Variant::Both, count / 2),
        other => return Err(bad(format!("`variant` is {other}, which is none of PEFT's")).into()),
    };
    let group = config.number("group_size")?.unwrap_or(64.0);
    if group < 2.0 || group % 2.0 != 0.0 || outputs as f64 % group != 0.0 {
        let reason = format!("`group_size` {group} does not divide {outputs} outputs into pairs");
        return Err(bad(reason)).in_tensor(angles);
    }
    let bias = Bias { tensor: angles.to_owned(), length: outputs, effect: BiasEffect::Transform };
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: Kind::Linear,
        rank: 0,
        inputs: 0,
        outputs,
        scale: Scale::of_family(1.0, None),
        form: Arc::new(Road {
            angles: angles.to_owned(),
            lengths: lengths.to_owned(),
            count,
            variant,
            group: group as usize,
        }),
        bias: Some(bias),
        magnitude: None,
    })
}
