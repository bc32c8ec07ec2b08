//! The factors of a term: read, turned, cut to its region, and packed for the kernel.

use std::ops::Range;

use crate::adapter::Adapter;
use crate::adapter::convention::gguf_names::row_order;
use crate::adapter::module::{Module, Update};
use crate::adapter::slice::{Slice, Span};
use crate::error::{ErrorKind, FamilyError, Result};
use crate::math::{Factor, PackedLeft, PackedRight};
use crate::ops::merge::plan::sides::sides;
use crate::ops::merge::plan::step::{Term, TermForm};

/// Left and right factors of Σ coefficient · left · right.
#[derive(Debug, Clone)]
pub(in crate::ops::merge) struct Product {
    pub(in crate::ops::merge) left: Vec<(Factor, f64)>,
    pub(in crate::ops::merge) right: PackedRight,
}

impl Product {
    /// Packs factors, the right ones of that many columns.
    pub(in crate::ops::merge) fn new(
        left: Vec<(Factor, f64)>,
        right: &[Factor],
        columns: usize,
    ) -> Self {
        Self { left, right: PackedRight::new(columns, right) }
    }

    /// The left factors of some rows.
    pub(in crate::ops::merge) fn rows(&self, first: usize, rows: usize) -> PackedLeft {
        if self.left.is_empty() {
            return PackedLeft::new(
                &[(Factor::new(first + rows, 0, Vec::new()), 1.0)],
                first,
                rows,
            );
        }
        PackedLeft::new(&self.left, first, rows)
    }
}

/// Some rows of a factor.
pub(in crate::ops::merge) fn rows_of(factor: &Factor, rows: &Range<usize>) -> Factor {
    let columns = factor.columns;
    let values = factor.values.get(rows.start * columns..rows.end * columns).unwrap_or_default();
    Factor::new(rows.len(), columns, values.to_vec())
}

/// A factor's rows in llama.cpp's order of a rotation.
///
/// # Errors
/// If they do not divide into heads.
fn reorder_rows(factor: &Factor, heads: usize) -> Result<Factor> {
    let order = row_order(factor.rows, heads).ok_or_else(|| ErrorKind::BadShape {
        expected: format!("rows of {heads} heads of an even size"),
        found: vec![factor.rows, factor.columns],
    })?;
    let values = order.into_iter().flat_map(|row| factor.row(row).iter().copied());
    Ok(Factor::new(factor.rows, factor.columns, values.collect()))
}

/// A factor's columns put in their place among `width`, zeros elsewhere.
fn spread_columns(factor: &Factor, span: Span, width: usize) -> Factor {
    let mut values = vec![0.0; factor.rows * width];
    for (row, wide) in values.chunks_mut(width.max(1)).enumerate() {
        for (value, at) in factor.row(row).iter().zip(span.positions()) {
            if let Some(slot) = wide.get_mut(at) {
                *slot = *value;
            }
        }
    }
    Factor::new(factor.rows, width, values)
}

/// The factors of a term: left is rows × rank of its region, right is rank × columns of the whole
/// tensor, which is of this size.
pub(in crate::ops) fn factors(
    term: &Term,
    adapters: &[Adapter],
    size: (usize, usize),
) -> Result<(Factor, Factor)> {
    let (adapter, module) = module(term, adapters)?;
    let region = term.region.as_ref();
    let wide = |right: Factor| match region.and_then(|region| region.columns) {
        Some(span) => spread_columns(&right, span, size.1),
        None => right,
    };
    let part = region.and_then(|region| region.part.as_ref());
    if term.source == TermForm::Bias {
        let length = module.bias.as_ref().map_or(0, |bias| bias.length);
        let mut values = bias(module)?.read(&adapter.file, length, 1)?;
        if let Some(part) = part {
            values = rows_of(&values, part);
        }
        return Ok((Factor::new(1, 1, vec![1.0]), wide(values.transposed())));
    }
    let own = region.map_or(size, |region| region.size(size));
    let (up, down) = match adapter.update(module, sides(module, term.source, own))? {
        Update::Factors(up, down) => (up, down),
        Update::LowRank(matrix) => matrix.to_factors(),
        Update::Composite(composite) => composite.low_rank().to_factors(),
        Update::Rows(_) | Update::Stored(_) | Update::Transform(_) => {
            return Err(FamilyError::NotLowRank { family: module.family }.into());
        }
    };
    let (left, right) = match term.source {
        TermForm::Transposed => (down.transposed(), up.transposed()),
        _ => (up, down),
    };
    let left = match part {
        Some(part) => rows_of(&left, part),
        None => left,
    };
    let left = match region.and_then(|region| region.heads) {
        Some(heads) => reorder_rows(&left, heads)?,
        None => left,
    };
    Ok((left, wide(right)))
}

/// The tensor for a module's bias.
pub(in crate::ops) fn bias(module: &Module) -> Result<Slice> {
    let bias = module.bias.as_ref().ok_or(ErrorKind::NotFound)?;
    Ok(Slice::whole(&bias.tensor))
}

/// The adapter and module of a term.
pub(in crate::ops) fn module<'a>(
    term: &Term,
    adapters: &'a [Adapter],
) -> Result<(&'a Adapter, &'a Module)> {
    let adapter = adapters.get(term.adapter).ok_or(ErrorKind::NotFound)?;
    Ok((adapter, adapter.modules.get(term.module).ok_or(ErrorKind::NotFound)?))
}
