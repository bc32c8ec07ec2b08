//! HRA (Yuan et al. 2024, <https://arxiv.org/abs/2405.17484>): W · Π(I − 2·uᵢ·uᵢᵀ), reflections of the
//! inputs with the normalised columns of u, in × r (PEFT `tuners/hra/layer.py`). With `apply_GS` the
//! columns are made orthonormal first.

use super::prelude::*;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family =
    Family { name: "hra", signs: &[Part::Named("hra_u")], parts: &[], build };

#[derive(Debug)]
struct Hra {
    vectors: String,
    inputs: usize,
    rank: usize,
    orthogonal: bool,
}

impl Form for Hra {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.vectors]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let mut vectors = read_matrix(file, &self.vectors, self.inputs, self.rank)?;
        for at in 0..self.rank {
            if self.orthogonal {
                for before in 0..at {
                    let previous = vectors.column(before).clone_owned();
                    let share = vectors.column(at).dot(&previous);
                    vectors.column_mut(at).axpy(-share, &previous, 1.0);
                }
            }
            let norm = vectors.column(at).norm();
            vectors.column_mut(at).unscale_mut(norm);
        }
        let columns = vectors.column_iter();
        let stages = columns.map(|u| Stage::Reflection(u.iter().copied().collect()));
        Ok(Update::Transform(Transform::right(Chain::new(stages.collect()))))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let vectors = source.required("hra_u", "a module")?;
    let (inputs, rank) = source.plain_matrix(vectors)?;
    let orthogonal = source.config.is_some_and(|config| config.flag("apply_GS"));
    Ok(Module {
        rank,
        inputs,
        ..source.linear(FAMILY.name, Hra { vectors: vectors.to_owned(), inputs, rank, orthogonal })
    })
}
