//! bitsandbytes' NF4 and FP4: two codes a byte, the high nibble first, looked up in the file's own table, and the
//! largest magnitude of every block. Blocks run over the flattened tensor and cross rows; its shape stands in a
//! JSON text. Nested, the magnitudes are bytes themselves: `table[byte]` · nested `magnitude[block / 256]` + offset.
//!
//! `value = table[code] · magnitude`, in f32 (`backends/default/ops.py`; the package's AVX-512 kernel is wrong for
//! odd multiples of 32 columns).

mod default;
mod written;

use std::ops::Range;

use serde::Deserialize;

use super::{Encoding, Recognised, module_of};
use crate::error::{QuantError, Result};
use crate::format::{Dtype, json};
use crate::weight::model::Model;
use crate::weight::stored::elements;
use crate::weight::{Decode, Stored};

pub(super) use default::{FP4, FP4_NESTED, NF4, NF4_NESTED};

pub(super) const ENCODING: Encoding =
    Encoding { name: "bnb_4bit", companions: &[".weight.absmax", ".weight.quant_map"], recognise };

/// Endings of a weight's companions.
const COMPANIONS: [&str; 4] = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"];

/// What the text beside the codes says; fields that only concern computing are not read.
#[derive(Debug, Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

#[derive(Debug)]
struct Nested {
    largest: Stored,
    table: Vec<f32>,
    block: usize,
    offset: f32,
}

#[derive(Debug)]
struct Blocks {
    codes: Stored,
    largest: Stored,
    table: Vec<f32>,
    nested: Option<Nested>,
    /// The text that describes them.
    state: Stored,
    block: usize,
    columns: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let name = &stored.name;
    let named = |ending: &str| format!("{name}.{ending}");
    let states = ["nf4", "fp4"].map(|kind| named(&format!("quant_state.bitsandbytes__{kind}")));
    let found = states.iter().find_map(|name| model.tensor(name));
    let largest = model.tensor(&named("absmax"));
    if found.is_none() && largest.is_none() {
        return Ok(None);
    }
    let scheme = "bitsandbytes 4-bit";
    let state_tensor =
        model.need(stored, found.as_ref().map_or(&states[0], |s| &s.name), scheme)?;
    let state = read_state(&state_tensor)?;
    let largest = model.need(stored, &named("absmax"), scheme)?;
    let table = model.need(stored, &named("quant_map"), scheme)?;
    let bad = |reason: String| state_tensor.error(QuantError::BadState { reason });
    let count = elements(&state.shape);
    if state.blocksize == 0 {
        return Err(bad("its blocks are empty".to_owned()));
    }
    if stored.length() != count.div_ceil(2) as u64 {
        return Err(stored.misfit(
            &state_tensor,
            format!("{} bytes, for a weight of {:?}", count.div_ceil(2), state.shape),
        ));
    }
    let blocks = count.div_ceil(state.blocksize);
    let nested = largest.dtype == Dtype::U8;
    if largest.elements() != blocks || !(nested || largest.dtype == Dtype::F32) {
        return Err(largest.misfit(stored, format!("[{blocks}] (F32, or U8 if nested)")));
    }
    if table.dtype != Dtype::F32 || table.elements() != 16 {
        return Err(table.misfit(stored, "[16] (F32)"));
    }
    let nested =
        nested.then(|| read_nested(model, stored, &state, &state_tensor, blocks)).transpose()?;
    let detail = format!(
        "{}, blocks of {}{}",
        state.quant_type.to_uppercase(),
        state.blocksize,
        if nested.is_some() { ", nested" } else { "" }
    );
    let columns = state.shape.last().copied().unwrap_or(1);
    let (codes, table) = (stored.clone(), table.scales(0..16)?);
    let (block, state_text) = (state.blocksize, state_tensor.clone());
    let codes = Blocks { codes, largest, table, nested, state: state_text, block, columns };
    let parts = COMPANIONS.map(named);
    let mut all = vec![name.as_str(), state_tensor.name.as_str()];
    all.extend(parts.iter().map(String::as_str));
    let found = Recognised::written(state.shape, detail, codes);
    Ok(Some(model.recognised(name, module_of(name), &all, found)))
}

