//! VB-LoRA (Li et al. 2024, <https://arxiv.org/abs/2405.15179>): factors made of pieces, each the mean of the k
//! vectors of a shared bank whose logits are the largest, weighted by their softmax (PEFT `tuners/vblora/layer.py`).
//! A's logits are r × (in / v) × vectors, B's (out / v) × r × vectors; a vector has v numbers. There is no scale.

use super::prelude::*;

pub(super) static FAMILY: Family = Family {
    name: "vblora",
    signs: &[Part::Named("vblora_logits_A"), Part::Named("vblora_logits_B")],
    parts: &[],
    build,
};

#[derive(Debug)]
struct VbLora {
    down: String,
    up: String,
    bank: String,
    /// Vectors of the bank, and the numbers of each.
    vectors: (usize, usize),
    /// How many vectors a piece is made of.
    most: usize,
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl VbLora {
    /// The pieces of a factor, one after the other.
    fn pieces(&self, file: &Checkpoint, logits: &str, bank: &[f64]) -> Result<Vec<f64>> {
        let (count, length) = self.vectors;
        let view = find(file, logits)?;
        let logits = read_f64(view, 0, view.spec.elements())?;
        let mut pieces = Vec::with_capacity(logits.len() / count.max(1) * length);
        for logits in logits.chunks(count.max(1)) {
            let mut order: Vec<usize> = (0..logits.len()).collect();
            let logit = |at: &usize| logits.get(*at).copied().unwrap_or(f64::NEG_INFINITY);
            order.sort_by(|a, b| logit(b).total_cmp(&logit(a)));
            order.truncate(self.most);
            let largest = order.first().map_or(0.0, logit);
            let shares: Vec<f64> = order.iter().map(|at| (logit(at) - largest).exp()).collect();
            let total: f64 = shares.iter().sum();
            let mut piece = vec![0.0; length];
            for (at, share) in order.iter().zip(shares) {
                let vector = bank.iter().skip(at * length);
                for (sum, value) in piece.iter_mut().zip(vector) {
                    *sum += share / total * value;
                }
            }
            pieces.extend(piece);
        }
        Ok(pieces)
    }
}

impl Form for VbLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.up, &self.bank]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let (count, length) = self.vectors;
        let bank = read_f64(find(file, &self.bank)?, 0, count * length)?;
        let down = self.pieces(file, &self.down, &bank)?;
        let up = self.pieces(file, &self.up, &bank)?;
        let down = Matrix::from_row_iterator(self.rank, self.inputs, down);
        let up = Matrix::from_fn(self.outputs, self.rank, |output, level| {
            let piece = output / length * self.rank + level;
            up.get(piece * length + output % length).copied().unwrap_or(0.0)
        });
        Ok(Update::LowRank(LowRank::new(up, down)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let down = source.required("vblora_logits_A", "vblora_logits_B")?;
    let up = source.required("vblora_logits_B", "vblora_logits_A")?;
    let bank = source.shared.get(&Part::Named("vblora_vector_bank"));
    let bank = bank.ok_or(ErrorKind::MissingFactor {
        present: "vblora_logits_A",
        missing: "vblora_vector_bank",
    })?;
    let (count, length) = source.plain_matrix(bank)?;
    let (high, rank, wide) = source.factors(down, up, &[count])?;
    let most = source.config.map(|config| config.number("topk")).transpose()?.flatten();
    let most = most.unwrap_or(2.0) as usize;
    if most == 0 || most > count {
        let reason = format!("topk is {most}, of {count} vectors");
        return Err(ErrorKind::BadConfig { reason }).in_tensor(bank);
    }
    let (inputs, outputs) = (wide * length, high * length);
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(
            &FAMILY,
            VbLora {
                down: down.to_owned(),
                up: up.to_owned(),
                bank: bank.clone(),
                vectors: (count, length),
                most,
                rank,
                outputs,
                inputs,
            },
        )
    })
}
