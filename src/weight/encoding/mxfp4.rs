//! MXFP4 of gpt-oss: stacks of experts as `N_blocks` [experts, outputs, groups, 16] and `N_scales` [experts, outputs,
//! groups]. Byte k of a group holds elements 2k (low nibble) and 2k + 1; a scale is a power of two.
//!
//! The stored rows are outputs, the parameter `N` is [experts, inputs, outputs] (transformers
//! `integrations/mxfp4.py`): decoding transposes. value = E2M1 · 2^(scale − 127).

use std::ops::Range;

use super::{Encoding, Recognised};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::small_float::{E2M1, e8m0, exponent, to_e8m0};
use crate::weight::encode::largest;
use crate::weight::fp4::Nearest;
use crate::weight::groups::Round;
use crate::weight::model::Model;
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding = Encoding { name: "mxfp4", recognise };

/// Inputs that share a scale, and the bytes that hold them.
const GROUP: usize = 32;
const BYTES: usize = GROUP / 2;
/// Outputs transposed together, so that lines of the result stay in the cache.
const TOGETHER: usize = 64;

#[derive(Debug)]
struct Experts {
    blocks: Stored,
    scales: Stored,
    inputs: usize,
    outputs: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(name) = stored.name.strip_suffix("_blocks").filter(|_| stored.dtype == Dtype::U8)
    else {
        return Ok(None);
    };
    let scales = model.need(stored, &format!("{name}_scales"), "MXFP4")?;
    let [stack @ .., outputs, groups, BYTES] = stored.shape.as_slice() else {
        return Err(stored.misfit(&scales, "[…, outputs, groups, 16]"));
    };
    let expected = stored.shape.get(..stored.shape.len() - 1).unwrap_or_default();
    if scales.shape != expected || !matches!(scales.dtype, Dtype::U8 | Dtype::F8_E8M0) {
        return Err(scales.misfit(stored, format!("{expected:?} (U8)")));
    }
    let (inputs, outputs) = (groups * GROUP, *outputs);
    let shape = stack.iter().copied().chain([inputs, outputs]).collect();
    let parts = [stored.name.as_str(), scales.name.as_str()];
    let codes = Experts { blocks: stored.clone(), scales: scales.clone(), inputs, outputs };
    let found = Recognised::written(shape, format!("4 bit, groups of {GROUP}"), codes);
    Ok(Some(model.recognised(name, name, &parts, found)))
}

impl Experts {
    /// Inputs `inputs` of one expert, as rows.
    fn expert(&self, expert: usize, inputs: &Range<usize>, out: &mut [f32]) -> Result<()> {
        let groups = self.inputs / GROUP;
        let needed = inputs.start / GROUP..inputs.end.div_ceil(GROUP);
        let rows = expert * self.outputs..(expert + 1) * self.outputs;
        let (mut scratch, mut more) = (Vec::new(), Vec::new());
        let within = needed.start * BYTES..needed.end * BYTES;
        let blocks = self.blocks.pieces(rows.clone(), groups * BYTES, within, &mut scratch)?;
        let scales = self.scales.pieces(rows, groups, needed.clone(), &mut more)?;
        let mut values = [0.0; GROUP];
        for first in (0..self.outputs).step_by(TOGETHER) {
            let together = first..(first + TOGETHER).min(self.outputs);
            for group in needed.clone() {
                let at = group - needed.start;
                for output in together.clone() {
                    let scale = scales.get(output).get(at).copied().unwrap_or_default();
                    if scale == 255 {
                        let index = (expert * self.outputs + output) * groups + group;
                        let value = f32::NAN;
                        return Err(self.scales.error(QuantError::ScaleNotFinite { index, value }));
                    }
                    let codes = blocks.get(output);
                    let codes = codes.get(at * BYTES..(at + 1) * BYTES).unwrap_or_default();
                    widen(codes, e8m0(scale), &mut values);
                    let start = (group * GROUP).max(inputs.start);
                    for input in start..((group + 1) * GROUP).min(inputs.end) {
                        let place = (input - inputs.start) * self.outputs + output;
                        if let Some(slot) = out.get_mut(place) {
                            *slot = values[input - group * GROUP];
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn widen(codes: &[u8], scale: f32, values: &mut [f32; GROUP]) {
    for (byte, pair) in codes.iter().zip(values.as_chunks_mut::<2>().0) {
        *pair = [E2M1[usize::from(byte & 15)] * scale, E2M1[usize::from(byte >> 4)] * scale];
    }
}

impl Decode for Experts {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (mut row, mut out) = (rows.start, out);
        while row < rows.end && self.inputs > 0 {
            let expert = row / self.inputs;
            let end = ((expert + 1) * self.inputs).min(rows.end);
            let inputs = row - expert * self.inputs..end - expert * self.inputs;
            let (now, rest) = out.split_at_mut(inputs.len() * self.outputs);
            self.expert(expert, &inputs, now)?;
            (row, out) = (end, rest);
        }
        Ok(())
    }

    fn grain(&self) -> usize {
        GROUP
    }
}

/// The exponent of the largest E2M1 number, 6.
const LARGEST: i32 = 2;

/// The scale is 2^(⌊log2 largest⌋ − 2), as OpenAI, torchao and gguf-py make it; a tie goes to the smaller number. A
/// panel is a whole number of experts.
impl Encode for Experts {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let scales = Some(&self.scales).filter(|_| fresh);
        [Some(&self.blocks), scales].into_iter().flatten().map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        self.inputs
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let groups = self.inputs / GROUP;
        let experts = panel.values.chunks((self.inputs * self.outputs).max(1));
        for (number, values) in experts.enumerate() {
            let first = (panel.rows.start / self.inputs.max(1) + number) * self.outputs * groups;
            let (count, start) = (self.outputs * groups, out.values.len());
            let mut scratch = Vec::new();
            let kept = self.scales.bytes(first..first + count, &mut scratch)?;
            let (mut scales, mut blocks) = (Vec::with_capacity(count), Vec::new());
            out.values.resize(start + values.len(), 0.0);
            for at in 0..count {
                let (output, group) = (at / groups, at % groups);
                let place = |input: usize| (group * GROUP + input) * self.outputs + output;
                let column: [f32; GROUP] = std::array::from_fn(|input| values[place(input)]);
                let most = largest(&column);
                let scale = match (panel.fresh(), kept.get(at)) {
                    (false, Some(scale)) => *scale,
                    _ if most == 0.0 => 0,
                    _ => to_e8m0(exponent(most) - LARGEST),
                };
                scales.push(scale);
                let step = e8m0(scale);
                let mut codes = [0; GROUP];
                for (input, code) in codes.iter_mut().enumerate() {
                    let draw = panel.draw(number * values.len() + place(input));
                    let (found, _) = Nearest { even: false }.round(column[input], step, draw);
                    // What is nearest to 0 is the 0 without a sign.
                    *code = if found == 8 { 0 } else { found };
                    out.values[start + place(input)] = E2M1[usize::from(*code)] * step;
                }
                blocks.extend(codes.as_chunks::<2>().0.iter().map(|pair| pair[1] << 4 | pair[0]));
            }
            out.put(0, first * BYTES, blocks);
            if panel.fresh() {
                out.put(1, first, scales);
            }
        }
        Ok(())
    }
}
