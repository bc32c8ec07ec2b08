//! bitsandbytes' 4-bit tensors for new values, as `backends/default/ops.py` quantises: the largest magnitude of every
//! block, the nearest number of the table (the lower where two are as near). Nested, magnitudes become bytes after
//! their mean is taken off; codes belong to the magnitudes before that.

use std::ops::Range;

use super::{Blocks, Nested};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::loops::{Largest, fold_groups};
use crate::weight::groups::{Round, nibbles, round_some};
use crate::weight::rounding::upper;
use crate::weight::{Encode, Encoded, Panel, Part, Scales, Writing};

/// What the package divides by instead of 0.
const LEAST: f32 = 1e-38;

/// Characters kept for the mean of the magnitudes in the text beside the codes.
const NUMBER: usize = 24;
const OFFSET: &str = "\"nested_offset\":";

/// The numbers of a table in their order, with the code of each.
struct Table(Vec<(f32, u8)>);

impl Table {
    fn new(values: &[f32]) -> Self {
        let mut numbers: Vec<(f32, u8)> = values.iter().copied().zip(0..=u8::MAX).collect();
        numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(numbers)
    }

    /// The code for a number.
    fn code(&self, value: f32, draw: Option<f32>) -> u8 {
        self.place(value, draw).1
    }

    /// The number of the table that another becomes, with its code: that after as many as have midpoints below it.
    fn place(&self, value: f32, draw: Option<f32>) -> (f32, u8) {
        let last = self.0.len().saturating_sub(1);
        let number = |at: usize| self.0.get(at.min(last)).map_or(0.0, |number| number.0);
        let above = self.0.partition_point(|number| number.0 <= value).min(last);
        let below = above.saturating_sub(1);
        let at = match draw {
            _ if number(above) <= value => above,
            None if f32::midpoint(number(below), number(above)) < value => above,
            None => below,
            Some(draw) if upper(number(below), number(above), value, draw) => above,
            Some(_) => below,
        };
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// The nearest of a table of sixteen numbers, for the loop over a panel: what lies above how many of fifteen bounds has the
/// code of that place.
#[derive(Clone, Copy)]
struct Nearest<'a, const DIVIDES: bool> {
    bounds: [f32; 15],
    numbers: [f32; 16],
    codes: [u8; 16],
    table: &'a Table,
}

impl<'a, const DIVIDES: bool> Nearest<'a, DIVIDES> {
    fn new(table: &'a Table) -> Self {
        let place = |at: usize| table.0.get(at).copied().unwrap_or_default();
        // Midpoints; a number that has a twin in the table passes it.
        let bound = |at: usize| {
            let (below, above) = (place(at).0, place(at + 1).0);
            f32::midpoint(below, above).min(above.next_down())
        };
        Self {
            bounds: std::array::from_fn(bound),
            numbers: std::array::from_fn(|at| place(at).0),
            codes: std::array::from_fn(|at| place(at).1),
            table,
        }
    }
}

impl<const DIVIDES: bool> Round for Nearest<'_, DIVIDES> {
    /// The reciprocal of a block's largest magnitude, that magnitude, and what it is read as.
    type Step = (f32, f32, f32);

    #[inline(always)]
    fn round(self, value: f32, (factor, most, read): Self::Step, draw: Option<f32>) -> (u8, f32) {
        let scaled = if DIVIDES { value / most } else { value * factor };
        let scaled = scaled.clamp(-1.0, 1.0);
        let (mut code, mut number) = (u32::from(self.codes[0]), self.numbers[0]);
        if draw.is_some() {
            let drawn = self.table.place(scaled, draw);
            (number, code) = (drawn.0, u32::from(drawn.1));
        } else {
            for at in 0..15 {
                let above = scaled > self.bounds[at];
                code = if above { u32::from(self.codes[at + 1]) } else { code };
                number = if above { self.numbers[at + 1] } else { number };
            }
        }
        (code as u8, number * read)
    }
}

impl Blocks {
    /// Elements of some rows, counted through the whole weight.
    fn flat(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.columns..rows.end * self.columns
    }

    /// The text beside the codes with another mean, in as many bytes whatever the mean.
    fn text(&self, offset: Option<f32>) -> Result<Vec<u8>> {
        let bytes = self.state.all()?;
        let bad = || {
            let reason = "`nested_offset` is not where it is expected".to_owned();
            self.state.error(QuantError::BadState { reason })
        };
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let start = text.find(OFFSET).map(|at| at + OFFSET.len()).ok_or_else(bad)?;
        let rest = text.get(start..).unwrap_or_default();
        let number = rest.len() - rest.trim_start().len();
        let end = rest.find([',', '}']).ok_or_else(bad)?;
        let width = end.saturating_sub(number).max(NUMBER);
        let value = offset.map_or_else(String::new, |offset| f64::from(offset).to_string());
        let (before, after) = (text.get(..start + number), text.get(start + end..));
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        // JSON's own spaces make up for digits.
        Ok(format!("{before}{value:<width$}{after}").into_bytes())
    }
}

