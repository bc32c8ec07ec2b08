//! AWQ's gemm layout: `qweight` [inputs, outputs/8] and `qzeros` [groups, outputs/8], a word holding outputs 0, 2, 4, 6,
//! 1, 3, 5, 7 of eight from the low nibble up; `scales` [groups, outputs].
//!
//! W[output, input] = (code − zero point) · scale[group, output].

use std::ops::Range;

use super::gptq::group_rows;
use super::{Encoding, Recognised};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::weight::model::Model;
use crate::weight::rounding::whole;
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding = Encoding { name: "awq", companions: &[], recognise };

/// Nibble that holds output number k of eight.
const NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Outputs of one word.
const PER_WORD: usize = 8;
/// The least distance between a group's ends.
const LEAST_RANGE: f32 = 1e-5;
/// Outputs decoded together.
const GRAIN: usize = 32;

#[derive(Debug)]
struct Awq {
    codes: Stored,
    zeros: Stored,
    scales: Stored,
    inputs: usize,
    outputs: usize,
    groups: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(module) = stored.name.strip_suffix(".qweight").filter(|_| stored.dtype == Dtype::I32)
    else {
        return Ok(None);
    };
    let own = |ending: &str| format!("{module}.{ending}");
    let scales = model.need(stored, &own("scales"), "AWQ")?;
    let zeros = model.need(stored, &own("qzeros"), "AWQ")?;
    let version = model.config.text("version").map(str::to_lowercase);
    if let Some(version) = version.filter(|version| version != "gemm") {
        return Err(Model::unsupported(stored, format!("AWQ's version {version}")));
    }
    if let Some(bits) = model.config.number("bits").filter(|bits| *bits != 4) {
        let (config, tensors) = (format!("{bits} bit"), "4 bit, as AWQ has".to_owned());
        return Err(stored.error(QuantError::Conflict { config, tensors }));
    }
    let ([inputs, words], [groups, outputs]) = (&*stored.shape, &*scales.shape) else {
        return Err(stored.misfit(&scales, "[inputs, outputs / 8]"));
    };
    let (inputs, words, groups, outputs) = (*inputs, *words, *groups, *outputs);
    if words * PER_WORD != outputs || groups == 0 || inputs % groups != 0 {
        return Err(scales.misfit(stored, format!("[groups, {}]", words * PER_WORD)));
    }
    let group = model.config.number("group_size").unwrap_or(inputs / groups);
    if inputs.div_ceil(group) != groups {
        return Err(scales.misfit(stored, format!("{:?}", [inputs.div_ceil(group), outputs])));
    }
    if zeros.shape != [groups, words] || zeros.dtype != Dtype::I32 {
        return Err(zeros.misfit(stored, format!("{:?} (I32)", [groups, words])));
    }
    let codes = Awq { codes: stored.clone(), zeros, scales, inputs, outputs, groups };
    let found =
        Recognised::written(vec![outputs, inputs], format!("4 bit, groups of {group}"), codes);
    let parts = ["qweight", "qzeros", "scales"].map(own);
    let parts = parts.each_ref().map(String::as_str);
    Ok(Some(model.recognised(&format!("{module}.weight"), module, &parts, found)))
}

/// Codes of some outputs of one line of words; `lead` outputs of the first word come before them.
fn codes(words: &[u8], lead: usize, count: usize) -> impl Iterator<Item = i32> + '_ {
    let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let all = words.flat_map(|word| NIBBLE.map(|nibble| (word >> (nibble * 4) & 15).cast_signed()));
    all.skip(lead).take(count)
}

impl Decode for Awq {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (lead, count) = (rows.start % PER_WORD, rows.len());
        let stride = self.outputs / PER_WORD * 4;
        let within = rows.start / PER_WORD * 4..rows.end.div_ceil(PER_WORD) * 4;
        let (mut scratch, mut more) = (Vec::new(), Vec::new());
        let words = self.zeros.pieces(0..self.groups, stride, within.clone(), &mut more)?;
        let zeros: Vec<i32> =
            (0..self.groups).flat_map(|group| codes(words.get(group), lead, count)).collect();
        let scales = group_rows(&self.scales, self.groups, self.outputs, &rows)?;
        let words = self.codes.pieces(0..self.inputs, stride, within, &mut scratch)?;
        let group = self.inputs / self.groups;
        for input in 0..self.inputs {
            let first = input / group.max(1) * count;
            let zeros = zeros.get(first..first + count).unwrap_or_default();
            let scales = scales.get(first..first + count).unwrap_or_default();
            let numbers = codes(words.get(input), lead, count).zip(zeros.iter().zip(scales));
            for (output, (code, (zero, scale))) in numbers.enumerate() {
                if let Some(slot) = out.get_mut(output * self.inputs + input) {
                    *slot = (code - zero) as f32 * scale;
                }
            }
        }
        Ok(())
    }

    fn grain(&self) -> usize {
        GRAIN
    }
}

