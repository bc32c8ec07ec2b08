//! The part of a tensor that a term lies in, and the bands of rows that have the same terms.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Serialize;

use super::change::Term;
use crate::adapter::Adapter;
use crate::adapter::place::Placement;
use crate::adapter::slice::Span;
use crate::error::Result;
use crate::math::kernel::f64_panel::Panel;
use crate::math::kernel::factor::BLOCK;
use crate::math::kernel::fused;
use crate::math::{Factor, PackedLeft};
use crate::ops::merge::compute::update::{Product, factors};

/// A part of a rows × columns tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Span>,
    /// Rows of the update that lie there, first to first; all if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Range<usize>>,
}

impl Region {
    /// Where a placement lies in a tensor of this shape; none for the whole update on the whole of it.
    pub(in crate::ops::merge) fn of(place: &Placement, stored: &[usize]) -> Option<Self> {
        if place.is_whole() {
            return None;
        }
        let high = match (place.expert, stored) {
            (Some(_), [_, rows, ..]) | (None, [rows, ..]) => *rows,
            _ => 1,
        };
        let above = place.expert.unwrap_or(0) * high;
        let rows = place.rows.clone().unwrap_or(0..high);
        Some(Self {
            rows: above + rows.start..above + rows.end,
            columns: place.columns,
            part: place.part.as_ref().map(|part| part.rows.clone()),
        })
    }

    /// Whether two terms share an element; without a region one is everywhere.
    pub(in crate::ops::merge) fn meet(a: Option<&Self>, b: Option<&Self>) -> bool {
        let (Some(a), Some(b)) = (a, b) else { return true };
        let columns = match (a.columns, b.columns) {
            (Some(a), Some(b)) => a.meets(b),
            _ => true,
        };
        a.rows.start < b.rows.end && b.rows.start < a.rows.end && columns
    }

    /// Rows and columns of the update, for a tensor of this size.
    pub(in crate::ops::merge) fn size(&self, (_, columns): (usize, usize)) -> (usize, usize) {
        (self.rows.len(), self.columns.map_or(columns, |span| span.count))
    }

    /// The row of the update that lies in a row of the tensor, if one does.
    pub(in crate::ops::merge) fn row_of(&self, row: usize) -> Option<usize> {
        let first = self.part.as_ref().map_or(0, |part| part.start);
        self.rows.contains(&row).then(|| row - self.rows.start + first)
    }

    /// What two ranges of rows share, if anything.
    pub(in crate::ops::merge) fn within(&self, first: usize, rows: usize) -> Option<Range<usize>> {
        let (start, end) = (self.rows.start.max(first), self.rows.end.min(first + rows));
        (start < end).then_some(start..end)
    }
}

/// Some rows of a factor.
pub(in crate::ops::merge) fn rows_of(factor: &Factor, rows: &Range<usize>) -> Factor {
    let columns = factor.columns;
    let values = factor.values.get(rows.start * columns..rows.end * columns).unwrap_or_default();
    Factor::new(rows.len(), columns, values.to_vec())
}

/// A factor's columns put in their place among `width`, zeros elsewhere.
pub(in crate::ops::merge) fn spread_columns(factor: &Factor, span: Span, width: usize) -> Factor {
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

/// Σ coefficient · left · right, by bands of rows: the terms of a band touch all of its rows.
pub(in crate::ops::merge) struct Bands {
    bands: Vec<(Range<usize>, Product)>,
}

impl Bands {
    /// Reads and packs the factors of all terms, for a tensor of rows × columns.
    pub(in crate::ops::merge) fn new(
        terms: &[&Term],
        adapters: &[Adapter],
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let all = 0..rows;
        let place = |term: &Term| term.region.as_ref().map_or(all.clone(), |own| own.rows.clone());
        let mut cuts = BTreeSet::from([0, rows]);
        for term in terms {
            cuts.extend([place(term).start, place(term).end]);
        }
        let mut loaded = Vec::with_capacity(terms.len());
        for term in terms {
            let (left, right) = factors(term, adapters, (rows, columns))?;
            loaded.push((place(term), left, term.coefficient, right));
        }
        if cuts.len() <= 2 {
            let mut product = (Vec::new(), Vec::new());
            for (_, left, coefficient, right) in loaded {
                product.0.push((left, coefficient));
                product.1.push(right);
            }
            return Ok(Self { bands: vec![(all, Product::new(product.0, &product.1, columns))] });
        }
        let starts = cuts.iter().copied().zip(cuts.iter().copied().skip(1));
        let bands = starts.map(|(start, end)| {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for (own, a, coefficient, b) in loaded.iter().filter(|(own, ..)| own.contains(&start)) {
                let rows = start - own.start..end - own.start;
                left.push((rows_of(a, &rows), *coefficient));
                right.push(b.clone());
            }
            (start..end, Product::new(left, &right, columns))
        });
        Ok(Self { bands: bands.collect() })
    }

    /// Adds coefficient times the product to a panel of rows `first..`.
    pub(in crate::ops::merge) fn add_to(
        &self,
        panel: &mut Panel,
        first: usize,
        coefficient: f64,
        scratch: &mut Vec<f32>,
    ) {
        for (rows, product) in self.within(first, panel.rows) {
            if product.right.depth() > 0 {
                let left = product.rows(&rows);
                panel.add_product(rows.start - first, &left, &product.right, coefficient, scratch);
            }
        }
    }

    /// Writes the product into rows `first..`, if one band has all of them.
    pub(in crate::ops::merge) fn product(
        &self,
        out: &mut [f32],
        first: usize,
        rows: usize,
    ) -> bool {
        let mut crossed = self.within(first, rows);
        let Some((own, band)) = crossed.next() else { return false };
        if own != (first..first + rows) || band.right.depth() == 0 {
            return false;
        }
        fused::product(out, &band.rows(&own), &band.right);
        true
    }

    /// The bands that rows `first..first + rows` cross, each with the rows they share.
    pub(in crate::ops::merge) fn within(
        &self,
        first: usize,
        rows: usize,
    ) -> impl Iterator<Item = (Range<usize>, Band<'_>)> {
        let from = self.bands.partition_point(|(band, _)| band.end <= first);
        let crossed = self.bands.iter().skip(from).take_while(move |(b, _)| b.start < first + rows);
        crossed.map(move |(band, product)| {
            let shared = band.start.max(first)..band.end.min(first + rows);
            (shared, Band { first: band.start, product })
        })
    }
}

/// One band.
#[derive(Clone, Copy)]
pub(in crate::ops::merge) struct Band<'a> {
    first: usize,
    product: &'a Product,
}

impl Band<'_> {
    /// Its left factors of some rows of the tensor, which it holds.
    pub(in crate::ops::merge) fn rows(&self, rows: &Range<usize>) -> PackedLeft {
        self.product.rows(rows.start - self.first, rows.len())
    }

    /// Σ coefficient · left · right at one element, in f64.
    pub(in crate::ops::merge) fn element(&self, row: usize, column: usize) -> f64 {
        let block = self.right.block(column / BLOCK);
        let left = self.left.iter().flat_map(|(factor, scale)| {
            factor.row(row - self.first).iter().map(move |value| f64::from(*value) * scale)
        });
        left.zip(block)
            .map(|(a, b)| a * f64::from(b.get(column % BLOCK).copied().unwrap_or(0.0)))
            .sum()
    }
}

impl std::ops::Deref for Band<'_> {
    type Target = Product;

    fn deref(&self) -> &Product {
        self.product
    }
}
