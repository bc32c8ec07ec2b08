//! AdaLoRA (Zhang et al. 2023, <https://arxiv.org/abs/2303.10512>): scale · B · diag(E) · A, where A and
//! B keep only the directions that the budget left (PEFT `tuners/adalora/layer.py`).
//!
//! The scale is alpha over (ranknum + 1e-5), ranknum being the rank before anything was pruned, which
//! PEFT does not save but the config's `init_r` says; an alpha of 0 counts as `init_r`.

use super::prelude::*;
use crate::adapter::scale::ScaleSource;

pub(super) static FAMILY: Family = Family {
    name: "adalora",
    signs: &[Part::Named("lora_E")],
    parts: &[Part::Down, Part::Up, Part::Named("ranknum")],
    build,
};

#[derive(Debug)]
struct AdaLora {
    up: String,
    values: String,
    down: String,
    rank: usize,
}

impl Form for AdaLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.values, &self.up]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let values = read_f64(find(file, &self.values)?, 0, self.rank)?;
        let mut down = read_matrix(file, &self.down, self.rank, inputs)?;
        for (mut row, value) in down.row_iter_mut().zip(values) {
            row *= value;
        }
        Ok(Update::LowRank(LowRank::new(read_matrix(file, &self.up, outputs, self.rank)?, down)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let part = |part, missing| {
        let tensor = source.parts.get(&part);
        tensor.ok_or(ErrorKind::MissingFactor { present: "lora_E", missing })
    };
    let (down, up) = (part(Part::Down, "A (down)")?, part(Part::Up, "B (up)")?);
    let values = source.required("lora_E", "A and B")?;
    // A module may have been pruned to nothing, which leaves [0, in] and [out, 0].
    let shape = |name: &str| find(source.file, name).map(|view| view.spec.shape.as_slice());
    let (rank, inputs, outputs) = match [shape(down)?, shape(up)?, shape(values)?] {
        [&[rank, inputs], &[outputs, columns], &[count, 1]]
            if (rank, rank) == (columns, count) && inputs > 0 && outputs > 0 =>
        {
            (rank, inputs, outputs)
        }
        [down, up, _] => {
            let (down, up) = (down.to_vec(), up.to_vec());
            return Err(ErrorKind::RankMismatch { down, up }.into());
        }
    };
    Ok(Module {
        rank,
        inputs,
        outputs,
        scale: scale(source)?,
        ..source.linear(
            &FAMILY,
            AdaLora { up: up.clone(), values: values.to_owned(), down: down.clone(), rank },
        )
    })
}

fn scale(source: &Source<'_>) -> Result<Scale> {
    let Some(config) = source.config else { return Err(ErrorKind::UnknownScale.into()) };
    let first = config.number("init_r")?.unwrap_or(12.0);
    let alpha = config.number("lora_alpha")?.unwrap_or(8.0);
    let rank = match source.named("ranknum") {
        None => first,
        Some(tensor) => super::read_alpha(find(source.file, tensor)?)?,
    };
    if first <= 0.0 || rank <= 0.0 {
        let reason = format!("AdaLoRA's first rank is {first}, which is no positive count");
        return Err(ErrorKind::BadConfig { reason }).in_tensor(source.name);
    }
    let dividend = if alpha > 0.0 { alpha } else { first };
    let value = dividend / (rank + 1e-5);
    Ok(Scale { value, alpha: Some(alpha), source: ScaleSource::Config })
}
