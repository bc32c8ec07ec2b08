//! A changed tensor's rows in f64, by the formulas themselves and by plain loops: what a merge is
//! verified against. Nothing here shares arithmetic with the kernel or with the panels.

use std::ops::Range;

use crate::adapter::Adapter;
use crate::adapter::module::{Nature, Update as Loaded};
use crate::adapter::slice::find;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Result};
use crate::format::TensorView;
use crate::math::{Factor, LowRank, RowMatrix, Transform};
use crate::ops::merge::compute::elementwise::{Buffers, Deltas, Statistics};
use crate::ops::merge::compute::making::Making;
use crate::ops::merge::compute::product::{factors, module};
use crate::ops::merge::compute::tensor_merge::replacing;
use crate::ops::merge::compute::transform::{lengths, local, of_columns, spread, transform};
use crate::ops::merge::plan::layout::OutputTensor;
use crate::ops::merge::plan::region::Region;
use crate::ops::merge::plan::sides::{kernel_sized, sides};
use crate::ops::merge::plan::step::{Difference, ReplaceStep, RowsStep, Term, TermForm};
use crate::ops::merge::plan::tensor_plan::Steps;

/// A row's values, and what f32 accumulation may add to the distance of each.
pub(in crate::ops) type Row = (Vec<f64>, Vec<f64>);

/// A changed tensor, its factors read.
pub(in crate::ops) struct Exact<'a> {
    making: Making<'a>,
    base: TensorView<'a>,
    size: (usize, usize),
    replace: Option<&'a ReplaceStep>,
    differences: Vec<&'a Difference>,
    updates: Vec<Added<'a>>,
    /// A method's result has no formula of its own here: its rows are made by its own code.
    method: Option<(Statistics<'a>, Deltas<'a>)>,
    row_steps: Vec<&'a RowsStep>,
    transforms: Vec<Transformed<'a>>,
}

/// A term, and where it lies.
struct Added<'a> {
    update: Update<'a>,
    region: Option<Region>,
}

/// coefficient · update.
enum Update<'a> {
    Factors(Factor, Factor, f64),
    LowRank(LowRank, f64),
    Rows(RowMatrix, f64),
    Stored(TensorView<'a>, f64),
}

struct Transformed<'a> {
    weight: f64,
    rows: Range<usize>,
    size: (usize, usize),
    way: Way<'a>,
}

enum Way<'a> {
    Decompose { update: Added<'a>, lengths: Vec<f64>, epsilon: f64, columns: Option<Vec<f64>> },
    Other(Transform),
}

impl<'a> Exact<'a> {
    /// Reads what a tensor needs.
    pub(in crate::ops) fn new(
        making: Making<'a>,
        tensor: &'a OutputTensor,
        base: TensorView<'a>,
    ) -> Result<Self> {
        let size = tensor.matrix;
        let Steps { replace, differences, method, factors, rowwise, transforms, rows: row_steps } =
            tensor.plan.steps();
        let updates = factors.into_iter().chain(rowwise);
        let updates = updates.map(|term| Added::new(term, making, size)).collect::<Result<_>>()?;
        let method = match (method, &making.plan.method) {
            (Some(step), Some(method)) => {
                let deltas = Deltas::new(making, step, base, size)?;
                Some((Statistics::new(method, step, &deltas)?, deltas))
            }
            _ => None,
        };
        let mut exact = Self {
            making,
            base,
            size,
            replace,
            differences,
            updates,
            method,
            row_steps,
            transforms: Vec::new(),
        };
        let transforms = transforms.into_iter().map(|term| exact.prepare(term));
        exact.transforms = transforms.collect::<Result<_>>()?;
        Ok(exact)
    }

