//! GPTQ's tensors for new values, each rounded for itself: AutoGPTQ's quantiser (`quantization/quantizer.py`) and
//! packing, without the search that moves errors to other columns.
//!
//! Symmetric: scale = 2 · largest / (2^b − 1), the zero point in the middle. Else scale = (high − low) / (2^b − 1), 0 among
//! the values, and zero point −low/scale.

use super::{Gptq, group_rows};
use crate::error::Result;
use crate::weight::rounding::whole;
use crate::weight::{Encode, Encoded, Panel, Part, Stored, Writing};

/// Numbers by group, and within a group by output.
struct Numbers {
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

/// Words of 32 bits that hold codes of some bits in a stream, the first lowest.
fn pack(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut words = vec![0u32; (codes.len() * bits).div_ceil(32)];
    for (at, code) in codes.iter().enumerate() {
        let (word, shift) = (at * bits / 32, at * bits % 32);
        words[word] |= code << shift;
        if shift + bits > 32 {
            words[word + 1] |= code >> (32 - shift);
        }
    }
    words
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Gptq {
    fn group_of(&self, indices: Option<&[i64]>, input: usize) -> usize {
        match indices {
            Some(indices) => indices.get(input).map_or(0, |group| *group as usize),
            None => input / self.group,
        }
    }

    fn fresh(&self, panel: &Panel<'_>, indices: Option<&[i64]>) -> Numbers {
        let (count, steps) = (panel.rows.len(), ((1i32 << self.bits) - 1) as f32);
        let mut ranges = vec![(0.0f32, 0.0f32); self.groups * count];
        for (output, values) in panel.values.chunks(self.inputs.max(1)).enumerate() {
            for (input, value) in values.iter().enumerate() {
                let range = &mut ranges[self.group_of(indices, input) * count + output];
                *range = (range.0.min(*value), range.1.max(*value));
            }
        }
        let number = |(low, high): (f32, f32)| {
            // The quantiser's own ends of a group of zeros.
            let (low, high) = if low == 0.0 && high == 0.0 { (-1.0, 1.0) } else { (low, high) };
            match self.symmetric {
                Some(zero) => (high.max(-low) * 2.0 / steps, zero),
                None => {
                    let scale = (high - low) / steps;
                    // Version 1 cannot store a zero point of 0: it stores one less.
                    let zero = (-low / scale).round_ties_even().clamp(self.add as f32, steps);
                    (scale, zero as i32)
                }
            }
        };
        let (scales, zeros) = ranges.into_iter().map(number).unzip();
        Numbers { scales, zeros }
    }

    /// Puts scales, rounded to their dtype, and zero points of some outputs.
    fn put(&self, panel: &Panel<'_>, numbers: &mut Numbers, out: &mut Encoded) -> Result<()> {
        let (first, count) = (panel.rows.start, panel.rows.len());
        let size = self.scales.dtype.bitsize() / 8;
        for group in 0..self.groups {
            let (here, at) = (group * count..(group + 1) * count, group * self.outputs + first);
            let scales = self.scales.rounded(at, &mut numbers.scales[here.clone()])?;
            out.put(1, at * size, scales);
            let zeros = numbers.zeros[here].iter().map(|zero| (zero - self.add) as u32);
            let words = pack(&zeros.collect::<Vec<u32>>(), self.bits);
            let place = (group * self.outputs + first) * self.bits / 8;
            out.put(2, place, bytes(&words));
        }
        Ok(())
    }
}

impl Encode for Gptq {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let companions = [&self.scales, &self.zeros].into_iter().filter(|_| fresh);
        std::iter::once(&self.codes).chain(companions).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        super::GRAIN
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let indices = self.indices.as_ref().map(Stored::integers).transpose()?;
        let indices = indices.as_deref();
        let numbers = if panel.fresh() {
            let mut numbers = self.fresh(panel, indices);
            self.put(panel, &mut numbers, out)?;
            numbers
        } else {
            let scales = group_rows(&self.scales, self.groups, self.outputs, &panel.rows)?;
            Numbers { scales, zeros: self.zeros(&panel.rows)? }
        };
        let (count, top) = (panel.rows.len(), ((1i32 << self.bits) - 1) as f32);
        let (per_line, values) = (self.inputs * self.bits / 32, out.values.len());
        out.values.resize(values + panel.values.len(), 0.0);
        // Down the rows of words: a column of words for every output.
        let mut lines = vec![0u32; per_line * count];
        let mut codes = vec![0u32; self.inputs];
        for output in 0..count {
            for (input, code) in codes.iter_mut().enumerate() {
                let number = self.group_of(indices, input) * count + output;
                let (scale, zero) = (numbers.scales[number], numbers.zeros[number]);
                let at = output * self.inputs + input;
                let scaled = if scale == 0.0 { 0.0 } else { panel.values[at] / scale };
                let found = whole(scaled + zero as f32, panel.draw(at)).clamp(0.0, top);
                *code = found as u32;
                out.values[values + at] = scale * (found as i32 - zero) as f32;
            }
            for (line, word) in pack(&codes, self.bits).into_iter().enumerate() {
                lines[line * count + output] = word;
            }
        }
        for (line, words) in lines.chunks(count).enumerate() {
            out.put(0, (line * self.outputs + panel.rows.start) * 4, bytes(words));
        }
        Ok(())
    }
}
