//! GPTQ: codes down the rows of a transposed weight [inputs · b/32, outputs], low bits first; `qzeros` and `scales`
//! by group, `g_idx` the group of each input. Version 1 stores zero points less one, version 2 as they are.
//!
//! W[output, input] = scale[group, output] · (code − zero point), the subtraction of whole numbers.
//!
//! Files say `gptq` and store version 2 (GPTQModel from 5 on), so a symmetric file's zero point is looked at: half of
//! the range is version 2, one less version 1. An asymmetric one is taken at its word.

mod written;

use std::ops::Range;

use super::int_packed::check_groups;
use super::{Encoding, Recognised};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::weight::model::Model;
use crate::weight::{Decode, Stored};

pub(super) const ENCODING: Encoding =
    Encoding { name: "gptq", companions: &[".qzeros"], recognise };

/// Containers of the same codes in another order.
const REPACKED: [&str; 5] = ["marlin", "bitblas", "exllama", "exllamav2", "qqq"];

/// Outputs decoded together, so that lines of the result stay in the cache.
const GRAIN: usize = 32;

#[derive(Debug)]
struct Gptq {
    codes: Stored,
    zeros: Stored,
    scales: Stored,
    indices: Option<Stored>,
    bits: usize,
    inputs: usize,
    outputs: usize,
    groups: usize,
    group: usize,
    /// What is added to a stored zero point.
    add: i32,
    /// The one zero point of a symmetric file.
    symmetric: Option<i32>,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(module) = stored.name.strip_suffix(".qweight").filter(|_| stored.dtype == Dtype::I32)
    else {
        return Ok(None);
    };
    let own = |ending: &str| format!("{module}.{ending}");
    let scales = model.need(stored, &own("scales"), "GPTQ or AWQ")?;
    let zeros = model.need(stored, &own("qzeros"), "GPTQ or AWQ")?;
    let ([words, outputs], [groups, scaled]) = (&*stored.shape, &*scales.shape) else {
        return Err(stored.misfit(&scales, "[words, outputs]"));
    };
    let (words, outputs, groups) = (*words, *outputs, *groups);
    let indices = model.tensor(&own("g_idx"));
    if model.config.method() == Some("awq") || (indices.is_none() && outputs != *scaled) {
        return Ok(None);
    }
    if outputs != *scaled || groups == 0 {
        return Err(scales.misfit(stored, format!("[groups, {outputs}]")));
    }
    let told = settings(model, module, stored)?;
    let inputs = match (&indices, told.bits) {
        (Some(indices), _) => indices.elements(),
        (None, Some(bits)) => words * 32 / bits,
        (None, None) => words * 8,
    };
    let bits = (words * 32).checked_div(inputs).unwrap_or_default();
    if !matches!(bits, 2 | 3 | 4 | 8) || inputs * bits != words * 32 || outputs * bits % 32 != 0 {
        let reason = format!("{words} words for {inputs} inputs are no codes of 2, 3, 4 or 8 bits");
        return Err(stored.error(QuantError::BadState { reason }));
    }
    if let Some(told) = told.bits.filter(|told| *told != bits) {
        let (config, tensors) = (format!("{told} bit"), format!("{bits} bit"));
        return Err(stored.error(QuantError::Conflict { config, tensors }));
    }
    if zeros.shape != [groups, outputs * bits / 32] || zeros.dtype != Dtype::I32 {
        return Err(zeros.misfit(stored, format!("{:?} (I32)", [groups, outputs * bits / 32])));
    }
    let group = told.group.unwrap_or_else(|| inputs.div_ceil(groups)).max(1);
    if let Some(indices) = &indices {
        check_groups(indices, &indices.integers()?, groups)?;
    }
    if inputs.div_ceil(group) != groups {
        return Err(scales.misfit(stored, format!("{:?}", [inputs.div_ceil(group), outputs])));
    }
    let (add, symmetric) = version(&zeros, &told, bits)?;
    let codes = Gptq {
        codes: stored.clone(),
        zeros,
        scales,
        indices,
        bits,
        inputs,
        outputs,
        groups,
        group,
        add,
        symmetric,
    };
    let found =
        Recognised::written(vec![outputs, inputs], format!("{bits} bit, groups of {group}"), codes);
    let parts = ["qweight", "qzeros", "scales", "g_idx"].map(own);
    let parts = parts.each_ref().map(String::as_str);
    Ok(Some(model.recognised(&format!("{module}.weight"), module, &parts, found)))
}

