//! A weight that is quantised again: its new values by panels, as its encoding stores them, and what of its update
//! survived.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::making::Making;
use super::scratch::{BaseRows, Scratch};
use super::tensor_merge::Work;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::DeltaStats;
use crate::math::kernel::loops::same_elements;
use crate::ops::merge::plan::tensor_plan::OutputTensor;
use crate::weight::{Encode, Encoded, Panel, Piece, Stored, Weight, Writing};

// Rows of f32 are given to the kernel and taken from it as the bytes that files have.
const _: () = assert!(cfg!(target_endian = "little"), "numbers lie in memory as in the files");

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
    survey: Survey,
    /// The base's own tensor, where the weight is that of a quantised sibling.
    base: Option<TensorView<'a>>,
}

/// What is known of all values before any is encoded.
#[derive(Debug, Default)]
pub(in crate::ops::merge) struct Survey {
    /// What the encoding needs.
    numbers: Vec<f32>,
    /// Whether no value changes.
    is_unchanged: bool,
}

/// Some rows of a weight, as they are to become and as they are.
pub(in crate::ops::merge) struct Sample {
    pub(in crate::ops::merge) rows: Range<usize>,
    pub(in crate::ops::merge) values: Vec<f32>,
    pub(in crate::ops::merge) before: Vec<f32>,
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

/// Gives pieces the bytes of what is stored.
fn give_back(stored: &[&Stored], pieces: &mut [Piece]) -> Result<()> {
    let mut scratch = Vec::new();
    for piece in pieces {
        let Some(stored) = stored.get(piece.part) else { continue };
        let range = piece.at..piece.at + piece.bytes.len();
        piece.bytes.copy_from_slice(stored.bytes(range, &mut scratch)?);
    }
    Ok(())
}

impl<'a> Encoding<'a> {
    /// Reads what the weight needs; `survey` is what [`Encoding::look`] has found.
    pub(in crate::ops::merge) fn new(
        making: Making<'a>,
        dense: &'a OutputTensor,
        survey: Survey,
    ) -> Result<Self> {
        let (weight, writing) = making.inputs.weight(&dense.full_name)?;
        let writer = weight.writer().ok_or(ErrorKind::NotFound).in_tensor(&weight.name)?;
        Ok(Self {
            weight,
            writer: writer.as_ref(),
            writing,
            dense: Work::new(making, dense, None)?,
            times: times(weight, dense),
            survey,
            base: making.inputs.base.tensor(&dense.base).filter(|_| making.inputs.values.is_some()),
        })
    }

    /// Whether all new values have to be looked at before any is encoded.
    pub(in crate::ops::merge) fn surveys(making: Making<'_>, dense: &OutputTensor) -> Result<bool> {
        let (weight, writing) = making.inputs.weight(&dense.full_name)?;
        Ok(weight.writer().is_some_and(|writer| writer.surveys(writing)))
    }

    /// Looks at all new values, in parallel: what encoding any of them needs.
    pub(in crate::ops::merge) fn look(&self, panel_rows: usize) -> Result<Survey> {
        let rows = self.weight.matrix().0;
        let panels: Vec<usize> = (0..rows).step_by(panel_rows).collect();
        let changed = AtomicBool::new(self.base.is_some());
        let found = panels.into_par_iter().map_init(Scratch::default, |scratch, first| {
            let panel = first..(first + panel_rows).min(rows);
            let values = self.values(&panel, scratch)?;
            if !changed.load(Ordering::Relaxed) && values != self.before(panel, values.len())? {
                changed.store(true, Ordering::Relaxed);
            }
            Ok(self.writer.survey(&values))
        });
        // The first in order fails, whatever the threads.
        let found: Vec<Result<Vec<f32>>> = found.collect();
        let found: Vec<Vec<f32>> = found.into_iter().collect::<Result<_>>()?;
        let numbers = self.writer.settle(&found.concat())?;
        Ok(Survey { numbers, is_unchanged: !changed.into_inner() })
    }

    /// Rows whose new values cost least together.
    fn grain(&self) -> usize {
        let mut grain = self.weight.grain().max(1);
        while !grain.is_multiple_of(self.times) {
            grain += self.weight.grain().max(1);
        }
        grain
    }

    /// New values of some rows.
    pub(in crate::ops::merge) fn values(
        &self,
        rows: &Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.put_values(rows, &mut values, scratch)?;
        Ok(values)
    }

