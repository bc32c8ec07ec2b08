//! LoHa, FedPara's Hadamard product (Hyeon-Woo et al. 2022, <https://arxiv.org/abs/2108.06098>):
//! scale · (w1_a·w1_b) ⊙ (w2_a·w2_b), each w_a: out × rank and w_b: rank × in. With cores t1 and t2
//! (rank × rank × kernel) w_a is rank × out, and each part is Σ t[i, j, k]·w_a[i, o]·w_b[j, c] (LyCORIS
//! `modules/loha.py`, PEFT `tuners/loha/layer.py`).
//!
//! Exactly a LoRA of rank r², or of the smaller side; see [`crate::math::forms::composite`].

use std::sync::Arc;

use super::matrices::folded_core;
use super::prelude::*;
use crate::math::forms::composite::Operand as Half;
use crate::math::{Composite, Joint};

const W1_A: &str = "hada_w1_a";

pub(super) static FAMILY: Family = Family {
    name: "loha",
    signs: &[
        Part::Named(W1_A),
        Part::Named("hada_w1_b"),
        Part::Named("hada_w2_a"),
        Part::Named("hada_w2_b"),
    ],
    parts: &[
        Part::Alpha,
        Part::Named("diff_b"),
        Part::Named("dora_scale"),
        Part::Named("hada_t1"),
        Part::Named("hada_t2"),
    ],
    build,
};

#[derive(Debug)]
struct LoHa {
    parts: [Pair; 2],
    /// No rank is more than the smaller side.
    most: usize,
}

/// w_a, w_b, and their core.
#[derive(Debug)]
struct Pair {
    up: String,
    down: String,
    core: Option<String>,
    rank: usize,
}

impl Pair {
    fn read(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Half> {
        let rank = self.rank;
        Ok(Half::LowRank(match &self.core {
            None => LowRank::new(
                read_matrix(file, &self.up, outputs, rank)?,
                read_matrix(file, &self.down, rank, inputs)?,
            ),
            Some(core) => LowRank::new(
                read_matrix(file, &self.up, rank, outputs)?.transpose(),
                folded_core(file, core, &self.down, (rank, rank), inputs)?,
            ),
        }))
    }
}

impl Form for LoHa {
    fn tensors(&self) -> Vec<&str> {
        let parts = self.parts.iter();
        let names = parts.flat_map(|part| [Some(&part.up), Some(&part.down), part.core.as_ref()]);
        names.flatten().map(String::as_str).collect()
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.parts.iter().map(|part| part.rank).product::<usize>().min(self.most))
    }

    fn load(&self, file: &Checkpoint, shape: (usize, usize)) -> Result<Update> {
        let [first, second] = &self.parts;
        let (first, second) = (first.read(file, shape)?, second.read(file, shape)?);
        Ok(Update::Composite(Composite::new(Joint::Hadamard, first, second)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let tensors = |up, down, core| -> Result<_> {
        Ok((source.required(up, "a part of LoHa")?, source.required(down, up)?, source.named(core)))
    };
    let first = tensors(W1_A, "hada_w1_b", "hada_t1")?;
    let second = tensors("hada_w2_a", "hada_w2_b", "hada_t2")?;
    let (a, b, kernel) = source.matrix(first.0)?;
    let (rank, mut inputs, mut rest) = source.matrix(first.1)?;
    let mut outputs = a;
    if let Some(core) = first.2 {
        source.required("hada_t2", "hada_t1")?;
        (outputs, rest) = (b, source.kernel(core)?);
        source.expect(core, rank, rank, rest)?;
    } else if source.named("hada_t2").is_some() {
        source.required("hada_t1", "hada_t2")?;
    }
    inputs *= rest.iter().product::<usize>();
    // The second part has the first's shapes, and a rank of its own.
    let second_rank = source.matrix(second.1)?.0;
    let channels = source.matrix(first.1)?.1;
    for ((up, down, core), rank) in [(first, rank), (second, second_rank)] {
        let ones = vec![1; kernel.len()];
        match core {
            None => {
                source.expect(up, outputs, rank, &ones)?;
                source.expect(down, rank, channels, rest)?;
            }
            Some(core) => {
                source.expect(up, rank, outputs, &ones)?;
                source.expect(down, rank, channels, source.matrix(first.1)?.2)?;
                source.expect(core, rank, rank, rest)?;
            }
        }
    }
    let pair = |(up, down, core): (&str, &str, Option<&str>), rank| Pair {
        up: up.to_owned(),
        down: down.to_owned(),
        core: core.map(str::to_owned),
        rank,
    };
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: if rest.is_empty() { Kind::Linear } else { Kind::Conv(rest.to_vec()) },
        rank,
        inputs,
        outputs,
        scale: source.scales.resolve(source.name, rank, source.alpha()?)?,
        form: Arc::new(LoHa {
            parts: [pair(first, rank), pair(second, second_rank)],
            most: outputs.min(inputs),
        }),
        bias: None,
        magnitude: None,
    })
}
