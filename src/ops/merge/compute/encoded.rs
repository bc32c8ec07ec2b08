//! A weight that is quantised again: its new values by panels, as its encoding stores them, and what of its update
//! survived.

use std::ops::Range;

use super::making::Making;
use super::tensor_merge::{Scratch, Work};
use crate::error::{ErrorKind, Locate, Result};
use crate::math::DeltaStats;
use crate::ops::merge::plan::tensor_plan::OutputTensor;
use crate::weight::{Encode, Encoded, Panel, Weight, Writing};

/// Elements that one panel has, about.
const PANEL: usize = 64 << 10;

/// A weight ready to be quantised again.
pub(in crate::ops::merge) struct Encoding<'a> {
    weight: &'a Weight,
    writer: &'a dyn Encode,
    writing: Writing,
    dense: Work<'a>,
    /// Rows of the dense result's matrix are so many times as long as the weight's.
    times: usize,
    survey: Vec<f32>,
}

/// Rows of a weight's matrix that one of the dense result's holds.
fn times(weight: &Weight, dense: &OutputTensor) -> usize {
    (dense.matrix.1 / weight.matrix().1.max(1)).max(1)
}

/// Rows of a panel: whole ones of what the encoding writes together, and of the dense result.
pub(in crate::ops::merge) fn panel_rows(
    weight: &Weight,
    dense: &OutputTensor,
    asked: Option<usize>,
) -> usize {
    let (rows, columns) = weight.matrix();
    let grain = weight.writer().map_or(1, |writer| writer.grain()).max(1);
    let times = times(weight, dense);
    let mut step = grain;
    while !step.is_multiple_of(times) {
        step += grain;
    }
    let wanted = asked.unwrap_or(PANEL / columns.max(1)).clamp(1, rows.max(1));
    wanted.next_multiple_of(step)
}

impl<'a> Encoding<'a> {
    /// Reads what the weight needs; where its encoding has to, looks at all its new values.
    pub(in crate::ops::merge) fn new(
        making: Making<'a>,
        dense: &'a OutputTensor,
        panel_rows: usize,
    ) -> Result<Self> {
        let (weight, writing) = making.inputs.weight(&dense.full_name)?;
        let writer = weight.writer().ok_or(ErrorKind::NotFound).in_tensor(&weight.name)?;
        let mut encoding = Self {
            weight,
            writer: writer.as_ref(),
            writing,
            dense: Work::new(making, dense, None)?,
            times: times(weight, dense),
            survey: Vec::new(),
        };
        if writer.surveys(writing) {
            let mut scratch = Scratch::default();
            let (rows, mut survey) = (weight.matrix().0, Vec::new());
            for first in (0..rows).step_by(panel_rows) {
                let panel = first..(first + panel_rows).min(rows);
                survey.extend(writer.survey(&encoding.values(&panel, &mut scratch)?));
            }
            encoding.survey = survey;
        }
        Ok(encoding)
    }

    /// New values of some rows.
    fn values(&self, rows: &Range<usize>, scratch: &mut Scratch) -> Result<Vec<f32>> {
        let mut bytes = Vec::new();
        let (first, end) = (rows.start / self.times, rows.end.div_ceil(self.times));
        self.dense.compute(first, end - first, &mut bytes, scratch)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
    }

    /// Gives rows that nothing changes their stored bytes back: new scales would move numbers that lie on a grid (4
    /// bits of compressed-tensors by 7 % of their norm). Where a number of the whole weight is made of all values,
    /// nothing can be kept alone.
    fn keep_untouched(
        &self,
        rows: Range<usize>,
        values: &[f32],
        encoded: &mut Encoded,
    ) -> Result<()> {
        let parts = self.writer.parts(self.writing);
        let stored = parts.iter().map(|part| self.weight.parts.iter().find(|s| s.holds(part)));
        let Some(stored) = stored.collect::<Option<Vec<_>>>() else { return Ok(()) };
        if self.writer.surveys(self.writing) {
            return Ok(());
        }
        let mut before = vec![0.0; values.len()];
        self.weight.rows(rows.clone(), &mut before)?;
        let (step, columns) = (self.writer.grain().max(1), values.len() / rows.len().max(1));
        let groups =
            values.chunks((step * columns).max(1)).zip(before.chunks((step * columns).max(1)));
        let same: Vec<bool> = groups.map(|(new, old)| new == old).collect();
        if !same.contains(&true) {
            return Ok(());
        }
        let (mut kept, mut group, mut scratch) = (Encoded::default(), 0, Vec::new());
        for run in same.chunk_by(|a, b| a == b) {
            let (first, end) = (group * step, ((group + run.len()) * step).min(rows.len()));
            group += run.len();
            let own = values.get(first * columns..end * columns).unwrap_or_default();
            let place = rows.start + first..rows.start + end;
            let panel = Panel::new(&self.weight.name, place, own, self.writing, &self.survey);
            let mut new = Encoded::default();
            self.writer.rows(&panel, &mut new)?;
            if run.contains(&true) {
                for piece in &mut new.pieces {
                    let Some(stored) = stored.get(piece.part) else { continue };
                    let range = piece.at..piece.at + piece.bytes.len();
                    piece.bytes.copy_from_slice(stored.bytes(range, &mut scratch)?);
                }
                new.values.copy_from_slice(own);
            }
            kept.pieces.extend(new.pieces);
            kept.values.extend(new.values);
        }
        *encoded = kept;
        Ok(())
    }

    /// Rows of the stored tensors, and what of the update they hold.
    pub(in crate::ops::merge) fn compute(
        &self,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(Encoded, DeltaStats)> {
        let panel_rows = rows.clone();
        let values = self.values(&rows, scratch)?;
        let mut encoded = Encoded::default();
        let panel =
            Panel::new(&self.weight.name, rows.clone(), &values, self.writing, &self.survey);
        self.writer.rows(&panel, &mut encoded)?;
        if rows.start == 0 {
            self.writer.rest(self.writing, &self.survey, &mut encoded)?;
        }
        let mut base = vec![0.0; values.len()];
        self.weight.rows(rows, &mut base)?;
        let mut stats = DeltaStats::default();
        self.keep_untouched(panel_rows, &values, &mut encoded)?;
        for ((value, stored), old) in values.iter().zip(&encoded.values).zip(&base) {
            let (asked, added) = (f64::from(value - old), f64::from(stored - old));
            stats.asked += asked * asked;
            stats.added += added * added;
            stats.dot += asked * added;
            stats.touched += u64::from(asked != 0.0);
            stats.lost += u64::from(asked != 0.0 && added == 0.0);
            stats.elements += 1;
        }
        Ok((encoded, stats))
    }
}
