//! DEFT (PEFT `tuners/deft/layer.py`): a subspace of the outputs taken out of the weight, and something else put there:
//! (I − Q·Vᵀ)·W + s·Q·R. By `relu` Q = P and V is P with its negative elements 0; by `qr` both are the orthonormal factor
//! of P = Q·R'. `alpha` makes s = alpha / r; with `para` nothing is put there (PaRa).
//!
//! The signs of Q's columns are those of Householder's reflections as LAPACK has them, since R was trained with them.

use super::prelude::*;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family = Family {
    name: "deft",
    signs: &[Part::Named("deft_P"), Part::Named("deft_R")],
    parts: &[],
    build,
};

#[derive(Debug)]
struct Deft {
    directions: String,
    injected: Option<String>,
    orthonormal: bool,
    scale: f64,
    rank: usize,
    outputs: usize,
}

impl Form for Deft {
    fn tensors(&self) -> Vec<&str> {
        [Some(self.directions.as_str()), self.injected.as_deref()].into_iter().flatten().collect()
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, (_, inputs): (usize, usize)) -> Result<Update> {
        let p = read_matrix(file, &self.directions, self.outputs, self.rank)?;
        let (q, v) = match self.orthonormal {
            true => {
                let q = householder(p);
                (q.clone(), q)
            }
            false => (p.clone(), p.map(|value| value.max(0.0))),
        };
        let plus = match &self.injected {
            Some(tensor) => {
                let r = read_matrix(file, tensor, self.rank, inputs)? * self.scale;
                Some(LowRank::new(q.clone(), r))
            }
            None => None,
        };
        let matrix = LowRank::new(-q, v.transpose());
        let left = Chain::new(vec![Stage::Plus { matrix, kernel: 1 }]);
        Ok(Update::Transform(Transform::Linear { left, right: Chain::default(), plus }))
    }
}

/// The first columns of the orthogonal factor of a matrix that is not wider than high.
fn householder(mut a: Matrix) -> Matrix {
    let (rows, columns) = a.shape();
    let mut reflections = Vec::with_capacity(columns);
    for at in 0..columns {
        let column = a.column(at).rows(at, rows - at).clone_owned();
        let (first, rest) = (column[0], column.rows(1, rows - at - 1).norm());
        if rest == 0.0 {
            // Nothing to reflect: the sign stays.
            reflections.push(None);
            continue;
        }
        let mut v = column;
        v[0] = first + first.hypot(rest).copysign(first);
        let half = v.norm_squared() / 2.0;
        for next in at..columns {
            let mut target = a.column_mut(next);
            let mut target = target.rows_mut(at, rows - at);
            let share = v.dot(&target) / half;
            target.axpy(-share, &v, 1.0);
        }
        reflections.push(Some((v, half)));
    }
    let mut q = Matrix::identity(rows, columns);
    for (at, reflection) in reflections.iter().enumerate().rev() {
        let Some((v, half)) = reflection else { continue };
        for next in 0..columns {
            let mut target = q.column_mut(next);
            let mut target = target.rows_mut(at, rows - at);
            let share = v.dot(&target) / half;
            target.axpy(-share, v, 1.0);
        }
    }
    q
}

fn build(source: &Source<'_>) -> Result<Module> {
    let directions = source.required("deft_P", "deft_R")?;
    let (outputs, rank, _) = source.matrix(directions)?;
    source.expect(directions, outputs, rank, &[])?;
    let config = source.required_config()?;
    let bad = |reason: String| ErrorKind::BadConfig { reason };
    let orthonormal = match config.text("decomposition_method").unwrap_or("relu") {
        "qr" if rank > outputs => {
            return Err(bad(format!("rank {rank} of {outputs} outputs")).into());
        }
        "qr" => true,
        "relu" => false,
        other => return Err(bad(format!("`decomposition_method` is {other}")).into()),
    };
    let (injected, inputs) = match source.named("deft_R") {
        Some(_) if config.flag("para") => {
            return Err(bad("`para` is set, and there is a deft_R".to_owned()).into());
        }
        None if config.flag("para") => (None, 0),
        _ => {
            let tensor = source.required("deft_R", "deft_P")?;
            let (_, inputs, _) = source.matrix(tensor)?;
            source.expect(tensor, rank, inputs, &[])?;
            (Some(tensor.to_owned()), inputs)
        }
    };
    let alpha = config.number("alpha")?.filter(|alpha| *alpha != 0.0);
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(
            &FAMILY,
            Deft {
                directions: directions.to_owned(),
                injected,
                orthonormal,
                scale: alpha.map_or(1.0, |alpha| alpha / rank as f64),
                rank,
                outputs,
            },
        )
    })
}
