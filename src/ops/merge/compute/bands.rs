//! Bands of a tensor's rows that have the same terms, each with its factors packed once.

use std::collections::BTreeSet;
use std::ops::Range;

use super::product::{Product, factors, rows_of};
use crate::adapter::Adapter;
use crate::error::Result;
use crate::math::kernel::f64_panel::Panel;
use crate::math::kernel::factor::BLOCK;
use crate::math::kernel::fused;
use crate::math::{Factor, PackedLeft};
use crate::ops::merge::plan::step::Term;

/// Σ coefficient · left · right, by bands of rows: the terms of a band touch all of its rows.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Bands {
    bands: Vec<(Range<usize>, Product)>,
}

/// coefficient · left · right in some rows of a tensor: left has these rows, right all columns.
pub(in crate::ops::merge) struct Block {
    pub(in crate::ops::merge) rows: Range<usize>,
    pub(in crate::ops::merge) left: Factor,
    pub(in crate::ops::merge) coefficient: f64,
    pub(in crate::ops::merge) right: Factor,
}

impl Bands {
    /// Reads and packs the factors of all terms, for a tensor of rows × columns.
    pub(in crate::ops::merge) fn new(
        terms: &[&Term],
        adapters: &[Adapter],
        size: (usize, usize),
    ) -> Result<Self> {
        let block = |term: &&Term| {
            let rows = term.region.as_ref().map_or(0..size.0, |own| own.rows.clone());
            let (left, right) = factors(term, adapters, size)?;
            Ok(Block { rows, left, coefficient: term.coefficient(), right })
        };
        let blocks = terms.iter().map(block).collect::<Result<_>>()?;
        Ok(Self::of_blocks(blocks, size))
    }

    /// Packs blocks of a tensor of rows × columns, which may overlap.
    pub(in crate::ops::merge) fn of_blocks(
        blocks: Vec<Block>,
        (rows, columns): (usize, usize),
    ) -> Self {
        let mut cuts = BTreeSet::from([0, rows]);
        cuts.extend(blocks.iter().flat_map(|block| [block.rows.start, block.rows.end]));
        if cuts.len() <= 2 {
            let mut product = (Vec::new(), Vec::new());
            for Block { left, coefficient, right, .. } in blocks {
                product.0.push((left, coefficient));
                product.1.push(right);
            }
            return Self { bands: vec![(0..rows, Product::new(product.0, &product.1, columns))] };
        }
        let starts = cuts.iter().copied().zip(cuts.iter().copied().skip(1));
        let bands = starts.map(|(start, end)| {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for block in blocks.iter().filter(|block| block.rows.contains(&start)) {
                let rows = start - block.rows.start..end - block.rows.start;
                left.push((rows_of(&block.left, &rows), block.coefficient));
                right.push(block.right.clone());
            }
            (start..end, Product::new(left, &right, columns))
        });
        Self { bands: bands.collect() }
    }

    /// Writes rows `first..`, those without a term as 0, into as many rows of `columns` as there are.
    pub(in crate::ops::merge) fn write(&self, out: &mut [f32], first: usize, columns: usize) {
        out.fill(0.0);
        for (own, band) in self.within(first, out.len() / columns.max(1)) {
            let at = (own.start - first) * columns..(own.end - first) * columns;
            if let Some(out) = out.get_mut(at).filter(|_| band.right.depth() > 0) {
                fused::product(out, &band.rows(&own), &band.right);
            }
        }
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
