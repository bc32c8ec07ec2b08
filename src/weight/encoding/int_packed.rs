//! Whole numbers packed in words of 32 bits (compressed-tensors' pack-quantized): code k of a word at bits k · b,
//! stored as code + 2^(b−1). Zero points are packed the same way, but down the rows. `weight_g_idx` names the
//! group of each column; the codes keep the columns' order.
//!
//! value = (code − zero point) · f32(scale); the subtraction is of whole numbers.

use std::ops::Range;
use std::sync::Arc;

use super::{Encoding, InEightBits, Recognised};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::math::kernel::loops::{Greatest, Least, fold_groups};
use crate::weight::grid::Grid;
use crate::weight::groups::{Words, nibbles, round};
use crate::weight::integers::Integers;
use crate::weight::model::Model;
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding = Encoding {
    name: "int_packed",
    companions: &[".weight_zero_point", ".weight_g_idx"],
    recognise,
};

#[derive(Debug)]
struct Packed {
    codes: Stored,
    bits: usize,
    columns: usize,
    grid: Grid,
    groups: usize,
    zeros: Option<Stored>,
    indices: Option<Stored>,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let module = stored.name.strip_suffix(".weight_packed");
    let Some(module) = module.filter(|_| stored.dtype == Dtype::I32) else { return Ok(None) };
    let (count, rows, words) =
        super::stack(&stored.shape).ok_or_else(|| stored.misfit(stored, "a matrix of words"))?;
    let told = model.need(stored, &format!("{module}.weight_shape"), "packed integers")?;
    let columns = columns_of(&told, rows)?;
    let bits = bits(model, module, stored, (columns, words))?;
    let scale = model.need(stored, &format!("{module}.weight_scale"), "packed integers")?;
    let groups = match scale.shape.as_slice() {
        [.., high, groups] if *high == rows && *groups > 0 && *groups <= columns => *groups,
        [one] if *one == 1 => 0,
        _ => return Err(scale.misfit(stored, format!("[{rows}, groups of {columns} columns]"))),
    };
    let group = group_size(model, module, (columns, groups), (stored, &scale))?;
    let grid = match groups {
        0 => Some(Grid::whole(scale.clone(), (rows * count, columns))),
        _ => Grid::blocks(scale.clone(), count, (rows, columns), (1, group)),
    };
    let grid = grid.ok_or_else(|| {
        scale.misfit(stored, format!("[{rows}, {}] for groups of {group}", columns.div_ceil(group)))
    })?;
    let groups = groups.max(1);
    let zeros = model.tensor(&format!("{module}.weight_zero_point"));
    let per_word = 32 / bits;
    if let Some(zeros) = &zeros {
        let expected = [count * rows.div_ceil(per_word), groups];
        if zeros.dtype != Dtype::I32 || zeros.elements() != expected[0] * expected[1] || count != 1
        {
            return Err(zeros.misfit(stored, format!("{expected:?} (I32)")));
        }
    }
    let indices = group_indices(model, module, stored, (columns, groups))?;
    let mut shape = stored.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    let order = if indices.is_some() { ", in activation order" } else { "" };
    let detail = format!("{bits} bit, groups of {group}{order}");
    let own =
        ["weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx"]
            .map(|ending| format!("{module}.{ending}"));
    // One zero point for all has no word of its own for every row.
    let written = zeros.is_none() || !grid.is_single();
    let integers = eight_bit((stored, &scale), (rows * count, columns));
    let eight_bit = InEightBits { integers, ..InEightBits::default() };
    let codes = Packed { codes: stored.clone(), bits, columns, grid, groups, zeros, indices };
    let found = Recognised::written(shape, detail, codes);
    let found = Recognised { writer: found.writer.filter(|_| written), eight_bit, ..found };
    let own = own.each_ref().map(String::as_str);
    Ok(Some(model.recognised(&format!("{module}.weight"), module, &own, found)))
}

