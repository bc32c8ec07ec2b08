//! TinyLoRA (<https://arxiv.org/abs/2602.04118>), after LoRA-XS: B · (Σ vᵢ·Pᵢ) · A with A and B the base's largest singular
//! vectors and P random, all of them frozen and stored, and a vector v that the layers of a group share (PEFT
//! `tuners/tinylora/layer.py`). There is no scale.
//!
//! A file with several vectors does not say which layers have which, nor which P they had where it was not saved; it
//! is refused.

use super::prelude::*;

pub(super) static FAMILY: Family = Family {
    name: "tinylora",
    signs: &[Part::Named("tinylora_A"), Part::Named("tinylora_B")],
    parts: &[Part::Named("tinylora_P")],
    build,
};

#[derive(Debug)]
struct TinyLora {
    down: String,
    up: String,
    projections: String,
    vector: String,
    length: usize,
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl Form for TinyLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.up, &self.projections, &self.vector]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let vector = read_f64(find(file, &self.vector)?, 0, self.length)?;
        let square = self.rank * self.rank;
        let all = read_f64(find(file, &self.projections)?, 0, self.length * square)?;
        let mut inner = Matrix::zeros(self.rank, self.rank);
        for (value, projection) in vector.iter().zip(all.chunks(square.max(1))) {
            for (at, element) in projection.iter().enumerate() {
                inner[(at / self.rank, at % self.rank)] += value * element;
            }
        }
        let up = read_matrix(file, &self.up, self.outputs, self.rank)?;
        let down = read_matrix(file, &self.down, self.rank, self.inputs)?;
        Ok(Update::LowRank(LowRank::new(up * inner, down)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let (down, up) = ("tinylora_A", "tinylora_B");
    let (down, up) = (source.required(down, up)?, source.required(up, down)?);
    let missing = |missing| ErrorKind::MissingFactor { present: "tinylora_A", missing };
    let projections = source.named("tinylora_P");
    let projections =
        projections.ok_or_else(|| missing("tinylora_P: save the adapter with save_projection"))?;
    let vector = source.shared.get(&Part::Named("tinylora_v"));
    let vector = vector.ok_or_else(|| missing("tinylora_v"))?;
    let length = source.vector(vector)?;
    let (rank, inputs, _) = source.matrix(down)?;
    let (outputs, _, _) = source.matrix(up)?;
    source.expect(down, rank, inputs, &[])?;
    source.expect(up, outputs, rank, &[])?;
    source.expect(projections, length, rank, &[rank])?;
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(
            &FAMILY,
            TinyLora {
                down: down.to_owned(),
                up: up.to_owned(),
                projections: projections.to_owned(),
                vector: vector.clone(),
                length,
                rank,
                outputs,
                inputs,
            },
        )
    })
}
