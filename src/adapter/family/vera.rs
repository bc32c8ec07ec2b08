//! VeRA (Kopiczko et al. 2024, <https://arxiv.org/abs/2310.11454>): diag(λ_b) · B · diag(λ_d) · A with
//! random projections A and B that all modules share, each taking as much of them as it is large (PEFT
//! `tuners/vera/layer.py`). There is no other scale.
//!
//! PVeRA (<https://arxiv.org/abs/2512.07703>, PEFT `tuners/pvera/layer.py`) has twice as many inner factors and rows of A: the first half
//! of either is the mean that a merge takes, the second the variance of its training.
//!
//! Projections that were not saved would have to be made by PyTorch's random numbers; such a file is
//! refused.

use std::sync::Arc;

use super::prelude::*;
use crate::adapter::slice::{Slice, Span};

pub(super) static FAMILY: Family = Family {
    name: "vera",
    signs: &[Part::Named("vera_lambda_b"), Part::Named("vera_lambda_d")],
    parts: &[],
    build,
};

pub(super) static PVERA: Family = Family {
    name: "pvera",
    signs: &[Part::Named("pvera_lambda_b"), Part::Named("pvera_lambda_d")],
    parts: &[],
    build: build_pvera,
};

/// What the two call their tensors, and what part of A is of use.
struct Kin {
    family: &'static str,
    outputs: &'static str,
    inner: &'static str,
    down: &'static str,
    up: &'static str,
    missing: &'static str,
    /// How many rows of A stand for one level.
    rows: usize,
}

#[derive(Debug)]
struct Vera {
    outputs: String,
    inner: String,
    /// A, rank × (most inputs of any module).
    down: String,
    /// B, (most outputs of any module) × rank.
    up: String,
    rank: usize,
    most: (usize, usize),
}

impl Form for Vera {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.outputs, &self.inner, &self.down, &self.up]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let first = |count| Some(Span { first: 0, step: 1, count });
        let slice = |tensor: &str, rows, columns| Slice {
            tensor: tensor.to_owned(),
            rows: first(rows),
            columns: first(columns),
            turned: false,
        };
        let scaled = |tensor: &str, rows: usize, columns: usize, by: &str| -> Result<Matrix> {
            let factor = slice(tensor, rows, columns).read(file, rows, columns)?;
            let by = read_f64(find(file, by)?, 0, rows)?;
            let values = factor.values.chunks(columns.max(1)).zip(by);
            let values = values.flat_map(|(row, by)| row.iter().map(move |v| f64::from(*v) * by));
            Ok(Matrix::from_row_iterator(rows, columns, values))
        };
        Ok(Update::LowRank(LowRank::new(
            scaled(&self.up, outputs, self.rank, &self.outputs)?,
            scaled(&self.down, self.rank, inputs, &self.inner)?,
        )))
    }

    fn check(&self, (outputs, inputs): (usize, usize)) -> Result<()> {
        if outputs <= self.most.0 && inputs <= self.most.1 {
            return Ok(());
        }
        let (rows, columns) = self.most;
        let expected = format!("at most [{rows}, {columns}], the size of the projections");
        Err(ErrorKind::BadShape { expected, found: vec![outputs, inputs] }.into())
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let kin = Kin {
        family: FAMILY.name,
        outputs: "vera_lambda_b",
        inner: "vera_lambda_d",
        down: "vera_A",
        up: "vera_B",
        missing: "vera_A and vera_B: save the adapter with save_projection",
        rows: 1,
    };
    build_kin(source, &kin)
}

fn build_pvera(source: &Source<'_>) -> Result<Module> {
    let kin = Kin {
        family: PVERA.name,
        outputs: "pvera_lambda_b",
        inner: "pvera_lambda_d",
        down: "pvera_A",
        up: "pvera_B",
        missing: "pvera_A and pvera_B: save the adapter with save_projection",
        rows: 2,
    };
    build_kin(source, &kin)
}

fn build_kin(source: &Source<'_>, kin: &Kin) -> Result<Module> {
    let shared = |part: &'static str| {
        let tensor = source.shared.get(&Part::Named(part));
        tensor.ok_or(ErrorKind::MissingFactor { present: kin.outputs, missing: kin.missing })
    };
    let (down, up) = (shared(kin.down)?, shared(kin.up)?);
    let outer = source.required(kin.outputs, kin.inner)?;
    let inner = source.required(kin.inner, kin.outputs)?;
    let (outputs, levels) =
        (source.view(outer)?.spec.elements(), source.view(inner)?.spec.elements());
    let rank = levels / kin.rows;
    let (_, inputs, _) = source.matrix(down)?;
    let (rows, _, _) = source.matrix(up)?;
    check_length(source.view(inner)?, rank * kin.rows)?;
    source.expect(down, levels, inputs, &[])?;
    source.expect(up, rows, rank, &[])?;
    Ok(Module {
        name: source.name.to_owned(),
        family: kin.family,
        kind: Kind::Linear,
        rank,
        inputs: 0,
        outputs,
        scale: Scale::of_family(1.0, None),
        form: Arc::new(Vera {
            outputs: outer.to_owned(),
            inner: inner.to_owned(),
            down: down.clone(),
            up: up.clone(),
            rank,
            most: (rows, inputs),
        }),
        bias: None,
        magnitude: None,
    })
}
