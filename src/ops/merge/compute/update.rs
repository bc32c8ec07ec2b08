//! Updates that are added: their tensors read once, any rows of them at hand.

use super::bands::Bands;
use super::product::module;
use crate::adapter::Adapter;
use crate::adapter::module::Update;
use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::Result;
use crate::format::TensorView;
use crate::math::RowMatrix;
use crate::math::forms::composite::Rows;
use crate::math::kernel::f64_panel::Panel;
use crate::math::kernel::stored_delta;
use crate::ops::merge::plan::region::Region;
use crate::ops::merge::plan::sides::{kernel_sized, sides};
use crate::ops::merge::plan::step::{Term, TermForm};

/// coefficient · update, added to panels.
pub(in crate::ops) struct Addition<'a> {
    made: Made<'a>,
    coefficient: f64,
    region: Region,
}

enum Made<'a> {
    Product(Bands),
    Rows(Rows),
    Matrix(RowMatrix),
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
        let region =
            region.unwrap_or(Region { rows: 0..rows, columns: None, part: None, heads: None });
        let size = region.size((rows, columns));
        let made = match adapter.update(module, sides(module, term.source, size))? {
            Update::Stored(name) => Made::Stored(find(&adapter.file, &name)?),
            Update::Rows(matrix) if term.source == TermForm::Transposed => {
                Made::Matrix(matrix.transposed())
            }
            Update::Rows(matrix) => Made::Matrix(matrix),
            Update::Composite(composite) if !kernel_sized(composite.rank()) => {
                let turned = term.source == TermForm::Transposed;
                let composite = if turned { composite.transposed() } else { composite };
                Made::Rows(composite.rows())
            }
            _ => {
                let unscaled = Term { weight: 1.0, scale: 1.0, ..term.clone() };
                Made::Product(Bands::new(&[&unscaled], adapters, (rows, columns))?)
            }
        };
        Ok(Self { made, coefficient: term.coefficient(), region })
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
            Self::Matrix(matrix) => matrix.add_to(target, columns, from, coefficient),
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