    fn prepare(&self, step: &Term) -> Result<Transformed<'a>> {
        let (adapter, own) = module(step, self.adapters())?;
        let (rows, size, term) = local(step, self.size);
        let way = match own.magnitude.as_ref().filter(|_| term.source != TermForm::Bias) {
            None => Way::Other(transform(&term, self.adapters(), size)?),
            Some(magnitude) => {
                let update = Added::new(&term, self.making, size)?;
                let lengths = lengths(magnitude, adapter, term.region.as_ref())?;
                let epsilon = magnitude.epsilon;
                let mut columns = None;
                if of_columns(magnitude.side, term.source) {
                    let mut squares = vec![0.0; size.1];
                    for row in 0..size.0 {
                        let mut found = self.before(rows.start + row)?;
                        update.add(&mut found, row)?;
                        for (square, value) in squares.iter_mut().zip(found.0) {
                            *square += value * value;
                        }
                    }
                    columns = Some(spread(&lengths, &squares, epsilon));
                }
                Way::Decompose { update, lengths, epsilon, columns }
            }
        };
        Ok(Transformed { weight: step.weight, rows, size, way })
    }

    /// One row of the result.
    pub(in crate::ops) fn row(&self, row: usize) -> Result<Row> {
        let (mut values, mut bounds) = self.before(row)?;
        for transform in self.transforms.iter().filter(|own| own.rows.contains(&row)) {
            let row = row - transform.rows.start;
            let (full, slack) = match &transform.way {
                Way::Decompose { update, lengths, epsilon, columns } => {
                    let mut found = (values.clone(), bounds.clone());
                    update.add(&mut found, row)?;
                    let squares = found.0.iter().map(|value| value * value).sum::<f64>();
                    let own = lengths.get(row).copied().unwrap_or(f64::NAN);
                    let factor = |column: usize| match columns {
                        Some(factors) => factors.get(column).copied().unwrap_or(f64::NAN),
                        None if squares > 0.0 => own / (squares.sqrt() + epsilon),
                        None => 0.0,
                    };
                    let scaled = found.0.iter().enumerate();
                    let full: Vec<f64> = scaled.map(|(at, value)| value * factor(at)).collect();
                    let slack = found.1.iter().zip(&full).enumerate().map(|(at, (bound, full))| {
                        bound * factor(at).abs().max(1.0) + 1e-6 * full.abs()
                    });
                    let slack = slack.collect();
                    (full, slack)
                }
                Way::Other(other) => self.transformed(other, transform, row)?,
            };
            let weight = transform.weight;
            for ((value, bound), (full, slack)) in
                values.iter_mut().zip(&mut bounds).zip(full.iter().zip(&slack))
            {
                *value += weight * (full - *value);
                *bound = *bound * (1.0 - weight).abs() + slack * weight.abs();
            }
        }
        for step in &self.row_steps {
            if let Some(number) = step.rows.iter().position(|&other| other == row) {
                let columns = self.size.1;
                let adapters = self.adapters();
                let given = replacing(&step.values, adapters, number * columns, columns)?;
                move_towards(&mut values, &given, step.values.weight);
            }
        }
        Ok((values, bounds))
    }

    /// One row of left · W · right + plus, or of W + W ⊙ by + plus.
    fn transformed(&self, transform: &Transform, own: &Transformed<'_>, row: usize) -> Result<Row> {
        let (first, (rows, columns)) = (own.rows.start, own.size);
        let (left, right, plus) = match transform {
            Transform::Linear { left, right, plus } => (left, right, plus),
            Transform::Gate { by, plus } => {
                let (mut values, mut bounds) = self.before(first + row)?;
                for (column, (value, bound)) in values.iter_mut().zip(&mut bounds).enumerate() {
                    let factor = 1.0 + element(by, row, column);
                    let plus = plus.as_ref().map_or(0.0, |plus| element(plus, row, column));
                    (*value, *bound) = (*value * factor + plus, *bound * factor.abs());
                }
                return Ok((values, bounds));
            }
        };
        let (mut values, mut bounds) = (vec![0.0; columns], vec![0.0; columns]);
        let mixer = left.rows(row, 1, rows);
        for (at, share) in mixer.iter().enumerate().filter(|(_, share)| **share != 0.0) {
            let (mut own, slack) = self.before(first + at)?;
            let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let before = length(&own);
            right.apply(&mut own, columns);
            // What the terms' f32 may have done, anywhere in the row, grown as the row itself.
            let growth = if before > 0.0 { (length(&own) / before).max(1.0) } else { 1.0 };
            let slack = growth * slack.iter().sum::<f64>() + 1e-12 * length(&own);
            for ((value, bound), own) in values.iter_mut().zip(&mut bounds).zip(own) {
                *value += share * own;
                *bound += share.abs() * slack;
            }
        }
        if let Some(plus) = plus {
            for (column, value) in values.iter_mut().enumerate() {
                *value += element(plus, row, column);
            }
        }
        Ok((values, bounds))
    }

    /// The base or what replaces it, and all that is added.
    fn before(&self, row: usize) -> Result<Row> {
        let (first, count) = (row * self.size.1, self.size.1);
        let adapters = self.adapters();
        let values = match self.replace {
            // An outright replacement does without the base.
            Some(step) if step.weight == 1.0 => replacing(step, adapters, first, count)?,
            Some(step) => {
                let mut values = read_f64(self.base, first, count)?;
                move_towards(&mut values, &replacing(step, adapters, first, count)?, step.weight);
                values
            }
            None => read_f64(self.base, first, count)?,
        };
        let mut found = (values, vec![0.0; count]);
        self.add_differences(&mut found, row)?;
        if let Some((statistics, deltas)) = &self.method {
            statistics.add_to(deltas, &mut found.0, row, &mut Buffers::default())?;
        }
        for update in &self.updates {
            update.add(&mut found, row)?;
        }
        Ok(found)
    }
}

