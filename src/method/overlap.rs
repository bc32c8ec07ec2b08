//! How far deltas that leave most elements as they are meet in the others, as RAM+ looks at them.

use super::panel::{Counts, Panel};
use super::params::{OVERLAP_CAP, OVERLAP_GAIN};
use super::settings::Settings;

/// Counts, of every input and row, the elements that others have too and those that it has alone.
pub(super) fn count(panel: &Panel, counts: &mut Counts) {
    let columns = panel.columns.max(1);
    let length = panel.deltas.first().map_or(0, Vec::len);
    let mut having = vec![0u32; length];
    for delta in &panel.deltas {
        for (count, value) in having.iter_mut().zip(delta) {
            *count += u32::from(*value != 0.0);
        }
    }
    for (norms, delta) in counts.norms.iter_mut().zip(&panel.deltas) {
        norms.resize(norms.len().max(panel.first + length / columns), (0.0, 0.0));
        let rows = delta.chunks(columns).zip(having.chunks(columns));
        for ((values, having), row) in rows.zip(&mut norms[panel.first..]) {
            let non_zero = || values.iter().zip(having).filter(|(value, _)| **value != 0.0);
            let shared = non_zero().filter(|(_, count)| **count > 1).count();
            *row = (shared as f64, (non_zero().count() - shared) as f64);
        }
    }
}

/// What a delta's elements are multiplied by that no other has, of how many others have too and how many it has alone.
pub(super) fn raise(settings: &Settings, (shared, alone): (f64, f64)) -> f32 {
    if shared == 0.0 {
        return 1.0;
    }
    let overlap = (shared / alone).min(settings.number(&OVERLAP_CAP));
    (1.0 + settings.number(&OVERLAP_GAIN) * overlap) as f32
}
