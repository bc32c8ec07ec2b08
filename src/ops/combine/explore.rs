//! What other ranks would keep and cost, from singular values alone.

use serde::Serialize;

use super::open::Combine;
use super::rank::{file_size, spectra};
use crate::error::Result;
use crate::math::RankPolicy;
use crate::ops::{Progress, thread_pool};

/// What a rank policy would give.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Choice {
    /// The policy, as `--rank` takes it.
    pub rank: String,
    /// The lowest rank of any module.
    pub lowest: usize,
    /// The highest.
    pub highest: usize,
    /// ‖written‖² / ‖combined‖², over all modules.
    pub energy_kept: f64,
    /// ‖combined − written‖ / ‖combined‖, over all modules.
    pub relative_error: f64,
    /// Values in the factors.
    pub parameters: u64,
    /// Bytes of the tensor file.
    pub bytes: u64,
}

/// Powers of two below the highest rank, then what keeps a share of the energy in every module, then all of it.
fn policies(highest: usize) -> Vec<RankPolicy> {
    let fixed = (0..usize::BITS).map(|power| 1_usize << power).take_while(|rank| *rank < highest);
    let shares = [0.9, 0.95, 0.99].map(RankPolicy::Energy);
    fixed.map(RankPolicy::Fixed).chain(shares).chain([RankPolicy::Lossless]).collect()
}

impl Combine {
    /// What powers of two, shares of the energy and `lossless` would give, from one reading of the factors.
    ///
    /// # Errors
    /// If factors cannot be read or are not finite.
    pub fn explore(&self, progress: &dyn Progress) -> Result<Vec<Choice>> {
        let pool = thread_pool(self.options.threads)?;
        progress.begin(self.groups.len() as u64);
        let spectra = pool.install(|| spectra(self, progress))?;
        let highest = spectra.iter().map(|(_, rank)| *rank).max().unwrap_or(1);
        let choice = |policy: RankPolicy| {
            let ranks: Vec<usize> = spectra
                .iter()
                .map(|(module, stacked)| match policy {
                    RankPolicy::Fixed(rank) => rank.min(*stacked),
                    policy => policy.of(module),
                })
                .collect();
            let (mut kept, mut dropped, mut parameters) = (0.0, 0.0, 0);
            for ((module, _), rank) in spectra.iter().zip(&ranks) {
                let squares = module.singular_values.iter().map(|value| value * value);
                kept += squares.clone().take(*rank).sum::<f64>();
                dropped += squares.skip(*rank).sum::<f64>();
                parameters += (rank * (module.rows + module.columns)) as u64;
            }
            let all = kept + dropped;
            let share = |part: f64, otherwise: f64| if all > 0.0 { part / all } else { otherwise };
            Ok(Choice {
                rank: policy.to_string(),
                lowest: ranks.iter().min().copied().unwrap_or(0),
                highest: ranks.iter().max().copied().unwrap_or(0),
                energy_kept: share(kept, 1.0),
                relative_error: share(dropped, 0.0).sqrt(),
                parameters,
                bytes: file_size(self, &ranks)?,
            })
        };
        policies(highest).into_iter().map(choice).collect()
    }
}
