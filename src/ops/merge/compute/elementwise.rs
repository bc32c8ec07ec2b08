//! Methods that combine the deltas of all inputs element by element, or by their inner products: panels
//! of the deltas are made anew for every pass over them, and never held. What methods make of factors is held as
//! factors (`factored.rs`).

use rayon::prelude::*;

use super::bands::Bands;
use super::factored;
use super::making::Making;
use super::update::Addition;
use crate::adapter::Adapter;
use crate::adapter::tensor::{element_type, read_f64};
use crate::error::Result;
use crate::format::TensorView;
use crate::math::kernel::f64_panel;
use crate::math::{LowRank, Matrix};
use crate::method::params::LAMBDA;
use crate::method::{
    Blending, Compat, Counts, InputWeight, Kind, Panel, Problem, Settings, Weighted,
};
use crate::ops::merge::plan::method_choice::MethodChoice;
use crate::ops::merge::plan::step::{InputDelta, InputShare, MethodStep};
use crate::ops::merge::plan::tuned;
use crate::weight::difference::{self, Tuned};

/// Elements of one input's delta in a panel, about: those of a few inputs stay in the core's own
/// cache.
const PANEL: usize = 16 << 10;

/// Rows of so many columns that are computed together; the kernel of products takes four at a time.
pub(in crate::ops::merge) fn panel_rows(columns: usize) -> usize {
    (PANEL / columns.max(1)).max(1).next_multiple_of(4)
}

/// The deltas of one tensor, any rows of them at hand.
pub(in crate::ops) struct Deltas<'a> {
    base: TensorView<'a>,
    adapters: &'a [Adapter],
    size: (usize, usize),
    parts: Vec<ReadyPart<'a>>,
    /// Rows that are computed together.
    panel_rows: usize,
}

struct ReadyPart<'a> {
    additions: Vec<Addition<'a>>,
    differences: Vec<Tuned<'a>>,
}

/// Buffers that one thread uses again and again.
#[derive(Debug, Default)]
pub(in crate::ops) struct Buffers {
    panel: Panel,
    product: Vec<f32>,
    sum: Vec<f64>,
    combined: Vec<f32>,
    bytes: Vec<u8>,
    tuned: Vec<u8>,
}

impl<'a> Deltas<'a> {
    /// Reads what the shares of a method's step need.
    pub(in crate::ops) fn new(
        making: Making<'a>,
        step: &MethodStep,
        base: TensorView<'a>,
        size: (usize, usize),
    ) -> Result<Self> {
        let inputs = making.inputs;
        let ready = |share: &InputShare| {
            let (mut additions, mut differences) = (Vec::new(), Vec::new());
            match &share.delta {
                InputDelta::Updates(terms) => {
                    let terms = terms.iter();
                    let terms = terms.map(|term| Addition::new(term, &inputs.adapters, size));
                    additions = terms.collect::<Result<_>>()?;
                }
                InputDelta::Difference(difference) => {
                    differences = tuned::find([difference], &inputs.tuned)?;
                }
            }
            Ok(ReadyPart { additions, differences })
        };
        let parts = step.shares.iter().map(ready).collect::<Result<_>>()?;
        let panel_rows = making.block_rows.unwrap_or_else(|| panel_rows(size.1)).max(1);
        Ok(Self { base, adapters: &inputs.adapters, size, parts, panel_rows })
    }

    /// Fills a panel with rows `first..first + rows` of every delta.
    fn fill(&self, buffers: &mut Buffers, first: usize, rows: usize) -> Result<()> {
        let columns = self.size.1;
        let Buffers { panel, product, sum, bytes, tuned, .. } = buffers;
        panel.begin(self.parts.len(), first, rows, columns);
        let element = element_type(self.base.spec.dtype);
        for (part, delta) in self.parts.iter().zip(panel.deltas_mut()) {
            let written = match (&part.differences[..], &part.additions[..], element) {
                ([difference], [], Some(element)) => {
                    let at = first * columns;
                    let base = difference::stored(self.base, element, at, delta.len(), bytes)?;
                    difference.subtract((base, element), at, delta, tuned)?
                }
                ([], [addition], _) => addition.write(delta, first, rows),
                _ => false,
            };
            if written {
                continue;
            }
            sum.clear();
            sum.resize(rows * columns, 0.0);
            let mut whole = f64_panel::Panel { rows, columns, values: std::mem::take(sum) };
            self.add_differences(part, &mut whole.values, first, bytes)?;
            for addition in &part.additions {
                addition.add_to(&mut whole, first, product)?;
            }
            for (delta, value) in delta.iter_mut().zip(&whole.values) {
                *delta = *value as f32;
            }
            *sum = whole.values;
        }
        Ok(())
    }

    fn add_differences(
        &self,
        part: &ReadyPart<'_>,
        sum: &mut [f64],
        first: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let (at, count) = (first * self.size.1, sum.len());
        // The same bytes have no difference, whatever they are.
        if part.differences.is_empty()
            || difference::unchanged(&part.differences, self.base, at, count, bytes)?.is_some()
        {
            return Ok(());
        }
        let base = read_f64(self.base, at, count)?;
        let mut moved = base.clone();
        difference::add_all(&part.differences, &mut moved, at)?;
        for ((sum, moved), base) in sum.iter_mut().zip(&moved).zip(&base) {
            *sum = moved - base;
        }
        Ok(())
    }
}

