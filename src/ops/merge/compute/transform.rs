//! Updates that the weight itself goes into (weight decomposition, rotations, scaled axes), ready to
//! give any rows of the whole result: W + weight · (W_full − W).
//!
//! Rows of the weight that a rotation of the outputs mixes are read again for every panel, so that no
//! tensor is ever held.

use std::ops::Range;

use super::product::{bias, module};
use super::update::Addition;
use crate::adapter::Adapter;
use crate::adapter::module::{BiasEffect, Magnitude, Side, Update};
use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Result};
use crate::math::kernel::f64_panel::{self, Panel};
use crate::math::{Chain, LowRank, Matrix, Stage, Transform};
use crate::ops::merge::plan::region::Region;
use crate::ops::merge::plan::sides::sides;
use crate::ops::merge::plan::step::{Term, TermForm};

/// Elements of the weight that are read at a time to be mixed.
const PART: usize = 128 << 10;

/// Gives rows `first..first + rows` of the weight before the transform.
pub(in crate::ops::merge) type Before<'a> = dyn Fn(usize, usize) -> Result<Panel> + 'a;

/// A transform ready to be applied to panels of a rows × columns tensor.
pub(in crate::ops::merge) struct Ready<'a> {
    weight: f64,
    /// The rows of the tensor that are transformed, and their size.
    rows: Range<usize>,
    size: (usize, usize),
    way: Way<'a>,
}

enum Way<'a> {
    Decompose(Lengths<'a>),
    Linear { left: Left, right: Chain, plus: Option<LowRank> },
    Gate { by: LowRank, plus: Option<LowRank> },
}

/// What the rows of W · right are multiplied with.
enum Left {
    /// Nothing.
    Identity,
    /// I + up · down: rows of up, and down · W · right, which all rows of the weight went into.
    Factors { up: Matrix, mixed: Matrix },
    /// A chain, whose rows say which rows of the weight they mix.
    Chain(Chain),
}

/// (m / (‖V‖ + ε)) · V of a weight decomposition, V = W + the update.
struct Lengths<'a> {
    addition: Addition<'a>,
    values: Vec<f64>,
    epsilon: f64,
    /// Factors of the columns, where the lengths are theirs: they need the whole tensor first.
    columns: Option<Vec<f64>>,
}

impl<'a> Ready<'a> {
    /// Reads what a step needs; for lengths of columns, all rows of the weight once.
    pub(in crate::ops::merge) fn new(
        step: &Term,
        adapters: &'a [Adapter],
        size: (usize, usize),
        before: &Before<'_>,
    ) -> Result<Self> {
        let (adapter, own) = module(step, adapters)?;
        let (rows, size, term) = local(step, size);
        let before = |first: usize, count| before(rows.start + first, count);
        let way = match &own.magnitude {
            Some(magnitude) if term.source != TermForm::Bias => {
                let addition = Addition::new(&term, adapters, size)?;
                let values = lengths(magnitude, adapter, term.region.as_ref())?;
                let epsilon = magnitude.epsilon;
                let mut lengths = Lengths { addition, values, epsilon, columns: None };
                if of_columns(magnitude.side, term.source) {
                    lengths.columns = Some(lengths.column_factors(size, &before)?);
                }
                Way::Decompose(lengths)
            }
            _ => match transform(&term, adapters, size)? {
                Transform::Linear { left, right, plus } => {
                    Way::Linear { left: Left::new(left, &right, size, &before)?, right, plus }
                }
                Transform::Gate { by, plus } => Way::Gate { by, plus },
            },
        };
        Ok(Self { weight: step.weight, rows, size, way })
    }

    /// Transforms what a panel of rows `first..` of the tensor has of the weight.
    pub(in crate::ops::merge) fn apply(
        &self,
        panel: &mut Panel,
        first: usize,
        before: &Before<'_>,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let (start, end) = (self.rows.start.max(first), self.rows.end.min(first + panel.rows));
        let Some(count) = end.checked_sub(start).filter(|count| *count > 0) else { return Ok(()) };
        let before = |first: usize, count| before(self.rows.start + first, count);
        let at = (start - first) * panel.columns..(end - first) * panel.columns;
        let values = panel.values.get(at.clone()).unwrap_or_default().to_vec();
        let mut own = Panel { rows: count, columns: panel.columns, values };
        self.apply_own(&mut own, start - self.rows.start, &before, scratch)?;
        if let Some(target) = panel.values.get_mut(at) {
            target.copy_from_slice(&own.values);
        }
        Ok(())
    }