    /// Has the new values of these rows in `values`, and in `before` the base's of the last strip of them.
    fn put_values(
        &self,
        rows: &Range<usize>,
        values: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let columns = self.weight.matrix().1.max(1);
        values.resize(rows.len() * columns, 0.0);
        let mut before = std::mem::take(&mut scratch.before);
        // What is there may be of another weight.
        before.rows = 0..0;
        let computed = self.strips(rows).try_for_each(|strip| {
            let place = (strip.start - rows.start) * columns..(strip.end - rows.start) * columns;
            let part = values.get_mut(place).unwrap_or_default();
            let is_shared = self.base.is_none() && self.dense.takes_f32();
            if is_shared {
                self.look_before(&strip, columns, &mut before)?;
            }
            let base = is_shared.then(|| bytemuck::cast_slice(&before.values));
            let first = strip.start / self.times;
            self.dense.compute_into(first, bytemuck::cast_slice_mut(part), base, scratch)?;
            Ok(())
        });
        scratch.before = before;
        computed
    }

    /// Some panels that lie apart, of about so many elements in all.
    pub(in crate::ops::merge) fn samples(
        &self,
        elements: usize,
        places: usize,
    ) -> Result<Vec<Sample>> {
        let (rows, columns) = self.weight.matrix();
        let step = (elements / places.max(1) / columns.max(1)).clamp(1, rows.max(1));
        let step = step.next_multiple_of(self.grain());
        let panels = rows.div_ceil(step);
        let count = places.min(panels);
        let mut scratch = Scratch::default();
        let sample = |place: usize| {
            let first = place * panels / count * step;
            let rows = first..(first + step).min(rows);
            let values = self.values(&rows, &mut scratch)?;
            let before = self.before(rows.clone(), values.len())?;
            Ok(Sample { rows, values, before })
        };
        (0..count).map(sample).collect()
    }

    /// The base's values of some rows.
    pub(in crate::ops::merge) fn before(
        &self,
        rows: Range<usize>,
        count: usize,
    ) -> Result<Vec<f32>> {
        let mut values = vec![0.0; count];
        self.put_before(rows, &mut values)?;
        Ok(values)
    }

    fn put_before(&self, rows: Range<usize>, values: &mut [f32]) -> Result<()> {
        let Some(base) = self.base else { return self.weight.rows(rows, values) };
        let found = read_f64(base, rows.start * self.weight.matrix().1, values.len())?;
        for (slot, value) in values.iter_mut().zip(found) {
            *slot = value as f32;
        }
        Ok(())
    }

    /// Rows of the stored tensors as they are written, of new values. Rows that nothing changes keep their stored bytes:
    /// new scales would move numbers that lie on a grid (4 bits of compressed-tensors by 7 % of their norm). Where a
    /// number of the whole weight is made of all values, all is kept or nothing.
    pub(super) fn encode(
        &self,
        rows: &Range<usize>,
        values: &[f32],
        before: &mut BaseRows,
    ) -> Result<Encoded> {
        let may_keep = !self.writer.surveys(self.writing) || self.survey.is_unchanged;
        let Some(stored) = self.stored().filter(|_| may_keep) else {
            return self.encode_anew(rows.clone(), values);
        };
        let same = self.same_groups(rows, values, before)?;
        if !same.contains(&true) {
            return self.encode_anew(rows.clone(), values);
        }
        let (step, columns) = (self.writer.grain().max(1), values.len() / rows.len().max(1));
        let (mut kept, mut group) = (Encoded::default(), 0);
        for run in same.chunk_by(|a, b| a == b) {
            let (first, end) = (group * step, ((group + run.len()) * step).min(rows.len()));
            group += run.len();
            let own = values.get(first * columns..end * columns).unwrap_or_default();
            let mut new = self.encode_anew(rows.start + first..rows.start + end, own)?;
            if run.contains(&true) {
                give_back(&stored, &mut new.pieces)?;
                new.values.copy_from_slice(own);
            }
            kept.pieces.extend(new.pieces);
            kept.values.extend(new.values);
        }
        Ok(kept)
    }

    fn encode_anew(&self, rows: Range<usize>, values: &[f32]) -> Result<Encoded> {
        let mut encoded = Encoded::default();
        let panel = Panel::new(&self.weight.name, rows, values, self.writing, &self.survey.numbers);
        self.writer.rows(&panel, &mut encoded)?;
        Ok(encoded)
    }

    /// Rows of the base that are looked at together: a panel of rows that are written together can be many times as
    /// long, and is not to be in memory once more.
    fn strips(&self, rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let height = (PANEL / self.weight.matrix().1.max(1)).max(1);
        // A panel that is a little longer is one.
        let height = height.next_multiple_of(self.grain()).max(self.writer.grain().min(2 * height));
        let end = rows.end;
        rows.clone().step_by(height).map(move |first| first..(first + height).min(end))
    }

