//! Updates that are added: their tensors read once, any rows of them at hand.

use crate::adapter::Adapter;
use crate::adapter::module::{Kind, Module, Update};
use crate::adapter::slice::{Slice, find};
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, FamilyError, Result};
use crate::format::TensorView;
use crate::math::forms::composite::Rows;
use crate::math::kernel::f64_panel::Panel;
use crate::math::kernel::stored_delta;
use crate::math::{Factor, PackedLeft, PackedRight};
use crate::ops::merge::plan::change::{Source, Term};
use crate::ops::merge::plan::region::{Bands, Region, rows_of, spread_columns};

/// Left and right factors of Σ coefficient · left · right.
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

/// coefficient · update, added to panels.
pub(in crate::ops) struct Addition<'a> {
    made: Made<'a>,
    coefficient: f64,
    region: Region,
}

enum Made<'a> {
    Product(Bands),
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
        let region = term.region.clone();
        let region = region.unwrap_or(Region { rows: 0..rows, columns: None, part: None });
        let size = region.size((rows, columns));
        let made = match adapter.update(module, sides(module, term.source, size))? {
            Update::Stored(name) => Made::Stored(find(&adapter.file, &name)?),
            Update::Composite(composite) if !kernel_sized(composite.rank()) => {
                let turned = term.source == Source::Transposed;
                let composite = if turned { composite.transposed() } else { composite };
                Made::Rows(composite.rows())
            }
            _ => {
                let unscaled = Term { coefficient: 1.0, ..term.clone() };
                Made::Product(Bands::new(&[&unscaled], adapters, (rows, columns))?)
            }
        };
        Ok(Self { made, coefficient: term.coefficient, region })
    }

    /// Writes rows `first..` as f32, if it is a product that lies in all of them.
    pub(in crate::ops::merge) fn write(&self, out: &mut [f32], first: usize, rows: usize) -> bool {
        let Made::Product(bands) = &self.made else { return false };
        let written = bands.product(out, first, rows);
        if written {
            stored_delta::scale(out, self.coefficient);
        }
        written
    }

    /// Adds rows `first..` to a panel.
    pub(in crate::ops) fn add_to(
        &self,
        panel: &mut Panel,
        first: usize,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let (columns, coefficient) = (panel.columns, self.coefficient);
        if let Made::Product(bands) = &self.made {
            bands.add_to(panel, first, coefficient, scratch);
            return Ok(());
        }
        let Some(own) = self.region.within(first, panel.rows) else { return Ok(()) };
        let Some(from) = self.region.row_of(own.start) else { return Ok(()) };
        let at = (own.start - first) * columns;
        let target = panel.values.get_mut(at..at + own.len() * columns).unwrap_or_default();
        let Some(span) = self.region.columns else {
            return self.made.add_rows(target, columns, from, coefficient);
        };
        let mut narrow = vec![0.0; own.len() * span.count];
        self.made.add_rows(&mut narrow, span.count, from, coefficient)?;
        let pairs = target.chunks_mut(columns.max(1)).zip(narrow.chunks(span.count.max(1)));
        for (row, narrow) in pairs {
            for (at, value) in span.positions().zip(narrow) {
                if let Some(slot) = row.get_mut(at) {
                    *slot += value;
                }
            }
        }
        Ok(())
    }
}

impl Made<'_> {
    /// Adds rows `from..` of an update that is made row by row.
    fn add_rows(
        &self,
        target: &mut [f64],
        columns: usize,
        from: usize,
        coefficient: f64,
    ) -> Result<()> {
        match self {
            Self::Product(_) => {}
            Self::Rows(rows) => rows.add_to(target, columns, from, coefficient),
            Self::Stored(view) => {
                let stored = read_f64(*view, from * columns, target.len())?;
                for (value, stored) in target.iter_mut().zip(stored) {
                    *value += coefficient * stored;
                }
            }
        }
        Ok(())
    }
}

/// Whether an update of this rank is faster as factors in the kernel than made row by row.
pub(in crate::ops::merge) fn kernel_sized(rank: usize) -> bool {
    const LARGEST: usize = 128;
    rank <= LARGEST
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
    if term.source == Source::Bias {
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
        Update::Stored(_) | Update::Transform(_) => {
            return Err(FamilyError::NotLowRank { family: module.family }.into());
        }
    };
    let (left, right) = match term.source {
        Source::Transposed => (down.transposed(), up.transposed()),
        _ => (up, down),
    };
    let left = match part {
        Some(part) => rows_of(&left, part),
        None => left,
    };
    Ok((left, wide(right)))
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
    // Channels leave the kernel to the weight.
    let own = if module.kind == Kind::Channels { 0 } else { module.inputs };
    (known(module.outputs, outputs), known(own, inputs))
}

/// The adapter and module of a term.
pub(in crate::ops) fn module<'a>(
    term: &Term,
    adapters: &'a [Adapter],
) -> Result<(&'a Adapter, &'a Module)> {
    let adapter = adapters.get(term.adapter).ok_or(ErrorKind::NotFound)?;
    Ok((adapter, adapter.modules.get(term.module).ok_or(ErrorKind::NotFound)?))
}
