//! What an adapter has by itself: a K × K core a module, by least squares for the directions as they are stored.

use rayon::prelude::*;

use super::bases::{Bases, Side};
use super::codes::Coded;
use super::document::core_rows;
use super::options::Number;
use super::survey::Surveyed;
use crate::adapter::Adapter;
use crate::error::{Locate, Result};
use crate::math::linalg::matrix::{product, transposed_product};
use crate::math::{LowRank, Matrix};

/// The cores of an adapter, one module after another.
#[derive(Debug, Default)]
pub(super) struct Cores {
    pub(super) coded: Coded,
    /// The rank of each module's core; 0 of one that the adapter does not have.
    pub(super) ranks: Vec<usize>,
    /// ‖Δ − what is stored‖ / ‖Δ‖.
    pub(super) error: f64,
}

/// Makes the cores of an adapter for the directions of a group.
///
/// # Errors
/// Reading errors, a value that the dtype does not reach.
pub(super) fn cores(
    bases: &Bases,
    cluster: usize,
    (adapter, surveyed): (&Adapter, &Surveyed),
) -> Result<Cores> {
    let modules = (0..bases.shared.modules.len()).into_par_iter().map(|module| {
        let Some(delta) = surveyed.delta(adapter, module)? else { return Ok(None) };
        let name = &bases.module(module)?.name;
        let sides = bases.sides(cluster, module)?;
        let core = core(&delta, &sides, bases.number).in_tensor(name).in_file(&adapter.path)?;
        Ok(Some(core))
    });
    let modules: Vec<Option<Core>> = modules.collect::<Result<_>>()?;
    let mut all = Cores::default();
    let mut lost = 0.0;
    for core in modules {
        let Some(core) = core else {
            all.ranks.push(0);
            continue;
        };
        all.coded.bytes.extend(core.coded.bytes);
        all.coded.scales.extend(core.coded.scales);
        all.ranks.push(core.rank);
        lost += core.lost;
    }
    all.error = (lost * surveyed.weight()).sqrt();
    Ok(all)
}

struct Core {
    coded: Coded,
    rank: usize,
    /// ‖Δ − what is stored‖².
    lost: f64,
}

fn core(delta: &LowRank, (left, right): &(Side, Side), number: Number) -> Result<Core> {
    let count = left.vectors.ncols();
    let rank = delta.rank().min(count);
    let up = transposed_product(&left.vectors, &delta.up);
    let down = product(&delta.down, &right.vectors);
    let best = LowRank::new(product(&left.inverse, &up), product(&down, &right.inverse));
    let mut coded = Coded::default();
    let values = if is_factored(rank, count) {
        let cut = best.svd().truncate(rank);
        let down = cut.down.transpose();
        [cut.up.as_slice(), down.as_slice()].concat()
    } else {
        best.dense().transpose().as_slice().to_vec()
    };
    coded.add(number, &values, count)?;
    let stored = of_values(&coded.values(number.dtype(), count)?, rank, count);
    // ‖Δ − U·S·Vᵀ‖² = ‖Δ‖² − 2·⟨Uᵀ·Δ·V, S⟩ + ⟨UᵀU·S·VᵀV, S⟩.
    let seen = LowRank::new(up, down).inner(&stored);
    let turned = LowRank::new(product(&left.gram, &stored.up), product(&stored.down, &right.gram));
    let lost = delta.squared_norm() - 2.0 * seen + turned.inner(&stored);
    Ok(Core { coded, rank, lost: lost.max(0.0) })
}

fn is_factored(rank: usize, count: usize) -> bool {
    core_rows(rank, count) < count
}

/// A core from the values that it is stored as: K × k · k × K.
pub(super) fn of_values(values: &[f64], rank: usize, count: usize) -> LowRank {
    if is_factored(rank, count) {
        let (up, down) = values.split_at(rank * count);
        let up = Matrix::from_column_slice(count, rank, up);
        return LowRank::new(up, Matrix::from_row_slice(rank, count, down));
    }
    let whole = Matrix::from_row_slice(count, count, values);
    LowRank::new(whole, Matrix::identity(count, count))
}