/// What the config says of a module.
struct Settings {
    bits: Option<usize>,
    group: Option<usize>,
    symmetric: Option<bool>,
    /// `checkpoint_format`.
    format: Option<String>,
    /// Whether a version that mislabels its files wrote it.
    mislabelled: bool,
}

fn settings(model: &Model<'_>, module: &str, stored: &Stored) -> Result<Settings> {
    let config = model.config;
    let format = config.text("checkpoint_format");
    if let Some(format) = format.filter(|format| REPACKED.contains(format)) {
        return Err(Model::unsupported(stored, format!("GPTQ repacked for {format}")));
    }
    let planar = config.get("meta").is_some_and(|meta| meta.to_string().contains("planar"));
    if planar {
        return Err(Model::unsupported(stored, "GPTQ in planar words"));
    }
    let mut bits = config.number("bits");
    let mut group = config.number("group_size");
    // Rules by module, `+:pattern` for other settings.
    let rules = config.get("dynamic").and_then(serde_json::Value::as_object);
    for (rule, settings) in rules.into_iter().flatten() {
        let pattern = rule.strip_prefix("+:").unwrap_or(rule);
        let matches = regex::Regex::new(pattern).is_ok_and(|p| p.is_match(model.module(module)));
        if matches && !rule.starts_with("-:") {
            let number = |key: &str| settings.get(key)?.as_u64().map(|number| number as usize);
            bits = number("bits").or(bits);
            group = number("group_size").or(group);
        }
    }
    let writer = config.get("meta").and_then(|meta| meta.get("quantizer")).map(ToString::to_string);
    let mislabelled = writer.is_some_and(|writer| {
        let version = writer.split("gptqmodel:").nth(1);
        let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        major.is_some_and(|major| major >= 5)
    });
    let symmetric = config.get("sym").and_then(serde_json::Value::as_bool);
    let format = format.map(str::to_owned);
    Ok(Settings { bits, group, symmetric, format, mislabelled })
}

/// What is added to a stored zero point, and the one zero point of a symmetric file.
fn version(zeros: &Stored, told: &Settings, bits: usize) -> Result<(i32, Option<i32>)> {
    let middle = 1 << (bits - 1);
    let version2 = told.format.as_deref() == Some("gptq_v2");
    if told.symmetric != Some(false) {
        // One row tells; the others are held to it when they are read.
        let mut scratch = Vec::new();
        let length = zeros.shape.get(1).copied().unwrap_or_default() * 4;
        let row = zeros.bytes(0..length, &mut scratch)?;
        let first = code_at(row, 0, bits);
        let all = (0..length * 8 / bits).all(|at| code_at(row, at * bits, bits) == first);
        if all && (first == middle || first == middle - 1) {
            return Ok((middle - first, Some(middle)));
        }
        if told.symmetric == Some(true) {
            let config = format!("it is symmetric: zero points {} or {middle}", middle - 1);
            let tensors = format!("there are others, {first} for one");
            return Err(zeros.error(QuantError::Conflict { config, tensors }));
        }
    }
    match (version2, told.mislabelled, &told.format) {
        (true, ..) => Ok((0, None)),
        (false, false, Some(_)) => Ok((1, None)),
        // AutoGPTQ's own files from before the field.
        (false, false, None) if told.symmetric.is_some() => Ok((1, None)),
        _ => {
            let what =
                "its zero points may be those of GPTQ's version 1 or 2, and nothing says which";
            Err(zeros.error(QuantError::Ambiguous { what: what.to_owned() }))
        }
    }
}

