//! MLX's affine quantisation: `weight` U32 [outputs, inputs · b/32], a little-endian stream of codes of 2, 3, 4, 5, 6 or
//! 8 bits; `scales` (which may be negative) and `biases` [outputs, inputs/group] in the model's dtype.
//!
//! value = scale · code + bias, the product rounded to f32, then the sum.

use std::ops::Range;
use std::sync::Arc;

use super::{Encoding, InEightBits, Recognised, module_of};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::loops::{Fold, Greatest, Least};
use crate::weight::grid::Grid;
use crate::weight::groups::{Round, nibbles, round_some};
use crate::weight::model::Model;
use crate::weight::rounding::{low_byte, whole};
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding = Encoding { name: "mlx", companions: &[], recognise };

/// The least step.
const LEAST: f32 = 1e-7;

#[derive(Debug)]
struct Affine {
    codes: Stored,
    scales: Grid,
    biases: Grid,
    bits: usize,
    columns: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let module = module_of(&stored.name);
    let Some(scales) =
        model.tensor(&format!("{module}.scales")).filter(|_| stored.dtype == Dtype::U32)
    else {
        return Ok(None);
    };
    let mode = model.config.text("mode").filter(|mode| *mode != "affine");
    if scales.dtype == Dtype::U8 || mode.is_some() {
        let mode = mode.unwrap_or("mxfp4 or nvfp4");
        return Err(Model::unsupported(stored, format!("MLX's mode {mode}")));
    }
    let biases = model.need(stored, &format!("{module}.biases"), "MLX")?;
    let Some((count, rows, words)) = super::stack(&stored.shape) else {
        return Err(stored.misfit(&scales, "a matrix of words"));
    };
    let groups = scales.shape.last().copied().unwrap_or_default();
    let (columns, group, bits) = geometry(model, module, (stored, &scales), (words, groups))?;
    let grid = |part: &Stored| {
        let grid = Grid::blocks(part.clone(), count, (rows, columns), (1, group));
        grid.ok_or_else(|| part.misfit(stored, format!("[{rows}, {}]", columns / group)))
    };
    let (own, other) = (scales.name.clone(), biases.name.clone());
    let codes = Affine {
        codes: stored.clone(),
        scales: grid(&scales)?,
        biases: grid(&biases)?,
        bits,
        columns,
    };
    let mut shape = stored.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    let integers = Some(eight_bit(&codes, (rows * count, columns)));
    let eight_bit = InEightBits { integers, ..InEightBits::default() };
    let found = Recognised::written(shape, format!("{bits} bit, groups of {group}"), codes);
    let found = Recognised { eight_bit, ..found };
    Ok(Some(model.recognised(&stored.name, module, &[&stored.name, &own, &other], found)))
}

/// Columns, columns of a group, bits: two of them by the shapes, with one more by the config.
fn geometry(
    model: &Model<'_>,
    module: &str,
    (stored, scales): (&Stored, &Stored),
    (words, groups): (usize, usize),
) -> Result<(usize, usize, usize)> {
    let told = |key: &str| model.config.mlx(model.module(module), key);
    let (told_bits, told_group) = (told("bits"), told("group_size"));
    let fits = |group: usize, bits: usize| groups * group * bits == words * 32 && bits <= 8;
    let pairs =
        [64, 32, 128].into_iter().flat_map(|group| [4, 8, 2, 3, 5, 6].map(|bits| (group, bits)));
    let found = match (told_group, told_bits) {
        (Some(group), Some(bits)) => {
            Some((group, bits)).filter(|(group, bits)| fits(*group, *bits))
        }
        // Without a config, only what leaves no choice.
        (group, bits) => {
            let pairs = pairs
                .filter(|(g, b)| group.is_none_or(|x| x == *g) && bits.is_none_or(|x| x == *b));
            let mut fitting = pairs.filter(|(group, bits)| fits(*group, *bits));
            fitting.next().filter(|_| fitting.next().is_none())
        }
    };
    match found {
        Some((group, bits)) => Ok((groups * group, group, bits)),
        None if told_bits.is_some() && told_group.is_some() => {
            let config = format!(
                "{} bit in groups of {}",
                told_bits.unwrap_or_default(),
                told_group.unwrap_or_default()
            );
            let tensors = format!("there are {words} words and {groups} groups a row");
            Err(stored.error(QuantError::Conflict { config, tensors }))
        }
        None => {
            let reason =
                "bits and group size are in no config, and several fit its shape".to_owned();
            Err(scales.error(QuantError::BadState { reason }))
        }
    }
}

impl Affine {
    /// Codes of one group, as numbers.
    fn widen(&self, bytes: &[u8], first: usize, out: &mut [f32]) {
        match self.bits {
            4 => {
                let bytes = bytes.get(first / 2..).unwrap_or_default();
                for (byte, pair) in bytes.iter().zip(out.as_chunks_mut::<2>().0) {
                    *pair = [f32::from(byte & 15), f32::from(byte >> 4)];
                }
            }
            8 => {
                let bytes = bytes.get(first..).unwrap_or_default();
                out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = f32::from(*byte));
            }
            bits => {
                let mask = (1u32 << bits) - 1;
                for (at, slot) in out.iter_mut().enumerate() {
                    let bit = (first + at) * bits;
                    let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or_default());
                    let both = byte(bit / 8) | byte(bit / 8 + 1) << 8;
                    *slot = (both >> (bit % 8) & mask) as f32;
                }
            }
        }
    }
}