/// Words of eight codes each, in the order of their nibbles.
fn pack(codes: &[u8]) -> Vec<u8> {
    let word = |codes: &[u8]| {
        let nibbles = codes.iter().zip(NIBBLE);
        nibbles.fold(0u32, |word, (code, nibble)| word | u32::from(*code) << (nibble * 4))
    };
    codes.chunks(PER_WORD).flat_map(|codes| word(codes).to_le_bytes()).collect()
}

impl Awq {
    /// New scales and zero points, a group after the other: AutoAWQ's (`quantize/quantizer.py`,
    /// pseudo_quantize_tensor), scale = (high − low)/15 in its dtype, zero point −low/scale.
    fn fresh(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<(Vec<f32>, Vec<i32>)> {
        let (group, count) = (self.inputs / self.groups, panel.rows.len());
        let (size, stride) = (self.scales.dtype.bitsize() / 8, self.outputs / PER_WORD * 4);
        let mut scales = vec![0.0; self.groups * count];
        let mut lows = vec![0.0; self.groups * count];
        for (output, values) in panel.values.chunks(self.inputs.max(1)).enumerate() {
            for (number, values) in values.chunks(group.max(1)).enumerate() {
                let low = values.iter().fold(f32::INFINITY, |low, value| low.min(*value));
                let high = values.iter().fold(f32::NEG_INFINITY, |high, value| high.max(*value));
                scales[number * count + output] = (high - low).max(LEAST_RANGE) / 15.0;
                lows[number * count + output] = low;
            }
        }
        let mut zeros = Vec::with_capacity(lows.len());
        for group in 0..self.groups {
            let (here, at) = (group * count..(group + 1) * count, group * self.outputs);
            let first = at + panel.rows.start;
            out.put(1, first * size, self.scales.rounded(first, &mut scales[here.clone()])?);
            let pairs = lows[here.clone()].iter().zip(&scales[here]);
            let zero =
                |(low, scale): (&f32, &f32)| (-(low / scale).round_ties_even()).clamp(0.0, 15.0);
            let stored: Vec<u8> = pairs.map(|pair| zero(pair) as u8).collect();
            out.put(2, group * stride + panel.rows.start / PER_WORD * 4, pack(&stored));
            zeros.extend(stored.into_iter().map(i32::from));
        }
        Ok((scales, zeros))
    }

    /// The stored zero points of some outputs.
    fn zeros(&self, rows: &Range<usize>) -> Result<Vec<i32>> {
        let within = rows.start / PER_WORD * 4..rows.end.div_ceil(PER_WORD) * 4;
        let (stride, mut scratch) = (self.outputs / PER_WORD * 4, Vec::new());
        let words = self.zeros.pieces(0..self.groups, stride, within, &mut scratch)?;
        let (lead, count) = (rows.start % PER_WORD, rows.len());
        Ok((0..self.groups).flat_map(|group| codes(words.get(group), lead, count)).collect())
    }
}

impl Encode for Awq {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let companions = [&self.scales, &self.zeros].into_iter().filter(|_| fresh);
        std::iter::once(&self.codes).chain(companions).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        PER_WORD
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let (rows, count) = (panel.rows.clone(), panel.rows.len());
        let (scales, zeros) = if panel.fresh() {
            self.fresh(panel, out)?
        } else {
            let scales = group_rows(&self.scales, self.groups, self.outputs, &rows)?;
            (scales, self.zeros(&rows)?)
        };
        let (stride, first_word) = (self.outputs / PER_WORD * 4, rows.start / PER_WORD * 4);
        let group = (self.inputs / self.groups).max(1);
        let values = out.values.len();
        out.values.resize(values + panel.values.len(), 0.0);
        let mut codes = vec![0; count];
        for input in 0..self.inputs {
            for (output, code) in codes.iter_mut().enumerate() {
                let (at, number) = (output * self.inputs + input, input / group * count + output);
                let (scale, zero) = (scales[number], zeros[number]);
                // As the package packs: the zero point is added as a number of the weight.
                let scaled = (panel.values[at] + zero as f32 * scale) / scale;
                let scaled = if scale == 0.0 { zero as f32 } else { scaled };
                *code = whole(scaled, panel.draw(at)).clamp(0.0, 15.0) as u8;
                out.values[values + at] = (i32::from(*code) - zero) as f32 * scale;
            }
            out.put(0, input * stride + first_word, pack(&codes));
        }
        Ok(())
    }
}
