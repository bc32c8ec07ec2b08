//! LoKr, a Kronecker product (KronA, Edalati et al. 2022, <https://arxiv.org/abs/2212.10650>):
//! scale · w1 ⊗ w2. Each part is a matrix, or a product w_a·w_b; w2 of a convolution may have a core
//! (LyCORIS `modules/lokr.py`, PEFT `tuners/lokr/layer.py`).
//!
//! PEFT divides alpha by the config's rank. LyCORIS divides it by the inner dimension of w2, else of
//! w1, and where both are whole the scale is 1, whatever alpha says (ComfyUI
//! `comfy/weight_adapter/lokr.py`).

use std::sync::Arc;

use super::matrices::folded_core;
use super::prelude::*;
use crate::adapter::slice::Slice;
use crate::math::forms::composite::Operand as Half;
use crate::math::{Composite, Joint};

pub(super) static FAMILY: Family = Family {
    name: "lokr",
    signs: &[
        Part::Named("lokr_w1"),
        Part::Named("lokr_w1_a"),
        Part::Named("lokr_w1_b"),
        Part::Named("lokr_w2"),
        Part::Named("lokr_w2_a"),
        Part::Named("lokr_w2_b"),
    ],
    parts: &[Part::Alpha, Part::Named("diff_b"), Part::Named("dora_scale"), Part::Named("lokr_t2")],
    build,
};

#[derive(Debug)]
struct LoKr {
    parts: [Whole; 2],
}

/// One of the two parts, with its size; a kernel counts as columns.
#[derive(Debug)]
struct Whole {
    tensors: Tensors,
    rows: usize,
    columns: usize,
}

#[derive(Debug)]
enum Tensors {
    One(String),
    Two { up: String, down: String, core: Option<String>, rank: usize },
}

impl Whole {
    fn rank(&self) -> usize {
        match &self.tensors {
            Tensors::One(_) => self.rows.min(self.columns),
            Tensors::Two { rank, .. } => *rank,
        }
    }

    /// The inner dimension, where there is one.
    fn inner(&self) -> Option<usize> {
        match &self.tensors {
            Tensors::One(_) => None,
            Tensors::Two { rank, .. } => Some(*rank),
        }
    }

    fn read(&self, file: &Checkpoint) -> Result<Half> {
        let (rows, columns) = (self.rows, self.columns);
        Ok(match &self.tensors {
            Tensors::One(tensor) => Half::Dense(Slice::whole(tensor).read(file, rows, columns)?),
            Tensors::Two { up, down, core: None, rank } => Half::LowRank(LowRank::new(
                read_matrix(file, up, rows, *rank)?,
                read_matrix(file, down, *rank, columns)?,
            )),
            Tensors::Two { up, down, core: Some(core), rank } => Half::LowRank(LowRank::new(
                read_matrix(file, up, *rank, rows)?.transpose(),
                folded_core(file, core, down, (*rank, *rank), columns)?,
            )),
        })
    }
}

impl Form for LoKr {
    fn tensors(&self) -> Vec<&str> {
        let names = self.parts.iter().flat_map(|part| match &part.tensors {
            Tensors::One(tensor) => [Some(tensor), None, None],
            Tensors::Two { up, down, core, .. } => [Some(up), Some(down), core.as_ref()],
        });
        names.flatten().map(String::as_str).collect()
    }

    fn nature(&self) -> Nature {
        let [a, b] = &self.parts;
        let most = (a.rows * b.rows).min(a.columns * b.columns);
        Nature::LowRank((a.rank() * b.rank()).min(most))
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let [first, second] = &self.parts;
        Ok(Update::Composite(Composite::new(
            Joint::Kronecker,
            first.read(file)?,
            second.read(file)?,
        )))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let (first, _) = part(source, ["lokr_w1", "lokr_w1_a", "lokr_w1_b"], None)?;
    let core = source.named("lokr_t2");
    let (second, kernel) = part(source, ["lokr_w2", "lokr_w2_a", "lokr_w2_b"], core)?;
    let (inputs, outputs) = (first.columns * second.columns, first.rows * second.rows);
    let inner = second.inner().or(first.inner());
    let alpha = source.alpha()?;
    let config = source.config.and_then(|config| config.rank_of(source.name));
    let (rank, scale) = match (config, inner) {
        (Some(rank), inner) => {
            (rank, source.scales.resolve(source.name, inner.unwrap_or(rank), alpha)?)
        }
        (None, Some(rank)) => (rank, source.scales.resolve(source.name, rank, alpha)?),
        (None, None) => (0, Scale::of_family(1.0, alpha)),
    };
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: if kernel.is_empty() { Kind::Linear } else { Kind::Conv(kernel) },
        rank,
        inputs,
        outputs,
        scale,
        form: Arc::new(LoKr { parts: [first, second] }),
        bias: None,
        magnitude: None,
    })
}

/// A part, and the kernel if its tensors show it.
fn part(
    source: &Source<'_>,
    [whole, up, down]: [&'static str; 3],
    core: Option<&str>,
) -> Result<(Whole, Vec<usize>)> {
    if let Some(tensor) = source.named(whole) {
        if let Some(stray) = source.named(up).or(source.named(down)).or(core) {
            return Err(FAMILY.stray(stray));
        }
        let (rows, columns, kernel) = source.matrix(tensor)?;
        let columns = columns * kernel.iter().product::<usize>();
        let tensors = Tensors::One(tensor.to_owned());
        return Ok((Whole { tensors, rows, columns }, kernel.to_vec()));
    }
    let (up, down) = (source.required(up, "a part of LoKr")?, source.required(down, up)?);
    let (rank, columns, down_kernel) = source.matrix(down)?;
    let (rows, kernel) = match core {
        None => (source.matrix(up)?.0, down_kernel),
        Some(core) => (source.matrix(up)?.1, source.kernel(core)?),
    };
    match core {
        None => source.expect(up, rows, rank, &[])?,
        Some(core) => {
            source.expect(up, rank, rows, &[])?;
            source.expect(core, rank, rank, kernel)?;
            source.expect(down, rank, columns, &[])?;
        }
    }
    let columns = columns * kernel.iter().product::<usize>();
    let (up, down, core) = (up.to_owned(), down.to_owned(), core.map(str::to_owned));
    Ok((Whole { tensors: Tensors::Two { up, down, core, rank }, rows, columns }, kernel.to_vec()))
}
