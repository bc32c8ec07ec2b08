//! DeLoRA (Bini et al. 2025, <https://arxiv.org/abs/2503.18225>): factors whose levels are each of length 1, times
//! λ / r, and times the norms of the base's columns as they were when the adapter was made, which the file has:
//! B · diag(λ / (r · ‖aᵢ‖ · ‖bᵢ‖)) · A · diag(w), no length taken below 1e-4 (PEFT `tuners/delora/layer.py`).

use super::prelude::*;

/// The least length that is divided by.
const LEAST: f64 = 1e-4;

pub(super) static FAMILY: Family = Family {
    name: "delora",
    signs: &[Part::Named("delora_A"), Part::Named("delora_B")],
    parts: &[Part::Named("delora_lambda"), Part::Named("delora_w_norm")],
    build,
};

#[derive(Debug)]
struct Delora {
    down: String,
    up: String,
    lambda: String,
    norms: String,
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl Form for Delora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.up, &self.lambda, &self.norms]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let mut down = read_matrix(file, &self.down, self.rank, self.inputs)?;
        let mut up = read_matrix(file, &self.up, self.outputs, self.rank)?;
        let lambda: f64 = read_f64(find(file, &self.lambda)?, 0, 1)?.iter().sum();
        let norms = read_f64(find(file, &self.norms)?, 0, self.inputs)?;
        for level in 0..self.rank {
            let lengths = down.row(level).norm().max(LEAST) * up.column(level).norm().max(LEAST);
            up.column_mut(level).scale_mut(lambda / self.rank as f64 / lengths);
        }
        for (mut column, norm) in down.column_iter_mut().zip(norms) {
            column.scale_mut(norm);
        }
        Ok(Update::LowRank(LowRank::new(up, down)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let down = source.required("delora_A", "delora_B")?;
    let up = source.required("delora_B", "delora_A")?;
    let lambda = source.required("delora_lambda", "delora_A")?;
    let norms = source.required("delora_w_norm", "delora_A")?;
    let (outputs, rank, inputs) = source.factors(down, up, &[])?;
    check_length(source.view(lambda)?, 1)?;
    check_length(source.view(norms)?, inputs)?;
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(
            &FAMILY,
            Delora {
                down: down.to_owned(),
                up: up.to_owned(),
                lambda: lambda.to_owned(),
                norms: norms.to_owned(),
                rank,
                outputs,
                inputs,
            },
        )
    })
}