fn read_state(stored: &Stored) -> Result<State> {
    let bytes = stored.all()?;
    let parsed = json::tree(&bytes).and_then(serde_json::from_value);
    parsed.map_err(|error| stored.error(QuantError::BadState { reason: error.to_string() }))
}

fn read_nested(
    model: &Model<'_>,
    stored: &Stored,
    state: &State,
    state_tensor: &Stored,
    blocks: usize,
) -> Result<Nested> {
    let named = |ending: &str| format!("{}.{ending}", stored.name);
    let scheme = "nested bitsandbytes 4-bit";
    let largest = model.need(stored, &named("nested_absmax"), scheme)?;
    let table = model.need(stored, &named("nested_quant_map"), scheme)?;
    let bad = |what: &str| {
        let reason = format!("`{what}` is missing, 0 or not finite");
        state_tensor.error(QuantError::BadState { reason })
    };
    let block = state.nested_blocksize.filter(|size| *size > 0);
    let block = block.ok_or_else(|| bad("nested_blocksize"))?;
    let offset = state.nested_offset.filter(|offset| offset.is_finite());
    let offset = offset.ok_or_else(|| bad("nested_offset"))? as f32;
    if largest.dtype != Dtype::F32 || largest.elements() != blocks.div_ceil(block) {
        return Err(largest.misfit(stored, format!("[{}] (F32)", blocks.div_ceil(block))));
    }
    if table.dtype != Dtype::F32 || table.elements() != 256 {
        return Err(table.misfit(stored, "[256] (F32)"));
    }
    Ok(Nested { largest, table: table.scales(0..256)?, block, offset })
}

impl Blocks {
    /// The largest magnitudes of some blocks.
    fn magnitudes(&self, blocks: Range<usize>) -> Result<Vec<f32>> {
        let Some(nested) = &self.nested else { return self.largest.scales(blocks) };
        let outer = blocks.start / nested.block..blocks.end.div_ceil(nested.block);
        let scales = nested.largest.scales(outer.clone())?;
        let mut scratch = Vec::new();
        let codes = self.largest.bytes(blocks.clone(), &mut scratch)?;
        let value = |(block, code): (usize, &u8)| {
            let number = nested.table.get(usize::from(*code)).copied().unwrap_or_default();
            let scale = scales.get(block / nested.block - outer.start).copied().unwrap_or_default();
            number * scale + nested.offset
        };
        Ok(blocks.zip(codes).map(value).collect())
    }
}

impl Decode for Blocks {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let flat = rows.start * self.columns..rows.end * self.columns;
        if flat.is_empty() {
            return Ok(());
        }
        let first = flat.start / self.block;
        let magnitudes = self.magnitudes(first..flat.end.div_ceil(self.block))?;
        let (mut scratch, first_byte) = (Vec::new(), flat.start / 2);
        let bytes = self.codes.bytes(first_byte..flat.end.div_ceil(2), &mut scratch)?;
        let mut numbers = [0.0; 16];
        let (mut at, mut out) = (flat.start, out);
        for (block, largest) in (first..).zip(magnitudes) {
            for (number, value) in numbers.iter_mut().zip(&self.table) {
                *number = value * largest;
            }
            let end = ((block + 1) * self.block).min(flat.end);
            let (now, rest) = out.split_at_mut(end - at);
            // An odd row begins with the low nibble of a byte.
            let (single, now) = now.split_at_mut((at % 2).min(now.len()));
            for slot in single {
                let byte = bytes.get(at / 2 - first_byte).copied().unwrap_or_default();
                *slot = numbers[usize::from(byte & 15)];
                at += 1;
            }
            let from = at / 2 - first_byte;
            let bytes = bytes.get(from..).unwrap_or_default();
            let (pairs, last) = now.as_chunks_mut::<2>();
            for (byte, pair) in bytes.iter().zip(pairs.iter_mut()) {
                *pair = [numbers[usize::from(byte >> 4)], numbers[usize::from(byte & 15)]];
            }
            if let (Some(slot), Some(byte)) = (last.first_mut(), bytes.get(pairs.len())) {
                *slot = numbers[usize::from(byte >> 4)];
            }
            (at, out) = (end, rest);
        }
        Ok(())
    }
}