impl Nested {
    /// The mean of all magnitudes, and what those of a block of them are at most away from it.
    fn settle(&self, magnitudes: &[f32]) -> Vec<f32> {
        let sum: f64 = magnitudes.iter().map(|value| f64::from(*value)).sum();
        let mean = (sum / magnitudes.len().max(1) as f64) as f32;
        let away = |most: f32, value: &f32| most.max((value - mean).abs());
        let blocks = magnitudes.chunks(self.block).map(|block| block.iter().fold(0.0, away));
        std::iter::once(mean).chain(blocks).collect()
    }

    /// Magnitudes of the blocks from `first` on as bytes, and what these stand for. `settled` is of all.
    fn bytes(&self, first: usize, magnitudes: &[f32], settled: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (sorted, mean) = (Table::new(&self.table), settled.first().copied().unwrap_or(0.0));
        let byte = |(block, value): (usize, &f32)| {
            let most = settled.get(1 + block / self.block).copied().unwrap_or_default();
            let byte = sorted.code(((value - mean) / most.max(LEAST)).clamp(-1.0, 1.0), None);
            let number = self.table.get(usize::from(byte)).copied().unwrap_or_default();
            (byte, number * most + mean)
        };
        (first..).zip(magnitudes).map(byte).unzip()
    }
}

impl Encode for Blocks {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let mut parts = vec![Part::like(&self.codes)];
        if writing.scales == Scales::Reuse {
            return parts;
        }
        parts.push(Part::like(&self.largest));
        if let Some(nested) = &self.nested {
            parts.push(Part::like(&nested.largest));
            let length = self.text(None).map_or(self.state.elements(), |text| text.len());
            parts.push(Part { shape: vec![length], dtype: Dtype::U8, ..Part::like(&self.state) });
        }
        parts
    }

    fn grain(&self) -> usize {
        // Rows that end where a block does; blocks have an even number of elements.
        let (mut a, mut b) = (self.block, self.columns.max(1));
        while b > 0 {
            (a, b) = (b, a % b);
        }
        self.block / a
    }

    fn surveys(&self, writing: Writing) -> bool {
        self.nested.is_some() && writing.scales == Scales::Fresh
    }

    /// The largest magnitude of every block.
    fn survey(&self, values: &[f32]) -> Vec<f32> {
        fold_groups::<Largest>(0.0, values, self.block)
    }

    fn settle(&self, survey: &[f32]) -> Result<Vec<f32>> {
        Ok(self.nested.as_ref().map(|nested| nested.settle(survey)).unwrap_or_default())
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let flat = self.flat(&panel.rows);
        let blocks = flat.start / self.block..flat.end.div_ceil(self.block);
        let sorted = Table::new(&self.table);
        let fresh = panel.fresh();
        let magnitudes =
            if fresh { self.survey(panel.values) } else { self.magnitudes(blocks.clone())? };
        let read = match &self.nested {
            Some(nested) if fresh => {
                let (bytes, read) = nested.bytes(blocks.start, &magnitudes, panel.survey);
                out.put(1, blocks.start, bytes);
                read
            }
            _ => magnitudes.clone(),
        };
        // The package divides in the last block if it is a part of one.
        let whole = panel.values.len() / self.block;
        let (values, tail) = panel.values.split_at(whole * self.block);
        let steps: Vec<(f32, f32, f32)> = magnitudes
            .iter()
            .zip(&read)
            .map(|(most, read)| (1.0 / most.max(LEAST), most.max(LEAST), *read))
            .collect();
        let rule = Nearest::<false>::new(&sorted);
        let size = (values.len(), self.block);
        let mut codes = round_some(rule, (values, panel.draws(), 0), size, &steps, &mut out.values);
        if let Some(last) = steps.get(whole..).filter(|_| !tail.is_empty()) {
            let tail = (tail, panel.draws(), values.len());
            let rule = Nearest::<true>::new(&sorted);
            let size = (self.block, self.block);
            codes.extend(round_some(rule, tail, size, last, &mut out.values));
        }
        out.put(0, flat.start / 2, nibbles(&codes, true, sorted.code(0.0, None)));
        if fresh && self.nested.is_none() {
            let bytes = magnitudes.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.put(1, blocks.start * 4, bytes);
        }
        Ok(())
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        let (true, [mean, outer @ ..]) = (self.surveys(writing), survey) else { return Ok(()) };
        out.put(2, 0, outer.iter().flat_map(|value| value.to_le_bytes()).collect());
        out.put(3, 0, self.text(Some(*mean))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_say_what_the_table_says() {
        // FP4's has two zeros.
        let four = [0.0, 0.005, 0.667, 1.0, 0.333, 0.5, 0.167, 0.25];
        let both: Vec<f32> = four.iter().copied().chain(four.map(|number| -number)).collect();
        let even: Vec<f32> = (0..16).map(|n| n as f32 / 7.5 - 1.0).collect();
        for table in [Table::new(&both), Table::new(&even)] {
            let rule = Nearest::<false>::new(&table);
            let numbers = table.0.iter().map(|number| number.0);
            let middles = table.0.windows(2).map(|pair| f32::midpoint(pair[0].0, pair[1].0));
            for value in numbers.chain(middles).chain((0..999).map(|n| n as f32 / 499.0 - 1.0)) {
                for value in [value, value.next_up(), value.next_down(), -value] {
                    let value = value.clamp(-1.0, 1.0);
                    let (number, code) = table.place(value, None);
                    assert_eq!(rule.round(value, (1.0, 1.0, 1.0), None), (code, number), "{value}");
                }
            }
        }
    }
}