/// What a rule has statistics of one tensor: enough to combine any rows of its deltas.
#[derive(Debug, Clone)]
pub(in crate::ops) enum Statistics<'a> {
    /// Element by element.
    Blend(Box<Blending<'a>>),
    /// A coefficient for each delta, and one for the base itself on top of the 1 that it has.
    Sum { of_deltas: Vec<f64>, of_base: f64 },
    /// Factors that the method has made of the deltas'.
    Factors(Bands),
}

impl<'a> Statistics<'a> {
    /// Makes the passes that the rule needs; rows are shared out over the current pool's threads.
    pub(in crate::ops) fn new(
        rule: &'a MethodChoice,
        step: &'a MethodStep,
        deltas: &Deltas<'_>,
    ) -> Result<Self> {
        let settings = step.settings.as_ref().unwrap_or(&rule.settings);
        let parts = step.shares.iter();
        let parts = parts.map(|share| InputWeight { adapter: share.input, weight: share.weight });
        let parts: Vec<InputWeight> = parts.collect();
        let how = (settings, rule.compat);
        let lambda = settings.number(&LAMBDA);
        match rule.method.kind {
            Kind::Elementwise(elementwise) => {
                // As a combination names the module, so that both draw the same random numbers.
                let name = step.name.strip_suffix(".weight").unwrap_or(&step.name);
                let shape = (name, deltas.size.0, deltas.size.1);
                let inputs = step.weights.len();
                let mut blending = Blending::new(elementwise, how, shape, &parts, inputs);
                while blending.wants_pass() {
                    let counts = pass(&blending, deltas)?;
                    blending.finish_pass(&counts);
                }
                Ok(Self::Blend(Box::new(blending)))
            }
            Kind::Gram(coefficients) if rule.of_weights() => {
                // An input of weight w is the model base + w · delta, the base alone without a part.
                let models = step.weights.len();
                let gram = gram_of_weights(&gram(deltas, true)?, &parts, models);
                let ones = vec![1.0; models];
                let inputs: Vec<_> = (0..models).map(|at| weighted(at, 1.0, deltas.size)).collect();
                let found = coefficients(&gram, &problem(how, deltas.size, &inputs, &ones));
                let own = |part: &InputWeight| {
                    found.get(part.adapter).map_or(0.0, |c| lambda * c * part.weight)
                };
                let of_deltas = parts.iter().map(own).collect();
                let of_base = lambda * (found.iter().sum::<f64>() - 1.0);
                Ok(Self::Sum { of_deltas, of_base })
            }
            Kind::Gram(coefficients) => {
                let mut gram = gram(deltas, false)?;
                for (row, a) in parts.iter().enumerate() {
                    for (column, b) in parts.iter().enumerate() {
                        gram[(row, column)] *= a.weight * b.weight;
                    }
                }
                let input = |part: &InputWeight| weighted(part.adapter, part.weight, deltas.size);
                let inputs: Vec<_> = parts.iter().map(input).collect();
                let found = coefficients(&gram, &problem(how, deltas.size, &inputs, &step.weights));
                let own = |(c, part): (&f64, &InputWeight)| lambda * c * part.weight;
                let of_deltas = found.iter().zip(&parts).map(own).collect();
                Ok(Self::Sum { of_deltas, of_base: 0.0 })
            }
            Kind::Core(_) => {
                let bands = factored::combined(rule, step, deltas.adapters, deltas.size)?;
                Ok(Self::Factors(bands))
            }
            // No plan has another one than the sum.
            Kind::Factors(_) => {
                let of_deltas = parts.iter().map(|part| lambda * part.weight).collect();
                Ok(Self::Sum { of_deltas, of_base: 0.0 })
            }
        }
    }

    /// What is added to rows `first..first + rows`, if it is found without the base's values.
    pub(in crate::ops::merge) fn combined<'b>(
        &self,
        deltas: &Deltas<'_>,
        first: usize,
        rows: usize,
        buffers: &'b mut Buffers,
    ) -> Result<Option<&'b [f32]>> {
        buffers.combined.resize(rows * deltas.size.1, 0.0);
        match self {
            Self::Blend(blending) => {
                deltas.fill(buffers, first, rows)?;
                blending.combine(&mut buffers.panel, &mut buffers.combined);
            }
            Self::Factors(bands) => bands.write(&mut buffers.combined, first, deltas.size.1),
            Self::Sum { .. } => return Ok(None),
        }
        Ok(Some(&buffers.combined))
    }

    /// Adds the combined rows `first..` to the base's `values`.
    pub(in crate::ops) fn add_to(
        &self,
        deltas: &Deltas<'_>,
        values: &mut [f64],
        first: usize,
        buffers: &mut Buffers,
    ) -> Result<()> {
        let rows = values.len() / deltas.size.1.max(1);
        if let Some(combined) = self.combined(deltas, first, rows, buffers)? {
            for (value, delta) in values.iter_mut().zip(combined) {
                add(value, f64::from(*delta));
            }
        } else if let Self::Sum { of_deltas, of_base } = self {
            deltas.fill(buffers, first, rows)?;
            for value in values.iter_mut().filter(|_| *of_base != 0.0) {
                *value += of_base * *value;
            }
            for (delta, coefficient) in buffers.panel.deltas_mut().iter().zip(of_deltas) {
                for (value, delta) in values.iter_mut().zip(delta) {
                    add(value, coefficient * f64::from(*delta));
                }
            }
        }
        Ok(())
    }
}