/// Columns by `weight_shape`, whose other dimensions must be the codes'.
fn columns_of(told: &Stored, rows: usize) -> Result<usize> {
    let sizes: Vec<usize> =
        told.integers()?.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    match sizes.as_slice() {
        [.., high, columns] if *high == rows => Ok(*columns),
        _ => {
            let config = format!("the weight is {sizes:?}");
            let tensors = format!("there are {rows} rows of words");
            Err(told.error(QuantError::Conflict { config, tensors }))
        }
    }
}

/// Bits of a code: as the config says, and as the number of words must have them.
fn bits(
    model: &Model<'_>,
    module: &str,
    stored: &Stored,
    (columns, words): (usize, usize),
) -> Result<usize> {
    let fits = |bits: usize| (1..=8).contains(&bits) && columns.div_ceil(32 / bits) == words;
    let told = model.config.group(model.module(module)).and_then(|group| group.number("num_bits"));
    let bits = told.or_else(|| [4, 8, 2, 3, 5, 6].into_iter().find(|bits| fits(*bits)));
    match bits.filter(|bits| fits(*bits)) {
        Some(bits) => Ok(bits),
        None => {
            let config = told.map_or_else(String::new, |bits| format!("{bits} bit and "));
            let config = format!("{config}{columns} columns");
            let tensors = format!("there are {words} words of 32 bits a row");
            Err(stored.error(QuantError::Conflict { config, tensors }))
        }
    }
}

/// Columns of a group.
fn group_size(
    model: &Model<'_>,
    module: &str,
    (columns, groups): (usize, usize),
    (stored, scale): (&Stored, &Stored),
) -> Result<usize> {
    if groups <= 1 {
        return Ok(columns.max(1));
    }
    let told =
        model.config.group(model.module(module)).and_then(|group| group.number("group_size"));
    match told {
        Some(size) if columns.div_ceil(size) == groups => Ok(size),
        Some(size) => Err(scale.misfit(stored, format!("[…, {}]", columns.div_ceil(size)))),
        None if columns % groups == 0 => Ok(columns / groups),
        None => Err(scale.misfit(stored, format!("groups that divide {columns} columns"))),
    }
}

/// The group of each column, if they are not in order; all −1 means that they are.
fn group_indices(
    model: &Model<'_>,
    module: &str,
    stored: &Stored,
    (columns, groups): (usize, usize),
) -> Result<Option<Stored>> {
    let Some(indices) = model.tensor(&format!("{module}.weight_g_idx")) else { return Ok(None) };
    if indices.elements() != columns {
        return Err(indices.misfit(stored, format!("[{columns}]")));
    }
    let values = indices.integers()?;
    if values.iter().all(|group| *group == -1) {
        return Ok(None);
    }
    check_groups(&indices, &values, groups)?;
    Ok(Some(indices))
}

/// Every column's group exists.
pub(super) fn check_groups(indices: &Stored, values: &[i64], groups: usize) -> Result<()> {
    let wrong = values
        .iter()
        .position(|group| usize::try_from(*group).is_ok_and(|g| g >= groups) || *group < 0);
    match wrong {
        None => Ok(()),
        Some(column) => {
            let group = values.get(column).copied().unwrap_or_default();
            Err(indices.error(QuantError::Group { column, group, groups }))
        }
    }
}

/// Code number `at` of a word.
fn code(word: u32, at: usize, bits: usize) -> i32 {
    let mask = (1u32 << bits) - 1;
    (word >> (at * bits) & mask).cast_signed() - (1 << (bits - 1))
}

impl Packed {
    /// Zero points of one row, a group after the other; `words` are those from row `first` on.
    fn zeros_of(&self, words: &[[u8; 4]], row: usize, first: usize, out: &mut [i32]) {
        let per_word = 32 / self.bits;
        let line = (row / per_word - first / per_word) * self.groups;
        for (group, zero) in out.iter_mut().enumerate() {
            let word = words.get(line + group).copied().unwrap_or_default();
            *zero = code(u32::from_le_bytes(word), row % per_word, self.bits);
        }
    }
}