/// The same weight in codes of 8 bits, in the same groups.
fn eight_bit(codes: &Affine, (rows, columns): (usize, usize)) -> Arc<dyn Encode> {
    let (stored, packed) = (&codes.codes, vec![rows, columns / 4]);
    Arc::new(Affine {
        codes: stored.unwritten(stored.name.clone(), Dtype::U32, packed),
        scales: codes.scales.clone(),
        biases: codes.biases.clone(),
        bits: 8,
        columns,
    })
}

impl Decode for Affine {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let stride = self.columns * self.bits / 8;
        let mut scratch = Vec::new();
        let bytes = self.codes.bytes(rows.start * stride..rows.end * stride, &mut scratch)?;
        let (scales, biases) = (self.scales.read(rows.clone())?, self.biases.read(rows.clone())?);
        let group = self.scales.group();
        let lines = bytes.chunks(stride.max(1)).zip(out.chunks_mut(self.columns.max(1)));
        for (row, (bytes, values)) in rows.zip(lines) {
            let numbers = self.scales.row(&scales, row).iter().zip(self.biases.row(&biases, row));
            for ((number, values), (scale, bias)) in
                values.chunks_mut(group).enumerate().zip(numbers)
            {
                self.widen(bytes, number * group, values);
                for value in values {
                    *value = scale * *value + bias;
                }
            }
        }
        Ok(())
    }
}

impl Affine {
    /// MLX's scale and bias of a group (`backend/cpu/quantized.cpp`): the end that is further from 0 is a whole
    /// number of steps from it.
    fn fresh(&self, values: &[f32]) -> (f32, f32) {
        let low = Least::all(f32::INFINITY, values);
        let high = Greatest::all(f32::NEG_INFINITY, values);
        let steps = ((1u32 << self.bits) - 1) as f32;
        let scale = ((high - low) / steps).max(LEAST);
        let (scale, edge) = if low.abs() > high.abs() { (scale, low) } else { (-scale, high) };
        let zero = (edge / scale).round_ties_even();
        if zero == 0.0 { (scale, 0.0) } else { (edge / zero, edge) }
    }

    /// Codes of a row as the bytes of a little-endian stream.
    fn pack(&self, codes: &[u8]) -> Vec<u8> {
        if self.bits == 4 {
            return nibbles(codes, false, 0);
        }
        let mut bytes = vec![0u8; codes.len() * self.bits / 8];
        for (at, code) in codes.iter().enumerate() {
            let (bit, code) = (at * self.bits, u16::from(*code));
            let [low, high] = (code << (bit % 8)).to_le_bytes();
            bytes[bit / 8] |= low;
            if let Some(byte) = bytes.get_mut(bit / 8 + 1) {
                *byte |= high;
            }
        }
        bytes
    }
}

/// Codes belong to scales and biases before these are rounded to their dtype.
impl Encode for Affine {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let companions = [self.scales.stored(), self.biases.stored()];
        let companions = companions.into_iter().filter(|_| fresh);
        std::iter::once(&self.codes).chain(companions).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        1
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let (group, columns) = (self.scales.group(), self.columns.max(1));
        let top = ((1u32 << self.bits) - 1) as f32;
        let lines = panel.rows.clone().zip(panel.values.chunks(columns)).enumerate();
        for (line, (row, values)) in lines {
            let groups = columns.div_ceil(group);
            let (scales, biases): (Vec<f32>, Vec<f32>) = if panel.fresh() {
                values.chunks(group).map(|values| self.fresh(values)).unzip()
            } else {
                let (scales, biases) =
                    (self.scales.read(row..row + 1)?, self.biases.read(row..row + 1)?);
                (self.scales.row(&scales, row).to_vec(), self.biases.row(&biases, row).to_vec())
            };
            let (mut stored, mut bias) = (scales.clone(), biases.clone());
            if panel.fresh() {
                for (part, (grid, numbers)) in
                    [(1, (&self.scales, &mut stored)), (2, (&self.biases, &mut bias))]
                {
                    let bytes = grid.stored().rounded(row * groups, numbers)?;
                    out.put(part, row * groups * grid.stored().dtype.bitsize() / 8, bytes);
                }
            }
            let steps: Vec<[f32; 4]> =
                (0..groups).map(|at| [scales[at], biases[at], stored[at], bias[at]]).collect();
            let values = (values, panel.draws(), line * columns);
            let codes =
                round_some(Affinely { top }, values, (columns, group), &steps, &mut out.values);
            out.put(0, row * columns * self.bits / 8, self.pack(&codes));
        }
        Ok(())
    }
}

/// Codes from 0 on, by the scale and bias of a group, and what is stored of them.
#[derive(Debug, Clone, Copy)]
struct Affinely {
    top: f32,
}

impl Round for Affinely {
    type Step = [f32; 4];

    #[inline(always)]
    fn round(
        self,
        value: f32,
        [scale, bias, stored, stored_bias]: Self::Step,
        draw: Option<f32>,
    ) -> (u8, f32) {
        let scaled = if scale == 0.0 { 0.0 } else { (value - bias) / scale };
        let code = whole(scaled, draw).clamp(0.0, self.top);
        (low_byte(code), stored * code + stored_bias)
    }
}
