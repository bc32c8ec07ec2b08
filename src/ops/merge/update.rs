//! Updates that are added: their tensors read once, any rows of them at hand.

use super::change::{Source, Term};
use crate::adapter::Adapter;
use crate::adapter::module::{Module, Update};
use crate::adapter::slice::{Slice, find};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, FamilyError, Result};
use crate::format::TensorView;
use crate::math::composite::Rows;
use crate::math::staged::Panel;
use crate::math::{Factor, PackedLeft, PackedRight};

/// Left and right factors of Σ coefficient · left · right.
pub(super) struct Product {
    pub(super) left: Vec<(Factor, f64)>,
    pub(super) right: PackedRight,
}

impl Product {
    /// Reads and packs the factors of all terms, for a tensor of rows × columns.
    pub(super) fn new(
        terms: &[&Term],
        adapters: &[Adapter],
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for term in terms {
            let (a, b) = factors(term, adapters, (rows, columns))?;
            left.push((a, term.coefficient));
            right.push(b);
        }
        Ok(Self { left, right: PackedRight::new(columns, &right) })
    }

    /// The left factors of some rows.
    pub(super) fn rows(&self, first: usize, rows: usize) -> PackedLeft {
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

/// coefficient · update, added to panels.
pub(in crate::ops) struct Addition<'a> {
    made: Made<'a>,
    coefficient: f64,
}

enum Made<'a> {
    Product(Product),
    Rows(Rows),
    Stored(TensorView<'a>),
}

impl<'a> Addition<'a> {
    /// Reads what a term of a tensor of rows × columns needs.
    pub(in crate::ops) fn new(
        term: &Term,
        adapters: &'a [Adapter],
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let (adapter, module) = module(term, adapters)?;
        let made = match adapter.update(module, sides(module, term.source, (rows, columns)))? {
            Update::Stored(name) => Made::Stored(find(&adapter.file, &name)?),
            Update::Composite(composite) if !kernel_sized(composite.rank()) => {
                let turned = term.source == Source::Transposed;
                let composite = if turned { composite.transposed() } else { composite };
                Made::Rows(composite.rows())
            }
            _ => {
                let unscaled = Term { coefficient: 1.0, ..term.clone() };
                Made::Product(Product::new(&[&unscaled], adapters, (rows, columns))?)
            }
        };
        Ok(Self { made, coefficient: term.coefficient })
    }

    /// Adds rows `first..` to a panel.
    pub(in crate::ops) fn add_to(
        &self,
        panel: &mut Panel,
        first: usize,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let (columns, coefficient) = (panel.columns, self.coefficient);
        match &self.made {
            Made::Product(product) => {
                let left = product.rows(first, panel.rows);
                panel.add_product(&left, &product.right, coefficient, scratch);
            }
            Made::Rows(rows) => rows.add_to(&mut panel.values, columns, first, coefficient),
            Made::Stored(view) => {
                let stored = read_f64(*view, first * columns, panel.values.len())?;
                for (value, stored) in panel.values.iter_mut().zip(stored) {
                    *value += coefficient * stored;
                }
            }
        }
        Ok(())
    }
}

/// Whether an update of this rank is faster as factors in the kernel than made row by row.
pub(super) fn kernel_sized(rank: usize) -> bool {
    const LARGEST: usize = 128;
    rank <= LARGEST
}

/// The factors of a term: left is rows × rank, right is rank × columns of the stored tensor.
pub(in crate::ops) fn factors(
    term: &Term,
    adapters: &[Adapter],
    size: (usize, usize),
) -> Result<(Factor, Factor)> {
    let (adapter, module) = module(term, adapters)?;
    if term.source == Source::Bias {
        let bias = bias(module)?;
        return Ok((Factor::new(1, 1, vec![1.0]), bias.read(&adapter.file, 1, size.1)?));
    }
    let (up, down) = match adapter.update(module, sides(module, term.source, size))? {
        Update::Factors(up, down) => (up, down),
        Update::LowRank(matrix) => matrix.to_factors(),
        Update::Composite(composite) => composite.low_rank().to_factors(),
        Update::Stored(_) | Update::Transform(_) => {
            return Err(FamilyError::NotLowRank { family: module.family }.into());
        }
    };
    Ok(match term.source {
        Source::Transposed => (down.transposed(), up.transposed()),
        _ => (up, down),
    })
}

/// The tensor for a module's bias.
pub(in crate::ops) fn bias(module: &Module) -> Result<Slice> {
    let bias = module.bias.as_ref().ok_or(ErrorKind::NotFound)?;
    Ok(Slice::whole(&bias.tensor))
}

/// (outputs, inputs) of a module on a stored tensor of rows × columns.
pub(in crate::ops) fn sides(
    module: &Module,
    source: Source,
    (rows, columns): (usize, usize),
) -> (usize, usize) {
    let (outputs, inputs) =
        if source == Source::Transposed { (columns, rows) } else { (rows, columns) };
    let known = |size: usize, otherwise| if size == 0 { otherwise } else { size };
    (known(module.outputs, outputs), known(module.inputs, inputs))
}

/// The adapter and module of a term.
pub(in crate::ops) fn module<'a>(
    term: &Term,
    adapters: &'a [Adapter],
) -> Result<(&'a Adapter, &'a Module)> {
    let adapter = adapters.get(term.adapter).ok_or(ErrorKind::NotFound)?;
    Ok((adapter, adapter.modules.get(term.module).ok_or(ErrorKind::NotFound)?))
}