impl<'a> Exact<'a> {
    fn adapters(&self) -> &'a [Adapter] {
        &self.making.inputs.adapters
    }

    /// Adds one row of weight · (T − W) for each tuned checkpoint.
    fn add_differences(&self, (values, bounds): &mut Row, row: usize) -> Result<()> {
        let base = values.clone();
        for step in &self.differences {
            let tuned = self.making.inputs.tuned.get(step.tuned).ok_or(ErrorKind::NotFound)?;
            let tuned = read_f64(find(tuned, &step.tensor)?, row * base.len(), base.len())?;
            for (at, (value, bound)) in values.iter_mut().zip(bounds.iter_mut()).enumerate() {
                let at = |values: &[f64]| values.get(at).copied().unwrap_or(f64::NAN);
                // Infinities may stand in both.
                if at(&tuned) == at(&base) {
                    continue;
                }
                let part = step.weight * (at(&tuned) - at(&base));
                *value += part;
                *bound += 1e-15 * (part.abs() + value.abs());
            }
        }
        Ok(())
    }
}

impl<'a> Added<'a> {
    fn new(term: &Term, making: Making<'a>, size: (usize, usize)) -> Result<Self> {
        Ok(Self { update: Update::new(term, making, size)?, region: term.region.clone() })
    }

    /// Adds one row, and to the bounds what f32 may make of it.
    fn add(&self, found: &mut Row, row: usize) -> Result<()> {
        let (start, from) = match &self.region {
            None => (0, row),
            Some(region) => match region.row_of(row) {
                Some(from) => (region.rows.start, from),
                None => return Ok(()),
            },
        };
        let span = self.region.as_ref().and_then(|region| region.columns);
        match (&self.update, span) {
            // Factors lie as the tensor does, and begin where the region does.
            (Update::Factors(..), _) => self.update.add(found, row - start),
            (_, None) => self.update.add(found, from),
            (_, Some(span)) => {
                let mut narrow = (vec![0.0; span.count], vec![0.0; span.count]);
                self.update.add(&mut narrow, from)?;
                for (at, value) in span.positions().zip(narrow.0) {
                    if let Some(slot) = found.0.get_mut(at) {
                        *slot += value;
                    }
                }
                Ok(())
            }
        }
    }
}