    /// Of rows that are written together, which have the values that the base has.
    fn same_groups(
        &self,
        rows: &Range<usize>,
        values: &[f32],
        before: &mut BaseRows,
    ) -> Result<Vec<bool>> {
        let (step, columns) = (self.writer.grain().max(1), values.len() / rows.len().max(1));
        let mut same = vec![true; rows.len().div_ceil(step)];
        for strip in self.strips(rows) {
            let groups = (strip.start - rows.start) / step..(strip.end - rows.start).div_ceil(step);
            if !same.get(groups.clone()).unwrap_or_default().contains(&true) {
                continue;
            }
            self.look_before(&strip, columns, before)?;
            for group in groups {
                let first = (rows.start + group * step).max(strip.start);
                let end = (rows.start + (group + 1) * step).min(strip.end);
                let place = |start: usize| (first - start) * columns..(end - start) * columns;
                let is_same =
                    values.get(place(rows.start)) == before.values.get(place(strip.start));
                if let Some(same) = same.get_mut(group) {
                    *same &= is_same;
                }
            }
        }
        Ok(same)
    }

    /// Has the base's values of these rows in `before`.
    fn look_before(
        &self,
        rows: &Range<usize>,
        columns: usize,
        before: &mut BaseRows,
    ) -> Result<()> {
        if before.rows == *rows && !rows.is_empty() {
            return Ok(());
        }
        before.values.resize(rows.len() * columns, 0.0);
        before.rows = 0..0;
        self.put_before(rows.clone(), &mut before.values)?;
        before.rows = rows.clone();
        Ok(())
    }

    /// The stored tensors in the order of those that are written, if they are the same in name, dtype and shape. What
    /// another checkpoint's numbers become has none yet.
    fn stored(&self) -> Option<Vec<&Stored>> {
        let parts = self.writer.parts(self.writing);
        let stored = parts.iter().map(|part| self.weight.parts.iter().find(|s| s.holds(part)));
        stored.collect::<Option<Vec<_>>>().filter(|_| self.base.is_none())
    }

    /// Pieces of the stored tensors for some rows, and what of the update they hold.
    pub(in crate::ops::merge) fn compute(
        &self,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(Vec<Piece>, DeltaStats)> {
        let mut values = std::mem::take(&mut scratch.values);
        self.put_values(&rows, &mut values, scratch)?;
        let found = self.compute_from(&rows, &values, &mut scratch.before);
        scratch.values = values;
        found
    }

    fn compute_from(
        &self,
        rows: &Range<usize>,
        values: &[f32],
        before: &mut BaseRows,
    ) -> Result<(Vec<Piece>, DeltaStats)> {
        let mut encoded = self.encode(rows, values, before)?;
        if rows.start == 0 {
            let panel = encoded.pieces.len();
            self.writer.rest(self.writing, &self.survey.numbers, &mut encoded)?;
            if let (true, Some(stored)) = (self.survey.is_unchanged, self.stored()) {
                give_back(&stored, encoded.pieces.get_mut(panel..).unwrap_or_default())?;
            }
        }
        let (mut stats, columns) = (DeltaStats::default(), values.len() / rows.len().max(1));
        for strip in self.strips(rows) {
            self.look_before(&strip, columns, before)?;
            let place = (strip.start - rows.start) * columns..(strip.end - rows.start) * columns;
            let own = values.get(place.clone()).unwrap_or_default();
            let written = encoded.values.get(place).unwrap_or_default();
            stats.add(&DeltaStats::of(own, written, &before.values));
        }
        if let Some(same) = self.same_codes(&encoded)? {
            // With new scales a number moves though its code does not.
            let untouched = stats.elements - stats.touched;
            stats.lost = same.saturating_sub(untouched).min(stats.touched);
        }
        Ok((encoded.pieces, stats))
    }

    /// How many codes are those that are stored; `None`, where codes are no whole bytes or halves of them, or are
    /// stored otherwise.
    fn same_codes(&self, encoded: &Encoded) -> Result<Option<u64>> {
        let parts = self.writer.parts(self.writing);
        let (Some(part), Some(stored)) = (parts.first(), self.weight.parts.first()) else {
            return Ok(None);
        };
        let is_same = part.name == stored.name && part.dtype == stored.dtype;
        let bits = part.bytes() * 8 / self.weight.elements().max(1);
        let is_whole = part.bytes() * 8 == self.weight.elements() * bits && [4, 8].contains(&bits);
        if !(is_same && part.shape == stored.shape && is_whole) {
            return Ok(None);
        }
        let (mut same, mut scratch) = (0, Vec::new());
        for piece in encoded.pieces.iter().filter(|piece| piece.part == 0) {
            let old = stored.bytes(piece.at..piece.at + piece.bytes.len(), &mut scratch)?;
            same += if bits == 8 {
                same_elements::<8>(old, &piece.bytes)
            } else {
                same_elements::<4>(old, &piece.bytes)
            };
        }
        Ok(Some(same))
    }
}
