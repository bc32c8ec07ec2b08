//! WaveFT (Bilican et al. 2025, <https://arxiv.org/abs/2505.12532>): a few wavelet coefficients, of which one step of the
//! inverse transform makes the update, times `scaling`; without `use_idwt` they are elements of the update themselves
//! (PEFT `tuners/waveft/layer.py`). Where they are, `random_loc_seed` says by PyTorch's random numbers.

use super::fourierft::{check_count, drawn};
use super::prelude::*;
use crate::math::RowMatrix;
use crate::math::forms::row_matrix::Sparse;
use crate::math::forms::wavelet::Wavelet;

pub(super) static FAMILY: Family =
    Family { name: "waveft", signs: &[Part::Named("waveft_spectrum")], parts: &[], build };

#[derive(Debug)]
struct WaveFt {
    spectrum: String,
    count: usize,
    seed: u64,
    /// None if the coefficients are the elements.
    wavelet: Option<Wavelet>,
}

impl Form for WaveFt {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.spectrum]
    }

    fn nature(&self) -> Nature {
        Nature::Dense
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, shape: (usize, usize)) -> Result<Update> {
        let values = read_f64(find(file, &self.spectrum)?, 0, self.count)?;
        let places = drawn(self.seed, shape, self.count).into_iter().zip(values);
        let elements = match &self.wavelet {
            None => places.map(|((row, column), v)| (row as u32, column as u32, v)).collect(),
            Some(wavelet) => {
                // The weight's own places lie in the middle of what the transform needs.
                let margin = |size: usize| (wavelet.coefficients(size) - size) / 2;
                let (above, before) = (margin(shape.0), margin(shape.1));
                let moved = places.map(|((row, column), v)| ((row + above, column + before), v));
                wavelet.synthesise(shape, moved)
            }
        };
        Ok(Update::Rows(RowMatrix::Sparse(Sparse::new(elements))))
    }

    fn check(&self, shape: (usize, usize)) -> Result<()> {
        check_count(self.count, shape).in_tensor(&self.spectrum)
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let spectrum = source.required("waveft_spectrum", "a module")?;
    let count = source.vector(spectrum)?;
    let config = source.required_config()?;
    let inverted = config.document.get("use_idwt").is_none() || config.flag("use_idwt");
    let name = config.text("wavelet_family").unwrap_or("db1");
    let wavelet = Wavelet::named(name).ok_or_else(|| ErrorKind::BadConfig {
        reason: format!("`wavelet_family` is {name}, of which PEFT merges nothing either"),
    });
    Ok(Module {
        scale: Scale::of_family(config.number("scaling")?.unwrap_or(25.0), None),
        ..source.linear(
            &FAMILY,
            WaveFt {
                spectrum: spectrum.to_owned(),
                count,
                seed: config.seed("random_loc_seed", 777)?,
                wavelet: inverted.then_some(wavelet).transpose()?,
            },
        )
    })
}
