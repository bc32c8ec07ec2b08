//! HiRA (Huang et al. 2025, <https://openreview.net/forum?id=TwJrTz9cRS>): W + W ⊙ (B·A), with B: out ×
//! rank and A: rank × in, and no scale (PEFT `tuners/hira/layer.py`).

use super::prelude::*;
use crate::math::Transform;

pub(super) static FAMILY: Family = Family {
    name: "hira",
    signs: &[Part::Named("hira_A"), Part::Named("hira_B")],
    parts: &[],
    build,
};

#[derive(Debug)]
struct Hira {
    up: String,
    down: String,
    rank: usize,
}

impl Form for Hira {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.up]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let by = LowRank::new(
            read_matrix(file, &self.up, outputs, self.rank)?,
            read_matrix(file, &self.down, self.rank, inputs)?,
        );
        Ok(Update::Transform(Transform::Gate { by, plus: None }))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let down = source.required("hira_A", "hira_B")?;
    let up = source.required("hira_B", "hira_A")?;
    let (outputs, rank, inputs) = source.factors(down, up, &[])?;
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(&FAMILY, Hira { up: up.to_owned(), down: down.to_owned(), rank })
    })
}
