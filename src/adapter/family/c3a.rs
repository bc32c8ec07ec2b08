//! C³A (Chen et al. 2024, <https://arxiv.org/abs/2407.19342>): circular convolutions of blocks. Block (i, j) of the update
//! is circulant, its first row the kernel (i, j), and all of it is divided by the inputs (PEFT `tuners/c3a/layer.py`,
//! `utils.py`).

use super::prelude::*;
use crate::math::RowMatrix;
use crate::math::forms::row_matrix::Circulant;

pub(super) static FAMILY: Family =
    Family { name: "c3a", signs: &[Part::Named("c3a_kernel")], parts: &[], build };

#[derive(Debug)]
struct C3a {
    kernels: String,
    /// Blocks below each other, beside each other, and the size of each.
    shape: (usize, usize, usize),
}

impl Form for C3a {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.kernels]
    }

    fn nature(&self) -> Nature {
        Nature::Dense
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let (down, across, size) = self.shape;
        let mut kernels = read_f64(find(file, &self.kernels)?, 0, down * across * size)?;
        for value in &mut kernels {
            *value /= (across * size) as f64;
        }
        Ok(Update::Rows(RowMatrix::Circulant(Circulant::new(kernels, across, size))))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let kernels = source.required("c3a_kernel", "a module")?;
    let (down, across, size) = match source.view(kernels)?.spec.shape.as_slice() {
        [down, across, size] => (*down, *across, *size),
        shape => {
            let expected = "[out / block, in / block, block]".to_owned();
            return Err(ErrorKind::BadShape { expected, found: shape.to_vec() }).in_tensor(kernels);
        }
    };
    Ok(Module {
        inputs: across * size,
        outputs: down * size,
        ..source.linear(&FAMILY, C3a { kernels: kernels.to_owned(), shape: (down, across, size) })
    })
}