impl Decode for Packed {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let stride = self.columns.div_ceil(32 / self.bits) * 4;
        let mut scratch = Vec::new();
        let bytes = self.codes.bytes(rows.start * stride..rows.end * stride, &mut scratch)?;
        let indices = self.indices.as_ref().map(Stored::integers).transpose()?;
        let (group, steps) = self.steps(&self.stored(&rows)?, indices.as_deref());
        let words =
            Words { bytes, bits: self.bits, middle: -Integers { bits: self.bits }.bottom() };
        words.read((self.columns, group), &steps, out);
        Ok(())
    }
}

/// The same weight in codes of 8 bits with a scale a row.
fn eight_bit(
    (codes, scale): (&Stored, &Stored),
    (rows, columns): (usize, usize),
) -> Option<Arc<dyn Encode>> {
    let scale = scale.unwritten(scale.name.clone(), scale.dtype, vec![rows, 1]);
    let packed = vec![rows, columns.div_ceil(4)];
    Some(Arc::new(Packed {
        codes: codes.unwritten(codes.name.clone(), Dtype::I32, packed),
        bits: 8,
        columns,
        grid: Grid::blocks(scale, 1, (rows, columns), (1, columns))?,
        groups: 1,
        zeros: None,
        indices: None,
    }))
}

/// Scales and zero points of one row's groups.
#[derive(Clone)]
struct Row {
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Packed {
    /// New scales and zero points for the values of a row.
    fn fresh(&self, values: &[f32], indices: Option<&[i64]>) -> Row {
        let ranges: Vec<(f32, f32)> = match indices {
            None => {
                let group = if self.groups == 1 { self.columns } else { self.grid.group() };
                let low = fold_groups::<Least>(0.0, values, group);
                low.into_iter().zip(fold_groups::<Greatest>(0.0, values, group)).collect()
            }
            Some(indices) => {
                let mut ranges = vec![(0.0f32, 0.0f32); self.groups];
                for (group, value) in indices.iter().zip(values) {
                    if let Some(range) = ranges.get_mut(*group as usize) {
                        *range = (range.0.min(*value), range.1.max(*value));
                    }
                }
                ranges
            }
        };
        self.between(&ranges)
    }

    /// Columns of a group, and scale and zero point of every row's groups: of its columns, if these are in no order.
    fn steps(&self, rows: &[Row], indices: Option<&[i64]>) -> (usize, Vec<(f32, f32)>) {
        let numbers = |row: &Row, group: usize| {
            let number = |of: &[f32]| of.get(group).copied().unwrap_or_default();
            (number(&row.scales), number(&row.zeros))
        };
        match indices {
            None => {
                let group = if self.groups == 1 { self.columns } else { self.grid.group() };
                let row = |row| (0..self.groups).map(move |group| numbers(row, group));
                (group, rows.iter().flat_map(row).collect())
            }
            Some(indices) => {
                let row = |row| indices.iter().map(move |group| numbers(row, *group as usize));
                (1, rows.iter().flat_map(row).collect())
            }
        }
    }

    /// The words of a row of codes.
    fn put_words(&self, codes: &[u8], words: &mut Vec<u8>) {
        let (per_word, end) =
            (32 / self.bits, words.len() + codes.len().div_ceil(32 / self.bits) * 4);
        match self.bits {
            4 => words.extend(nibbles(codes, false, 0)),
            8 => words.extend(codes),
            bits => {
                for codes in codes.chunks(per_word) {
                    let placed = codes.iter().enumerate();
                    let word =
                        placed.fold(0, |word, (at, code)| word | u32::from(*code) << (at * bits));
                    words.extend(word.to_le_bytes());
                }
            }
        }
        // The last word is filled up with zeros.
        words.resize(end, 0);
    }

    fn between(&self, ranges: &[(f32, f32)]) -> Row {
        let codes = Integers { bits: self.bits };
        let numbers = ranges.iter().map(|(low, high)| match self.zeros {
            None => (codes.symmetric(high.max(-low)), 0.0),
            Some(_) => codes.affine(*low, *high),
        });
        let (scales, zeros) = numbers.unzip();
        Row { scales, zeros }
    }

    /// The stored ones of some rows.
    fn stored(&self, rows: &Range<usize>) -> Result<Vec<Row>> {
        let (scales, per_word) = (self.grid.read(rows.clone())?, 32 / self.bits);
        let (mut scratch, mut zero) = (Vec::new(), vec![0; self.groups]);
        let words = match &self.zeros {
            None => &[][..],
            Some(zeros) => {
                let lines = rows.start / per_word..rows.end.div_ceil(per_word);
                let range = lines.start * self.groups * 4..lines.end * self.groups * 4;
                zeros.bytes(range, &mut scratch)?.as_chunks::<4>().0
            }
        };
        let row = |row: usize| {
            if self.zeros.is_some() {
                self.zeros_of(words, row, rows.start, &mut zero);
            }
            let zeros = zero.iter().map(|zero| *zero as f32).collect();
            Row { scales: self.grid.row(&scales, row).to_vec(), zeros }
        };
        Ok(rows.clone().map(row).collect())
    }

    /// Puts the zero points of whole words of rows.
    fn put_zeros(&self, first: usize, rows: &[Row], out: &mut Encoded) {
        let (per_word, middle) = (32 / self.bits, 1i32 << (self.bits - 1));
        let mut words = vec![0u32; rows.len().div_ceil(per_word) * self.groups];
        for (at, row) in rows.iter().enumerate() {
            let line = words.iter_mut().skip(at / per_word * self.groups);
            for (word, zero) in line.zip(&row.zeros) {
                *word |= ((*zero as i32 + middle) as u32) << (at % per_word * self.bits);
            }
        }
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        out.put(2, first / per_word * self.groups * 4, bytes);
    }
}

impl Encode for Packed {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let companions = [Some(self.grid.stored()), self.zeros.as_ref()].into_iter().flatten();
        let codes = std::iter::once(&self.codes);
        codes.chain(companions.filter(|_| fresh)).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        if self.zeros.is_some() { 32 / self.bits } else { 1 }
    }

