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
use crate::weight::{Decode, Stored};

pub(super) const ENCODING: Encoding = Encoding { name: "awq", recognise };

/// Nibble that holds output number k of eight.
const NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Outputs of one word.
const PER_WORD: usize = 8;
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
    let found = Recognised::new(vec![outputs, inputs], format!("4 bit, groups of {group}"), codes);
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
