//! What a weight loses where it is quantised, by rows: its dense merge minus what its codes stand for.

use super::encoded::{Encoding, Survey, panel_rows};
use super::making::Making;
use super::scratch::Scratch;
use crate::error::{Error, Result};
use crate::math::LowRank;
use crate::math::linalg::panels::Panels;
use crate::ops::merge::OutputTensor;

/// Elements that are looked at together, about.
const PANEL: usize = 64 << 10;

/// dense − quantised, whose rows are computed as often as they are asked for.
pub(in crate::ops::merge) struct Lost<'a> {
    encoding: Encoding<'a>,
    size: (usize, usize),
    /// Rows that are encoded together.
    step: usize,
    scratch: Scratch,
}

/// What low-rank factors give back of it: sums of squares and a product over all elements.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Given {
    /// ‖update‖².
    pub(in crate::ops::merge) asked: f64,
    /// ‖dense − quantised‖².
    pub(in crate::ops::merge) lost: f64,
    /// ‖dense − quantised − factors‖².
    pub(in crate::ops::merge) left: f64,
    /// ⟨quantised + factors − base, update⟩.
    pub(in crate::ops::merge) dot: f64,
}

impl<'a> Lost<'a> {
    /// Reads what the weight needs, and looks at all of it where its encoding has to.
    ///
    /// # Errors
    /// Reading.
    pub(in crate::ops::merge) fn new(making: Making<'a>, dense: &'a OutputTensor) -> Result<Self> {
        let (weight, _) = making.inputs.weight(&dense.full_name)?;
        let (size, step) = (weight.matrix(), panel_rows(weight, dense, Some(1)));
        let mut encoding = Encoding::new(making, dense, Survey::default())?;
        if Encoding::surveys(making, dense)? {
            let rows = panel_rows(weight, dense, None);
            let survey = encoding.look(rows)?;
            encoding = Encoding::new(making, dense, survey)?;
        }
        Ok(Self { encoding, size, step, scratch: Scratch::default() })
    }

    /// Dense and quantised values of rows that hold at least `rows`, and the first of them.
    fn values(&mut self, rows: std::ops::Range<usize>) -> Result<(usize, Vec<f32>, Vec<f32>)> {
        let first = rows.start / self.step * self.step;
        let end = rows.end.next_multiple_of(self.step).min(self.size.0);
        let dense = self.encoding.values(&(first..end), &mut self.scratch)?;
        // Rows that nothing changes keep their codes, and lose nothing.
        let encoded = self.encoding.encode(&(first..end), &dense, &mut self.scratch.before)?;
        Ok((first, dense, encoded.values))
    }

    /// What factors, as they are stored, give back.
    ///
    /// # Errors
    /// Reading.
    pub(in crate::ops::merge) fn with(&mut self, factors: &LowRank) -> Result<Given> {
        let (rows, columns) = self.size;
        let stored = |value: f64| f64::from(value as f32);
        let (up, down) = (factors.up.map(stored), factors.down.map(stored));
        let height = (PANEL / columns.max(1)).max(1).next_multiple_of(self.step);
        let (mut given, mut row) = (Given::default(), vec![0.0; columns]);
        for first in (0..rows).step_by(height) {
            let panel = first..(first + height).min(rows);
            let (_, dense, quantised) = self.values(panel.clone())?;
            let base = self.encoding.before(panel.clone(), dense.len())?;
            let lines = dense.chunks(columns).zip(quantised.chunks(columns));
            for ((at, (dense, quantised)), base) in panel.zip(lines).zip(base.chunks(columns)) {
                row.fill(0.0);
                for (level, up) in up.row(at).iter().enumerate() {
                    for (sum, down) in row.iter_mut().zip(down.row(level).iter()) {
                        *sum += up * down;
                    }
                }
                for (((dense, quantised), base), back) in
                    dense.iter().zip(quantised).zip(base).zip(&row)
                {
                    let [dense, quantised, base] = [*dense, *quantised, *base].map(f64::from);
                    let (asked, lost) = (dense - base, dense - quantised);
                    given.asked += asked * asked;
                    given.lost += lost * lost;
                    given.left += (lost - back) * (lost - back);
                    given.dot += (quantised + back - base) * asked;
                }
            }
        }
        Ok(given)
    }
}

impl Panels for Lost<'_> {
    type Error = Error;

    fn rows(&self) -> usize {
        self.size.0
    }

    fn columns(&self) -> usize {
        self.size.1
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let columns = self.size.1.max(1);
        let (start, dense, quantised) = self.values(first..first + out.len() / columns)?;
        let skip = (first - start) * columns;
        let pairs = dense.iter().zip(&quantised).skip(skip);
        for (slot, (dense, quantised)) in out.iter_mut().zip(pairs) {
            *slot = dense - quantised;
        }
        Ok(())
    }
}
