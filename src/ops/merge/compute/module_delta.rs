//! What one module makes of the weight that it is for, minus that weight: read by rows through the merge's own
//! steps, and never held.

use std::ops::Range;

use super::scratch::Scratch;
use super::tensor_merge::Work;
use crate::error::{Error, Locate, Result};
use crate::math::linalg::panels::Panels;
use crate::ops::merge::Merge;
use crate::ops::merge::plan::layout::OutputTensor;
use crate::ops::merge::plan::step::{Term, TermForm};

/// Where the weight lies that a module transforms, and how large its update is as it is stored.
#[derive(Debug)]
pub(in crate::ops) struct TransformedPlace<'a> {
    pieces: Vec<Piece<'a>>,
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) columns: usize,
    /// Whether the base stores inputs × outputs.
    pub(in crate::ops) turned: bool,
    /// The kernel, if the weight is a convolution's.
    pub(in crate::ops) kernel: Vec<usize>,
}

/// Rows of one tensor, and the row of the update that the first of them is.
#[derive(Debug)]
struct Piece<'a> {
    tensor: &'a OutputTensor,
    rows: Range<usize>,
    at: usize,
}

impl<'a> TransformedPlace<'a> {
    /// Where the weight of a module lies; none if the module transforms no weight.
    pub(in crate::ops) fn of_weight(merge: &'a Merge, module: usize) -> Option<Self> {
        Self::find(merge, module, |source| source != TermForm::Bias)
    }

    /// Where the bias of a module's layer lies; none if the module transforms no bias.
    pub(in crate::ops) fn of_bias(merge: &'a Merge, module: usize) -> Option<Self> {
        Self::find(merge, module, |source| source == TermForm::Bias)
    }

    fn find(merge: &'a Merge, module: usize, is_asked: fn(TermForm) -> bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut turned = false;
        let tensors = merge.plan.shards.iter().flat_map(|shard| &shard.tensors);
        for tensor in tensors {
            let transforms = tensor.plan.steps().transforms.into_iter();
            let is_own = |term: &&Term| term.module == module && is_asked(term.source);
            for term in transforms.filter(is_own) {
                let rows =
                    term.region.as_ref().map_or(0..tensor.matrix.0, |region| region.rows.clone());
                let part = term.region.as_ref().and_then(|region| region.part.as_ref());
                pieces.push(Piece { tensor, rows, at: part.map_or(0, |part| part.start) });
                turned = term.source == TermForm::Transposed;
            }
        }
        pieces.sort_by_key(|piece| piece.at);
        let first = pieces.first()?.tensor;
        let whole = pieces.len() == 1 && pieces.first()?.rows.len() == first.matrix.0;
        let kernel =
            if whole { first.shape.get(2..).unwrap_or_default().to_vec() } else { Vec::new() };
        let kernel =
            if first.matrix.0 == first.shape.first().copied()? { kernel } else { Vec::new() };
        let rows = pieces.iter().map(|piece| piece.at + piece.rows.len()).max()?;
        let columns = first.matrix.1;
        Some(Self { pieces, rows, columns, turned, kernel })
    }

    /// Reads what the steps need; the base itself is read by rows.
    pub(in crate::ops) fn open(&self, merge: &'a Merge) -> Result<ModuleDelta<'a>> {
        let pieces = self.pieces.iter().map(|piece| {
            let work =
                Work::new(merge.making(), piece.tensor, None).in_tensor(&piece.tensor.full_name)?;
            Ok(OpenPiece { work, rows: piece.rows.clone(), at: piece.at })
        });
        let pieces = pieces.collect::<Result<_>>()?;
        Ok(ModuleDelta { pieces, rows: self.rows, columns: self.columns })
    }
}

/// The update of one module, as the base stores the weight: rows × columns.
pub(in crate::ops) struct ModuleDelta<'a> {
    pieces: Vec<OpenPiece<'a>>,
    rows: usize,
    columns: usize,
}

struct OpenPiece<'a> {
    work: Work<'a>,
    rows: Range<usize>,
    at: usize,
}

impl Panels for ModuleDelta<'_> {
    type Error = Error;

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        let columns = self.columns.max(1);
        let end = first + out.len() / columns;
        for piece in &self.pieces {
            let (start, stop) = (first.max(piece.at), end.min(piece.at + piece.rows.len()));
            if start >= stop {
                continue;
            }
            let from = piece.rows.start + start - piece.at;
            let moved = piece.work.moved(from, stop - start)?;
            let slots = out.iter_mut().skip((start - first) * columns);
            for (slot, value) in slots.zip(moved) {
                *slot = value as f32;
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Rows `first..` of what the transforms make of the weight, minus the weight that they start from.
    fn moved(&self, first: usize, rows: usize) -> Result<Vec<f64>> {
        let mut scratch = Scratch::default();
        let before = |first, rows| self.before(first, rows, &mut Scratch::default());
        let mut panel = self.before(first, rows, &mut scratch)?;
        let start = panel.values.clone();
        for transform in self.panels.iter().flat_map(|panels| &panels.transforms) {
            transform.apply(&mut panel, first, &before, &mut scratch.product)?;
        }
        Ok(panel.values.iter().zip(start).map(|(after, before)| after - before).collect())
    }
}