    /// As [`Ready::apply`], rows counted from the first that is transformed.
    fn apply_own(
        &self,
        panel: &mut Panel,
        first: usize,
        before: &Before<'_>,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let mut full = panel.clone();
        match &self.way {
            Way::Decompose(lengths) => lengths.apply(&mut full, first, scratch)?,
            Way::Gate { by, plus } => {
                let mut factor = Panel { values: vec![1.0; full.values.len()], ..full };
                add_low_rank(&mut factor, by, first);
                for (value, before) in factor.values.iter_mut().zip(&panel.values) {
                    *value *= before;
                }
                full = factor;
                if let Some(plus) = plus {
                    add_low_rank(&mut full, plus, first);
                }
            }
            Way::Linear { left, right, plus } => {
                match left {
                    Left::Chain(left) => self.mix(left, right, &mut full, first, before)?,
                    Left::Identity => right.apply(&mut full.values, full.columns),
                    Left::Factors { up, mixed } => {
                        right.apply(&mut full.values, full.columns);
                        add_mixed(&mut full, up, mixed, first);
                    }
                }
                if let Some(plus) = plus {
                    add_low_rank(&mut full, plus, first);
                }
            }
        }
        panel.move_towards(&full.values, self.weight);
        Ok(())
    }

    /// left · W · right: for each row of `left`, the rows of W that it mixes.
    fn mix(
        &self,
        left: &Chain,
        right: &Chain,
        full: &mut Panel,
        first: usize,
        before: &Before<'_>,
    ) -> Result<()> {
        let (size, columns) = self.size;
        let mixers = left.rows(first, full.rows, size);
        full.values.fill(0.0);
        let part = (PART / columns.max(1)).max(1);
        let used: Vec<bool> = (0..size)
            .map(|at| mixers.iter().skip(at).step_by(size).any(|value| *value != 0.0))
            .collect();
        let mut at = 0;
        while at < size {
            let count = used.iter().skip(at).take(part).take_while(|used| **used).count();
            if count == 0 {
                at += 1;
                continue;
            }
            let mut rows = before(at, count)?;
            right.apply(&mut rows.values, columns);
            let mixers = mixers.chunks(size).zip(full.values.chunks_mut(columns.max(1)));
            for (mixer, target) in mixers {
                let own = mixer.iter().skip(at).zip(rows.values.chunks(columns.max(1)));
                for (share, row) in own.filter(|(share, _)| **share != 0.0) {
                    for (target, value) in target.iter_mut().zip(row) {
                        *target += share * value;
                    }
                }
            }
            at += count;
        }
        Ok(())
    }
}

impl Left {
    /// Of a chain of few directions, reads all rows of the weight once.
    fn new(
        left: Chain,
        right: &Chain,
        (rows, columns): (usize, usize),
        before: &Before<'_>,
    ) -> Result<Self> {
        if left.is_identity() {
            return Ok(Self::Identity);
        }
        let Some(factors) = left.low_rank().filter(|factors| factors.rank() < rows) else {
            return Ok(Self::Chain(left));
        };
        // Transposed, so that what a row of the weight adds to lies together.
        let mut mixed = Matrix::zeros(columns, factors.rank());
        let part = (PART / columns.max(1)).max(1);
        for start in (0..rows).step_by(part) {
            let mut panel = before(start, part.min(rows - start))?;
            right.apply(&mut panel.values, columns);
            let shares = factors.down.columns(start, panel.rows);
            for (row, shares) in panel.values.chunks(columns.max(1)).zip(shares.column_iter()) {
                for (mut sums, share) in mixed.column_iter_mut().zip(shares.iter()) {
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += share * value;
                    }
                }
            }
        }
        Ok(Self::Factors { up: factors.up, mixed })
    }
}