/// Adds what is not 0, which would take the sign of a −0.
fn add(value: &mut f64, delta: f64) {
    if delta != 0.0 {
        *value += delta;
    }
}

/// Counts all rows once: every thread a stretch of them.
fn pass(blending: &Blending<'_>, deltas: &Deltas<'_>) -> Result<Counts> {
    let step = deltas.panel_rows;
    let starts: Vec<usize> = (0..deltas.size.0).step_by(step).collect();
    let stretch = starts.len().div_ceil(rayon::current_num_threads()).max(1);
    let count = |starts: &[usize]| -> Result<Counts> {
        let (mut counts, mut buffers) = (blending.counts(), Buffers::default());
        for first in starts {
            deltas.fill(&mut buffers, *first, step.min(deltas.size.0 - first))?;
            blending.count(&mut buffers.panel, &mut counts);
        }
        Ok(counts)
    };
    // Sums of integers, and rows that are in one of them only: any order gives the same.
    let add = |mut sum: Counts, more: Counts| {
        sum.add(&more);
        Ok(sum)
    };
    let counted = starts.par_chunks(stretch).map(count).try_reduce_with(add);
    counted.unwrap_or_else(|| Ok(blending.counts()))
}

/// An input whose factors are not looked at: all that matters of them is in the inner products.
fn weighted(adapter: usize, weight: f64, (rows, columns): (usize, usize)) -> Weighted {
    let factors = LowRank::new(Matrix::zeros(rows, 0), Matrix::zeros(0, columns));
    Weighted { factors, scale: 1.0, weight, adapter }
}

fn problem<'p>(
    (settings, compat): (&'p Settings, Option<Compat>),
    (rows, columns): (usize, usize),
    inputs: &'p [Weighted],
    weights: &'p [f64],
) -> Problem<'p> {
    Problem { rows, columns, inputs, weights, settings, compat, rank: None }
}

/// Inner products of the deltas, summed row by row in order; the base comes last, if it is wanted.
fn gram(deltas: &Deltas<'_>, with_base: bool) -> Result<Matrix> {
    let (step, columns) = (deltas.panel_rows, deltas.size.1);
    let count = deltas.parts.len() + usize::from(with_base);
    let starts: Vec<usize> = (0..deltas.size.0).step_by(step).collect();
    let of_panel = |first: &usize| -> Result<Vec<Vec<f64>>> {
        let mut buffers = Buffers::default();
        let rows = step.min(deltas.size.0 - first);
        deltas.fill(&mut buffers, *first, rows)?;
        let deltas_of = buffers.panel.deltas_mut().iter_mut();
        let mut all: Vec<Vec<f32>> = deltas_of.map(std::mem::take).collect();
        if with_base {
            let base = read_f64(deltas.base, first * columns, rows * columns)?;
            all.push(base.iter().map(|value| *value as f32).collect());
        }
        let row = |row: usize| {
            let own = |at: usize| {
                let delta = all.get(at).map(Vec::as_slice).unwrap_or_default();
                delta.get(row * columns..(row + 1) * columns).unwrap_or_default()
            };
            let pair = |at: usize| inner(own(at / count), own(at % count));
            (0..count * count).map(pair).collect()
        };
        Ok((0..rows).map(row).collect())
    };
    let panels: Vec<Vec<Vec<f64>>> = starts.par_iter().map(of_panel).collect::<Result<_>>()?;
    let mut sums = vec![0.0; count * count];
    for row in panels.iter().flatten() {
        for (sum, own) in sums.iter_mut().zip(row) {
            *sum += own;
        }
    }
    Ok(Matrix::from_row_slice(count, count, &sums))
}

/// Inner products of the models, from those of the deltas and the base, which is last.
fn gram_of_weights(gram: &Matrix, parts: &[InputWeight], models: usize) -> Matrix {
    let base = parts.len();
    let of = |model: usize| parts.iter().enumerate().find(|(_, part)| part.adapter == model);
    // Σ over the base and the delta of a model, which has the weight of its part.
    let terms = |model: usize| {
        let own = of(model).map(|(at, part)| (at, part.weight));
        [(base, 1.0)].into_iter().chain(own)
    };
    Matrix::from_fn(models, models, |row, column| {
        let pairs = terms(row).flat_map(|a| terms(column).map(move |b| (a, b)));
        pairs.map(|((a, x), (b, y))| x * y * gram[(a, b)]).sum()
    })
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
