//! FourierFT (Gao et al. 2024, <https://arxiv.org/abs/2405.03003>): the real part of the inverse Fourier transform of a
//! matrix of a few entries, times `scaling` (PEFT `tuners/fourierft/layer.py`). Where the entries are, `random_loc_seed`
//! says by PyTorch's random numbers.
//!
//! With entries cₖ at (uₖ, vₖ) of an m × n weight, Δ[p, q] = 1/(m·n) · Σ cₖ·cos(2π·(uₖ·p/m + vₖ·q/n)). Frequencies u and
//! m − u make the same pair of waves along p, so that the update has factors of at most two levels for each.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use super::prelude::*;
use crate::math::elements::torch_random::TorchGenerator;

pub(super) static FAMILY: Family =
    Family { name: "fourierft", signs: &[Part::Named("fourierft_spectrum")], parts: &[], build };

#[derive(Debug)]
struct FourierFt {
    spectrum: String,
    count: usize,
    seed: u64,
}

impl Form for FourierFt {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.spectrum]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(2 * self.count)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let values = read_f64(find(file, &self.spectrum)?, 0, self.count)?;
        let places = drawn(self.seed, (outputs, inputs), self.count);
        // Waves along the shorter side, since there are at most as many as it has elements.
        let turned = outputs > inputs;
        let entries = places.into_iter().zip(values);
        let entries = entries.map(|((u, v), c)| if turned { (v, u, c) } else { (u, v, c) });
        let size = if turned { (inputs, outputs) } else { (outputs, inputs) };
        let waves = waves(entries, size);
        Ok(Update::LowRank(if turned { waves.transposed() } else { waves }))
    }

    fn check(&self, shape: (usize, usize)) -> Result<()> {
        check_count(self.count, shape).in_tensor(&self.spectrum)
    }
}

/// The places that PEFT draws in an outputs × inputs weight: rows and columns.
pub(super) fn drawn(
    seed: u64,
    (outputs, inputs): (usize, usize),
    count: usize,
) -> Vec<(usize, usize)> {
    let size = outputs as u64 * inputs as u64;
    let places = TorchGenerator::new(seed).permutation(size, count).into_iter();
    places.map(|place| (place as usize / inputs, place as usize % inputs)).collect()
}

/// Fails if a weight has fewer elements than there are values for it.
pub(super) fn check_count(count: usize, (outputs, inputs): (usize, usize)) -> Result<()> {
    if count <= outputs.saturating_mul(inputs) {
        return Ok(());
    }
    Err(FamilyError::TooManyValues { count, outputs, inputs }.into())
}

/// The real part of the inverse transform of entries (row, column, value).
fn waves(entries: impl Iterator<Item = (usize, usize, f64)>, (m, n): (usize, usize)) -> LowRank {
    let mut by_wave: BTreeMap<usize, Vec<(usize, f64, f64)>> = BTreeMap::new();
    for (u, v, value) in entries {
        let (wave, sign) = if 2 * u > m { (m - u, -1.0) } else { (u, 1.0) };
        by_wave.entry(wave).or_default().push((v, value / (m as f64 * n as f64), sign));
    }
    let circle = |steps: usize| -> Vec<(f64, f64)> {
        (0..steps).map(|at| (TAU * at as f64 / steps as f64).sin_cos()).collect()
    };
    let (around_m, around_n) = (circle(m), circle(n));
    // The sine of frequency 0, and of half the length, is 0 everywhere.
    let levels: Vec<(usize, bool)> = by_wave
        .keys()
        .flat_map(|wave| {
            let sine = *wave != 0 && 2 * wave != m;
            [(*wave, false)].into_iter().chain(sine.then_some((*wave, true)))
        })
        .collect();
    let up = Matrix::from_fn(m, levels.len(), |p, level| {
        let (wave, is_sine) = levels[level];
        let (sin, cos) = around_m[wave * p % m];
        if is_sine { -sin } else { cos }
    });
    let down = Matrix::from_fn(levels.len(), n, |level, q| {
        let (wave, is_sine) = levels[level];
        let part = |&(v, value, sign): &(usize, f64, f64)| {
            let (sin, cos) = around_n[v * q % n];
            value * if is_sine { sign * sin } else { cos }
        };
        by_wave.get(&wave).map_or(0.0, |entries| entries.iter().map(part).sum())
    });
    LowRank::new(up, down)
}

fn build(source: &Source<'_>) -> Result<Module> {
    let spectrum = source.required("fourierft_spectrum", "a module")?;
    let count = source.vector(spectrum)?;
    let config = source.required_config()?;
    Ok(Module {
        scale: Scale::of_family(config.number("scaling")?.unwrap_or(150.0), None),
        ..source.linear(
            &FAMILY,
            FourierFt {
                spectrum: spectrum.to_owned(),
                count,
                seed: config.seed("random_loc_seed", 777)?,
            },
        )
    })
}