impl Lengths<'_> {
    fn apply(&self, panel: &mut Panel, first: usize, scratch: &mut Vec<f32>) -> Result<()> {
        self.addition.add_to(panel, first, scratch)?;
        if let Some(factors) = &self.columns {
            panel.scale_columns(factors);
        } else {
            let own = self.values.get(first..first + panel.rows).unwrap_or_default();
            let factors = f64_panel::magnitude_factors(own, &panel.row_squares(), self.epsilon);
            panel.scale_rows(&factors);
        }
        Ok(())
    }

    fn column_factors(
        &self,
        (rows, columns): (usize, usize),
        before: &Before<'_>,
    ) -> Result<Vec<f64>> {
        let mut squares = vec![0.0; columns];
        let part = (PART / columns.max(1)).max(1);
        let mut scratch = Vec::new();
        for first in (0..rows).step_by(part) {
            let mut panel = before(first, part.min(rows - first))?;
            self.addition.add_to(&mut panel, first, &mut scratch)?;
            panel.add_column_squares(&mut squares);
        }
        Ok(spread(&self.values, &squares, self.epsilon))
    }
}

/// Factors of columns, where a length may be that of a channel's whole kernel.
pub(in crate::ops) fn spread(lengths: &[f64], squares: &[f64], epsilon: f64) -> Vec<f64> {
    let kernel = (squares.len() / lengths.len().max(1)).max(1);
    let sums: Vec<f64> = squares.chunks(kernel).map(|kernel| kernel.iter().sum()).collect();
    let factors = f64_panel::magnitude_factors(lengths, &sums, epsilon);
    factors.into_iter().flat_map(|factor| std::iter::repeat_n(factor, kernel)).collect()
}

/// Whether the lengths are those of the stored tensor's columns.
pub(in crate::ops) fn of_columns(side: Side, source: TermForm) -> bool {
    (side == Side::Inputs) == (source == TermForm::Product)
}

/// The lengths of a decomposition, one an output or channel.
pub(in crate::ops) fn lengths(
    magnitude: &Magnitude,
    adapter: &Adapter,
    region: Option<&Region>,
) -> Result<Vec<f64>> {
    let view = find(&adapter.file, &magnitude.tensor)?;
    match region.and_then(|region| region.part.as_ref()) {
        // Only lengths of outputs are taken in part.
        Some(part) => read_f64(view, part.start, part.len()),
        None => read_f64(view, 0, view.spec.elements()),
    }
}

/// The rows of a tensor that a transform is about, their size, and its term as if they were all: unweighted, since
/// the weight is of the whole transform.
pub(in crate::ops) fn local(
    term: &Term,
    (rows, columns): (usize, usize),
) -> (Range<usize>, (usize, usize), Term) {
    let unweighted = Term { weight: 1.0, ..term.clone() };
    let Some(region) = &term.region else { return (0..rows, (rows, columns), unweighted) };
    let own = Region { rows: 0..region.rows.len(), ..region.clone() };
    (region.rows.clone(), (own.rows.len(), columns), Term { region: Some(own), ..unweighted })
}

/// The transform of a term, as the stored tensor of rows × columns needs it.
pub(in crate::ops) fn transform(
    term: &Term,
    adapters: &[Adapter],
    size: (usize, usize),
) -> Result<Transform> {
    let (adapter, own) = module(term, adapters)?;
    let effect = own.bias.as_ref().map(|bias| bias.effect);
    if term.source == TermForm::Bias && effect == Some(BiasEffect::Transform) {
        return own.form.bias(&adapter.file, size.1);
    }
    if term.source == TermForm::Bias {
        let factors = bias(own)?.read(&adapter.file, 1, size.1)?;
        let factors = factors.values.into_iter().map(f64::from).collect();
        return Ok(Transform::right(Chain::new(vec![Stage::Diagonal(factors)])));
    }
    match adapter.update(own, sides(own, term.source, size))? {
        Update::Transform(transform) if term.source == TermForm::Transposed => {
            Ok(transform.transposed())
        }
        Update::Transform(transform) => Ok(transform),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// Adds up · mixedᵀ to rows `first..`.
fn add_mixed(panel: &mut Panel, up: &Matrix, mixed: &Matrix, first: usize) {
    for (at, row) in panel.values.chunks_mut(panel.columns.max(1)).enumerate() {
        for (share, sums) in up.row(first + at).iter().zip(mixed.column_iter()) {
            for (value, sum) in row.iter_mut().zip(sums.iter()) {
                *value += share * sum;
            }
        }
    }
}

fn add_low_rank(panel: &mut Panel, matrix: &LowRank, first: usize) {
    let up = matrix.up.transpose();
    for (at, row) in panel.values.chunks_mut(panel.columns.max(1)).enumerate() {
        let up = up.column(first + at);
        for (value, down) in row.iter_mut().zip(matrix.down.column_iter()) {
            *value += up.dot(&down);
        }
    }
}