impl Gptq {
    /// Zero points of all groups for some outputs, a group after the other.
    fn zeros(&self, outputs: &Range<usize>) -> Result<Vec<i32>> {
        let stride = self.outputs * self.bits / 8;
        let within = outputs.start * self.bits / 32 * 4..(outputs.end * self.bits).div_ceil(32) * 4;
        // 3 bits may begin inside a code: words hold a whole number of codes every 3 of them.
        let lead = outputs.start * self.bits - within.start * 8;
        let mut scratch = Vec::new();
        let pieces = self.zeros.pieces(0..self.groups, stride, within, &mut scratch)?;
        let mut zeros = Vec::with_capacity(self.groups * outputs.len());
        for group in 0..self.groups {
            let piece = pieces.get(group);
            for at in 0..outputs.len() {
                let zero = code_at(piece, lead + at * self.bits, self.bits);
                self.check_zero(zero, group * self.outputs + outputs.start + at)?;
                zeros.push(zero + self.add);
            }
        }
        Ok(zeros)
    }

    fn check_zero(&self, stored: i32, index: usize) -> Result<()> {
        if let Some(symmetric) = self.symmetric.filter(|zero| stored + self.add != *zero) {
            let config = format!("it is symmetric: all zero points are {}", symmetric - self.add);
            let tensors = format!("number {index} is {stored}");
            return Err(self.zeros.error(QuantError::Conflict { config, tensors }));
        }
        if self.add == 1 && stored == (1 << self.bits) - 1 {
            let what = format!(
                "zero point {index} is stored as {stored}: version 1 of GPTQ is read as {} by some and as 0 by others",
                stored + 1
            );
            return Err(self.zeros.error(QuantError::Ambiguous { what }));
        }
        Ok(())
    }
}

/// The code that begins at a bit of a little-endian stream.
#[inline(always)]
fn code_at(bytes: &[u8], bit: usize, bits: usize) -> i32 {
    let word = |at: usize| u32::from(bytes.get(at).copied().unwrap_or_default());
    let both = word(bit / 8) | word(bit / 8 + 1) << 8;
    (both >> (bit % 8) & ((1 << bits) - 1)).cast_signed()
}

impl Decode for Gptq {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let zeros = self.zeros(&rows)?;
        let scales = group_rows(&self.scales, self.groups, self.outputs, &rows)?;
        let indices = self.indices.as_ref().map(Stored::integers).transpose()?;
        let words = self.inputs * self.bits / 32;
        let within = rows.start * 4..rows.end * 4;
        let mut scratch = Vec::new();
        let codes = self.codes.pieces(0..words, self.outputs * 4, within, &mut scratch)?;
        let count = rows.len();
        let group_of = |input: usize| match &indices {
            Some(indices) => indices.get(input).map_or(0, |group| *group as usize),
            None => input / self.group,
        };
        for input in 0..self.inputs {
            let group = group_of(input) * count;
            let (bit, mask) = (input * self.bits, (1u64 << self.bits) - 1);
            let (low, high) = (codes.get(bit / 32), codes.get((bit / 32 + 1).min(words - 1)));
            let zeros = zeros.get(group..group + count).unwrap_or_default();
            let scales = scales.get(group..group + count).unwrap_or_default();
            let pairs = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<4>().0);
            let numbers = pairs.zip(zeros.iter().zip(scales));
            for (output, ((low, high), (zero, scale))) in numbers.enumerate() {
                let both = u64::from(u32::from_le_bytes(*low))
                    | u64::from(u32::from_le_bytes(*high)) << 32;
                let code = (both >> (bit % 32) & mask) as i32;
                if let Some(slot) = out.get_mut(output * self.inputs + input) {
                    *slot = scale * (code - zero) as f32;
                }
            }
        }
        Ok(())
    }

    fn grain(&self) -> usize {
        GRAIN
    }
}

/// Scales of all groups for some outputs, a group after the other.
pub(super) fn group_rows(
    scales: &Stored,
    groups: usize,
    outputs: usize,
    rows: &Range<usize>,
) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(groups * rows.len());
    for group in 0..groups {
        let first = group * outputs;
        values.extend(scales.scales(first + rows.start..first + rows.end)?);
    }
    Ok(values)
}
