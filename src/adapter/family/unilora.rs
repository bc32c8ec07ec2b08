//! Uni-LoRA (Li et al. 2025, <https://arxiv.org/abs/2506.00799>): every element of B · A is one of a vector that all
//! modules share, times a number of its own (PEFT `tuners/unilora/layer.py`).
//!
//! Which element of the vector each is, the file says (`unilora_indices_A`, `unilora_indices_B`). PEFT can also leave the
//! indices out and draw them again with NumPy's random numbers, through all layers of the model in order, which no
//! adapter knows: a module without indices is refused.

use super::positions;
use super::prelude::*;

const DOWN: [&str; 2] = ["unilora_indices_A", "unilora_scales_A"];
const UP: [&str; 2] = ["unilora_indices_B", "unilora_scales_B"];

pub(super) static FAMILY: Family = Family {
    name: "unilora",
    signs: &[Part::Named(DOWN[0]), Part::Named(UP[0])],
    parts: &[Part::Named(DOWN[1]), Part::Named(UP[1])],
    build,
};

#[derive(Debug)]
struct UniLora {
    vector: String,
    length: usize,
    /// Positions in the vector, and what each is multiplied by.
    down: [String; 2],
    up: [String; 2],
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl UniLora {
    fn factor(
        &self,
        file: &Checkpoint,
        [places, scales]: &[String; 2],
        (rows, columns): (usize, usize),
    ) -> Result<Matrix> {
        let vector = read_f64(find(file, &self.vector)?, 0, self.length)?;
        let places = positions::read(file, places, self.length as u64)?;
        let scales = read_f64(find(file, scales)?, 0, rows * columns)?;
        let values = places.into_iter().zip(scales);
        let values =
            values.map(|(place, scale)| vector.get(place).copied().unwrap_or(f64::NAN) * scale);
        Ok(Matrix::from_row_iterator(rows, columns, values))
    }
}

impl Form for UniLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.vector, &self.down[1], &self.up[1]]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        Ok(Update::LowRank(LowRank::new(
            self.factor(file, &self.up, (self.outputs, self.rank))?,
            self.factor(file, &self.down, (self.rank, self.inputs))?,
        )))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let vector = source.shared.get(&Part::Named("unilora_theta_d"));
    let vector = vector.ok_or(ErrorKind::MissingFactor {
        present: "unilora_indices_A",
        missing: "unilora_theta_d",
    })?;
    let length = source.vector(vector)?;
    let pair = |[places, scales]: [&'static str; 2], present| -> Result<_> {
        let (places, scales) =
            (source.required(places, present)?, source.required(scales, places)?);
        let (rows, columns, _) = source.matrix(places)?;
        source.expect(places, rows, columns, &[])?;
        source.expect(scales, rows, columns, &[])?;
        positions::read(source.file, places, length as u64)?;
        Ok(([places.to_owned(), scales.to_owned()], rows, columns))
    };
    let (down, rank, inputs) = pair(DOWN, UP[0])?;
    let (up, outputs, _) = pair(UP, DOWN[0])?;
    source.expect(&up[0], outputs, rank, &[])?;
    Ok(Module {
        rank,
        inputs,
        outputs,
        ..source.linear(
            &FAMILY,
            UniLora { vector: vector.clone(), length, down, up, rank, outputs, inputs },
        )
    })
}
