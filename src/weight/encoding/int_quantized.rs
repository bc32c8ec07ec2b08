//! Whole numbers of eight bits with a scale for all, a row or a group (compressed-tensors' int-quantized).
//!
//! value = (code − zero point) · f32(scale); the subtraction is of whole numbers.

use std::ops::Range;
use std::sync::Arc;

use super::fp8_scaled::grid;
use super::{Encoding, Recognised, module_of};
use crate::error::Result;
use crate::format::Dtype;
use crate::math::kernel::loops::{Greatest, Least, fold_groups};
use crate::weight::codes::Code;
use crate::weight::grid::{Grid, Scales};
use crate::weight::groups::round;
use crate::weight::integers::Integers as Codes;
use crate::weight::model::Model;
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding =
    Encoding { name: "int_quantized", companions: &[], recognise };

#[derive(Debug)]
struct Integers {
    codes: Stored,
    grid: Grid,
    zeros: Option<Stored>,
    columns: usize,
    /// Groups of one row; 0, if all rows have one zero point.
    groups: usize,
}

pub(super) fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let module = module_of(&stored.name);
    let scale = model.tensor(&format!("{module}.weight_scale"));
    let (Dtype::I8, Some(scale)) = (stored.dtype, scale) else { return Ok(None) };
    let columns = stored.shape.last().copied().unwrap_or(1);
    let (grid, what) = grid(stored, &scale)?;
    let zeros = model.tensor(&format!("{module}.weight_zero_point"));
    if let Some(zeros) = &zeros
        && (zeros.dtype != Dtype::I8 || zeros.elements() != scale.elements())
    {
        return Err(zeros.misfit(stored, format!("{:?} (I8)", scale.shape)));
    }
    let groups = if grid.is_whole() { 0 } else { columns.div_ceil(grid.group().max(1)) };
    let zero_name = format!("{module}.weight_zero_point");
    let parts = [stored.name.as_str(), scale.name.as_str(), zero_name.as_str()];
    let detail = format!("I8, {what}");
    let codes = Integers { codes: stored.clone(), grid, zeros, columns, groups };
    let found = Recognised::written(stored.shape.clone(), detail, codes);
    Ok(Some(model.recognised(&stored.name, module, &parts, found)))
}

/// A matrix in such codes with a scale a row.
pub(super) fn rows(
    codes: Stored,
    scale: Stored,
    (rows, columns): (usize, usize),
) -> Option<Arc<dyn Encode>> {
    let grid = Grid::blocks(scale, 1, (rows, columns), (1, columns))?;
    Some(Arc::new(Integers { codes, grid, zeros: None, columns, groups: 1 }))
}

/// What codes have, of all a tensor or by block: scales and zero points.
struct Numbers {
    scales: Scales,
    zeros: Scales,
}

impl Integers {
    const CODES: Codes = Codes { bits: 8 };

    /// New numbers for blocks whose values lie between these, 0 among them.
    fn between(&self, low: &Scales, high: &Scales) -> Numbers {
        let codes = Self::CODES;
        match self.zeros {
            None => {
                let scales = low.zip(high, |low, high| codes.symmetric(high.max(-low)));
                Numbers { zeros: scales.map(|_| 0.0), scales }
            }
            Some(_) => Numbers {
                scales: low.zip(high, |low, high| codes.affine(low, high).0),
                zeros: low.zip(high, |low, high| codes.affine(low, high).1),
            },
        }
    }

    /// New numbers of a whole tensor.
    fn surveyed(&self, survey: &[f32]) -> Numbers {
        let low = survey.iter().fold(0.0, |low: f32, value| low.min(*value));
        let high = survey.iter().fold(0.0, |high: f32, value| high.max(*value));
        self.between(&Grid::single(low), &Grid::single(high))
    }

    fn put(&self, numbers: &mut Numbers, out: &mut Encoded) -> Result<()> {
        self.grid.put(1, &mut numbers.scales, out)?;
        if self.zeros.is_some() {
            let zeros = numbers.zeros.values().iter();
            let at = numbers.zeros.first() * self.groups;
            out.put(2, at, zeros.map(|zero| (*zero as i8).cast_unsigned()).collect());
        }
        Ok(())
    }

    /// The stored numbers of some rows.
    fn stored(&self, rows: &Range<usize>) -> Result<Numbers> {
        let scales = self.grid.read(rows.clone())?;
        let mut zeros = scales.map(|_| 0.0);
        if let Some(stored) = &self.zeros {
            let (mut scratch, first) = (Vec::new(), zeros.first() * self.groups);
            let bytes = stored.bytes(first..first + zeros.values().len(), &mut scratch)?;
            for (zero, byte) in zeros.values_mut().iter_mut().zip(bytes) {
                *zero = f32::from(byte.cast_signed());
            }
        }
        Ok(Numbers { scales, zeros })
    }
}

impl Encode for Integers {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        let fresh = writing.scales == crate::weight::Scales::Fresh;
        let companions = [Some(self.grid.stored()), self.zeros.as_ref()].into_iter().flatten();
        let codes = std::iter::once(&self.codes);
        codes.chain(companions.filter(|_| fresh)).map(Part::like).collect()
    }

    fn grain(&self) -> usize {
        self.grid.grain()
    }

    fn surveys(&self, writing: Writing) -> bool {
        self.grid.is_single() && writing.scales == crate::weight::Scales::Fresh
    }

    fn survey(&self, values: &[f32]) -> Vec<f32> {
        let (low, high) = (fold_groups::<Least>, fold_groups::<Greatest>);
        [low, high].into_iter().flat_map(|fold| fold(0.0, values, values.len())).collect()
    }

    fn settle(&self, survey: &[f32]) -> Result<Vec<f32>> {
        Ok(self.survey(survey))
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let numbers = if !panel.fresh() {
            self.stored(&panel.rows)?
        } else if self.grid.is_single() {
            let mut numbers = self.surveyed(panel.survey);
            self.grid.stored().rounded(0, numbers.scales.values_mut())?;
            numbers
        } else {
            let (rows, values) = (panel.rows.clone(), panel.values);
            let low = self.grid.fold::<Least>(rows.clone(), self.columns, values);
            let high = self.grid.fold::<Greatest>(rows, self.columns, values);
            let mut numbers = self.between(&low, &high);
            self.put(&mut numbers, out)?;
            numbers
        };
        let steps = self.grid.pairs(panel.rows.clone(), &numbers.scales, &numbers.zeros);
        let size = (self.columns, self.grid.group());
        let codes = round(Self::CODES.rule(0.0), panel, size, &steps, &mut out.values);
        out.put(0, panel.rows.start * self.columns, codes);
        Ok(())
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        if self.surveys(writing) {
            self.put(&mut self.surveyed(survey), out)?;
        }
        Ok(())
    }
}

impl Decode for Integers {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        Code::Int8.widen(&self.codes, rows.start * self.columns, out)?;
        if let Some(stored) = &self.zeros {
            let mut scratch = Vec::new();
            let range = match self.groups {
                0 => 0..1,
                groups => rows.start * groups..rows.end * groups,
            };
            let zeros = stored.bytes(range, &mut scratch)?;
            for (at, values) in out.chunks_mut(self.columns.max(1)).enumerate() {
                let first = at * self.groups;
                for (number, group) in values.chunks_mut(self.grid.group().max(1)).enumerate() {
                    let zero = zeros.get(first + number).copied().unwrap_or_default();
                    let zero = f32::from(zero.cast_signed());
                    for value in group {
                        *value -= zero;
                    }
                }
            }
        }
        self.grid.multiply(rows, self.columns, out)
    }
}