    fn surveys(&self, writing: Writing) -> bool {
        self.grid.is_single() && writing.scales == crate::weight::Scales::Fresh
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let (codes, per_word) = (Integers { bits: self.bits }, 32 / self.bits);
        let indices = self.indices.as_ref().map(Stored::integers).transpose()?;
        let indices = indices.as_deref();
        let columns = self.columns.max(1);
        let rows = if !panel.fresh() {
            self.stored(&panel.rows)?
        } else if self.grid.is_single() {
            let mut row = self.between(&[(0.0, crate::weight::encode::largest(panel.survey))]);
            self.grid.stored().rounded(0, &mut row.scales)?;
            vec![row; panel.rows.len()]
        } else {
            let lines = panel.values.chunks(columns);
            let mut rows: Vec<Row> = lines.map(|values| self.fresh(values, indices)).collect();
            for (row, numbers) in panel.rows.clone().zip(&mut rows) {
                let first = row * self.groups;
                let bytes = self.grid.stored().rounded(first, &mut numbers.scales)?;
                out.put(1, first * self.grid.stored().dtype.bitsize() / 8, bytes);
            }
            if self.zeros.is_some() {
                self.put_zeros(panel.rows.start, &rows, out);
            }
            rows
        };
        let stride = columns.div_ceil(per_word) * 4;
        let (group, steps) = self.steps(&rows, indices);
        let rule = codes.rule(-codes.bottom());
        let codes = round(rule, panel, (columns, group), &steps, &mut out.values);
        let mut words = Vec::with_capacity(panel.rows.len() * stride);
        codes.chunks(columns).for_each(|codes| self.put_words(codes, &mut words));
        out.put(0, panel.rows.start * stride, words);
        Ok(())
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        if self.surveys(writing) {
            let largest = crate::weight::encode::largest(survey);
            let mut row = self.between(&[(0.0, largest)]);
            out.put(1, 0, self.grid.stored().rounded(0, &mut row.scales)?);
        }
        Ok(())
    }
}