impl<'a> Update<'a> {
    fn new(term: &Term, making: Making<'a>, size: (usize, usize)) -> Result<Self> {
        let (adapter, own) = module(term, &making.inputs.adapters)?;
        let coefficient = term.coefficient();
        let part = term.region.as_ref().map_or(size, |region| region.size(size));
        match own.form.nature() {
            Nature::LowRank(rank) if term.source != TermForm::Bias && !kernel_sized(rank) => {
                let update = adapter.update(own, sides(own, term.source, part))?;
                let Loaded::Composite(composite) = update else {
                    let (left, right) = factors(term, &making.inputs.adapters, size)?;
                    return Ok(Self::Factors(left, right, coefficient));
                };
                let matrix = composite.low_rank();
                let turned = term.source == TermForm::Transposed;
                Ok(Self::LowRank(if turned { matrix.transposed() } else { matrix }, coefficient))
            }
            Nature::Dense if term.source != TermForm::Bias => {
                match adapter.update(own, sides(own, term.source, part))? {
                    Loaded::Rows(matrix) if term.source == TermForm::Transposed => {
                        Ok(Self::Rows(matrix.transposed(), coefficient))
                    }
                    Loaded::Rows(matrix) => Ok(Self::Rows(matrix, coefficient)),
                    _ => Err(ErrorKind::NotFound.into()),
                }
            }
            Nature::Full if term.source != TermForm::Bias => {
                match adapter.update(own, sides(own, term.source, part))? {
                    Loaded::Stored(name) => {
                        Ok(Self::Stored(find(&adapter.file, &name)?, coefficient))
                    }
                    _ => Err(ErrorKind::NotFound.into()),
                }
            }
            _ => {
                let (left, right) = factors(term, &making.inputs.adapters, size)?;
                Ok(Self::Factors(left, right, coefficient))
            }
        }
    }

    /// Adds one row, and to the bounds what f32 may make of it.
    fn add(&self, (values, bounds): &mut Row, row: usize) -> Result<()> {
        match self {
            Self::Factors(left, right, coefficient) => {
                add_factors(values, bounds, (left, right, *coefficient), row);
            }
            Self::LowRank(matrix, coefficient) => {
                for (column, value) in values.iter_mut().enumerate() {
                    *value += coefficient * element(matrix, row, column);
                }
            }
            Self::Rows(matrix, coefficient) => {
                let columns = values.len();
                matrix.add_to(values, columns, row, *coefficient);
            }
            Self::Stored(view, coefficient) => {
                let stored = read_f64(*view, row * values.len(), values.len())?;
                for (value, stored) in values.iter_mut().zip(stored) {
                    *value += coefficient * stored;
                }
            }
        }
        Ok(())
    }
}

fn element(matrix: &LowRank, row: usize, column: usize) -> f64 {
    let (up, down) = (matrix.up.row(row), matrix.down.column(column));
    up.iter().zip(down.iter()).map(|(up, down)| up * down).sum()
}

fn move_towards(values: &mut [f64], given: &[f64], weight: f64) {
    for (value, given) in values.iter_mut().zip(given) {
        *value += weight * (given - *value);
    }
}

/// Adds one row of coefficient · left · right, and to the bounds what f32 may make of it.
fn add_factors(
    values: &mut [f64],
    bounds: &mut [f64],
    (left, right, coefficient): (&Factor, &Factor, f64),
    row: usize,
) {
    let ulp = f64::from(f32::EPSILON);
    let slack = ulp * (left.columns + 4) as f64;
    for (value, bound) in values.iter().zip(bounds.iter_mut()) {
        *bound += value.abs() * ulp;
    }
    for (level, a) in left.row(row).iter().enumerate() {
        let a = f64::from(*a) * coefficient;
        for ((value, bound), b) in values.iter_mut().zip(bounds.iter_mut()).zip(right.row(level)) {
            let product = a * f64::from(*b);
            *value += product;
            *bound += product.abs() * slack;
        }
    }
}
