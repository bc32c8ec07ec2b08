//! One changed tensor at work: its factors packed once, its rows computed in any order.

use std::ops::Range;

use super::bands::{Band, Bands};
use super::direct::Moves;
use super::elementwise::{Deltas, Statistics};
use super::fused::merge_panel;
use super::making::Making;
use super::scratch::Scratch;
use super::transform::Ready;
use super::update::Addition;
use crate::adapter::Adapter;
use crate::adapter::tensor::read_f64;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::kernel::f64_panel::{self, Panel};
use crate::math::{DeltaStats, ElementType};
use crate::ops::merge::plan::layout::OutputTensor;
use crate::ops::merge::plan::step::{MethodStep, ReplaceStep, RowsStep};
use crate::ops::merge::plan::tensor_plan::{Steps, TensorPlan};
use crate::ops::merge::plan::tuned;
use crate::weight::difference::{self, Tuned};
use crate::weight::element::float_type;

/// Bytes of output that one panel of the fused kernel has, about: it is written from the cache.
const FUSED_PANEL: usize = 256 << 10;
/// Elements that one panel in f64 has, about.
const F64_PANEL: usize = 128 << 10;

/// A tensor ready to be computed.
pub(in crate::ops) struct Work<'a> {
    making: Making<'a>,
    base: TensorView<'a>,
    tensor: &'a OutputTensor,
    input: ElementType,
    output: ElementType,
    rows: usize,
    columns: usize,
    terms: Bands,
    pub(super) panels: Option<PanelWork<'a>>,
}

/// What a tensor needs that the fused kernel does not make.
pub(super) struct PanelWork<'a> {
    replace: Option<&'a ReplaceStep>,
    differences: Vec<Tuned<'a>>,
    method: Option<(Statistics<'a>, Deltas<'a>)>,
    additions: Vec<Addition<'a>>,
    pub(super) transforms: Vec<Ready<'a>>,
    row_steps: Vec<&'a RowsStep>,
    /// Whether stored bytes may be made of stored bytes.
    is_direct: bool,
    /// Where nothing but differences is added, all of them: rows without any keep their bytes.
    only: Option<Vec<Tuned<'a>>>,
    /// Whether what rounding left of an update is measured.
    is_measured: bool,
}

/// Elements of the values that a step puts in place.
pub(in crate::ops) fn replacing(
    step: &ReplaceStep,
    adapters: &[Adapter],
    first: usize,
    count: usize,
) -> Result<Vec<f64>> {
    let adapter = adapters.get(step.adapter).ok_or(ErrorKind::NotFound)?;
    let view =
        adapter.file.tensor(&step.tensor).ok_or(ErrorKind::NotFound).in_tensor(&step.tensor)?;
    read_f64(view, first, count)
}

impl<'a> Work<'a> {
    /// Reads and packs what the tensor needs.
    pub(in crate::ops) fn new(
        making: Making<'a>,
        tensor: &'a OutputTensor,
        statistics: Option<Statistics<'a>>,
    ) -> Result<Self> {
        let inputs = making.inputs;
        let base = inputs.base.tensor(&tensor.base);
        let base = base.ok_or(ErrorKind::NotFound).in_tensor(&tensor.base)?;
        let element = |dtype| float_type(dtype).in_tensor(&tensor.base);
        let (rows, columns) = tensor.matrix;
        let (input, output) = (element(base.spec.dtype)?, element(tensor.dtype)?);
        let is_wide = input.is_wide() || output.is_wide();
        let steps = tensor.plan.steps();
        let mut work = Self {
            making,
            base,
            tensor,
            input,
            output,
            rows,
            columns,
            terms: Bands::new(&steps.factors, &inputs.adapters, (rows, columns))?,
            panels: None,
        };
        match tensor.plan {
            TensorPlan::Copy | TensorPlan::Convert | TensorPlan::Fused(_) if !is_wide => {}
            _ => work.prepare(steps, statistics)?,
        }
        Ok(work)
    }

    /// Reads what the steps beyond the terms need; each may look at the weight as the last left it.
    fn prepare(&mut self, steps: Steps<'a>, statistics: Option<Statistics<'a>>) -> Result<()> {
        let Steps { replace, differences, method, factors, rowwise, transforms, rows } = steps;
        let (adapters, tuned) = (&self.making.inputs.adapters, &self.making.inputs.tuned);
        let size = (self.rows, self.columns);
        let additions = rowwise.iter().map(|term| Addition::new(term, adapters, size));
        let only = self.tensor.plan.differences();
        let adds = !(differences.is_empty() && factors.is_empty() && rowwise.is_empty());
        self.panels = Some(PanelWork {
            replace,
            differences: tuned::find(differences, tuned)?,
            method: method.map(|step| self.look_at(step, statistics)).transpose()?.flatten(),
            additions: additions.collect::<Result<_>>()?,
            transforms: Vec::new(),
            row_steps: rows,
            is_direct: matches!(self.tensor.plan, TensorPlan::Direct(_)),
            only: only.map(|only| tuned::find(only, tuned)).transpose()?,
            is_measured: replace.is_none() && (adds || method.is_some() || !transforms.is_empty()),
        });
        let before = |first, rows| self.before(first, rows, &mut Scratch::default());
        let ready = transforms.into_iter().map(|term| Ready::new(term, adapters, size, &before));
        let ready = ready.collect::<Result<_>>()?;
        if let Some(panels) = &mut self.panels {
            panels.transforms = ready;
        }
        Ok(())
    }

    /// The deltas that a method combines, with what is known of them.
    fn look_at(
        &self,
        step: &'a MethodStep,
        statistics: Option<Statistics<'a>>,
    ) -> Result<Option<(Statistics<'a>, Deltas<'a>)>> {
        let Some(method) = &self.making.plan.method else { return Ok(None) };
        let deltas = Deltas::new(self.making, step, self.base, (self.rows, self.columns))?;
        let statistics = match statistics {
            Some(statistics) => statistics,
            None => Statistics::new(method, step, &deltas)?,
        };
        Ok(Some((statistics, deltas)))
    }

    /// Rows that one panel has, for a tensor of this shape: whole runs of those that the base decodes together.
    pub(in crate::ops::merge) fn panel_rows(tensor: &OutputTensor, base: TensorView<'_>) -> usize {
        let (_, columns) = tensor.matrix;
        let size = (tensor.dtype.bitsize() / 8).max(1);
        let elements = match tensor.plan {
            TensorPlan::Copy | TensorPlan::Convert | TensorPlan::Fused(_) => FUSED_PANEL / size,
            TensorPlan::Direct(_) | TensorPlan::Panels(_) | TensorPlan::Encode(_) => F64_PANEL,
        };
        let rows = (elements / columns.max(1)).max(1).next_multiple_of(4);
        match base.spec.shape.last() == Some(&columns) {
            true => rows.next_multiple_of(base.grain()),
            false => rows,
        }
    }

    /// Computes rows `first..first + rows` of the result into `out`.
    pub(in crate::ops::merge) fn compute(
        &self,
        first: usize,
        rows: usize,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<DeltaStats> {
        out.resize(rows * self.columns * self.output.size(), 0);
        self.compute_into(first, out, None, scratch)
    }

    /// Whether the base's rows may be given to [`Work::compute_into`] as F32.
    pub(super) fn takes_f32(&self) -> bool {
        self.panels.is_none() && self.input.is_single()
    }

    /// Computes as many rows from `first` on as fill `out`; `base` is those rows of the base, where they were read.
    pub(super) fn compute_into(
        &self,
        first: usize,
        out: &mut [u8],
        base: Option<&[u8]>,
        scratch: &mut Scratch,
    ) -> Result<DeltaStats> {
        let size = self.columns * self.output.size();
        let rows = out.len() / size.max(1);
        if self.panels.is_some() {
            return self.compute_panel(first, rows, out, scratch);
        }
        let mut stats = DeltaStats::default();
        for (own, band) in self.terms.within(first, rows) {
            let at = (own.start - first) * size;
            let out = out.get_mut(at..at + own.len() * size).unwrap_or_default();
            let base = base.and_then(|base| {
                let size = self.columns * self.input.size();
                base.get((own.start - first) * size..(own.end - first) * size)
            });
            stats.add(&self.compute_band(band, &own, base, out, scratch)?);
        }
        Ok(stats)
    }

    /// As [`Work::compute_into`], by the kernel, for rows that have the same terms.
    fn compute_band(
        &self,
        band: Band<'_>,
        own: &Range<usize>,
        base: Option<&[u8]>,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<DeltaStats> {
        let left = band.rows(own);
        let size = (self.columns * self.input.size()) as u64;
        let range = own.start as u64 * size..own.end as u64 * size;
        let base = match base {
            Some(base) => base,
            None => self.base.bytes(range, &mut scratch.bytes)?,
        };
        let found = merge_panel((self.input, self.output), base, out, &left, &band.right);
        if found.non_finite {
            self.explain_non_finite(own.start, base, out)?;
        }
        if band.right.depth() == 0 {
            // Rows that nothing is added to keep their very bytes, and have no update to speak of.
            if self.input == self.output {
                out.copy_from_slice(base);
            }
            return Ok(DeltaStats::default());
        }
        self.redo(&found.cancelled, own.start, base, out);
        Ok(found.stats)
    }

    /// Computes elements in f64 that f32 could not round right.
    fn redo(&self, elements: &[usize], first: usize, base: &[u8], out: &mut [u8]) {
        let (input, output) = (self.input.size(), self.output.size());
        for &at in elements {
            let bytes = base.get(at * input..(at + 1) * input);
            let slot = out.get_mut(at * output..(at + 1) * output);
            if let (Some(bytes), Some(slot)) = (bytes, slot) {
                let mut value = [0.0];
                self.input.decode(bytes, &mut value);
                let index = first * self.columns + at;
                let delta = self.exact_delta(index / self.columns, index % self.columns);
                self.output.encode(&value.map(|value| value + delta), slot);
            }
        }
    }

    /// The base's rows (or those that replace them), plus all that is added: what a transform starts from.
    pub(super) fn before(&self, first: usize, rows: usize, scratch: &mut Scratch) -> Result<Panel> {
        let (at, count) = (first * self.columns, rows * self.columns);
        let replace = self.panels.as_ref().and_then(|panels| panels.replace);
        // Only an outright replacement does without the base.
        let mut values = match replace {
            Some(step) if step.weight == 1.0 => {
                replacing(step, &self.making.inputs.adapters, at, count)?
            }
            Some(step) => {
                let mut values = self.base_values(at, count)?;
                f64_panel::blend(
                    &mut values,
                    &replacing(step, &self.making.inputs.adapters, at, count)?,
                    step.weight,
                );
                values
            }
            None => self.base_values(at, count)?,
        };
        if let Some(panels) = &self.panels {
            difference::add_all(&panels.differences, &mut values, at)?;
            if let Some((statistics, deltas)) = &panels.method {
                statistics.add_to(deltas, &mut values, first, &mut scratch.moves.blend)?;
            }
        }
        let mut panel = Panel { rows, columns: self.columns, values };
        self.terms.add_to(&mut panel, first, 1.0, &mut scratch.product);
        for addition in self.panels.iter().flat_map(|panels| &panels.additions) {
            addition.add_to(&mut panel, first, &mut scratch.product)?;
        }
        Ok(panel)
    }

    fn base_values(&self, first: usize, count: usize) -> Result<Vec<f64>> {
        let values = read_f64(self.base, first, count)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.non_finite_base(first + at, values.get(at).copied())),
        }
    }

    fn compute_panel(
        &self,
        first: usize,
        rows: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<DeltaStats> {
        let Some(panels) = &self.panels else { return Ok(DeltaStats::default()) };
        if let Some(stats) = self.copy_unchanged(panels, first, rows, out, scratch)? {
            return Ok(stats);
        }
        if panels.is_direct {
            let (method, differences) = (panels.method.as_ref(), &panels.differences[..]);
            let types = (self.input, self.output);
            let moves =
                Moves { base: self.base, types, columns: self.columns, method, differences };
            if let Some(stats) = moves.compute(first, out, &mut scratch.moves)? {
                return Ok(stats);
            }
        }
        let mut panel = self.before(first, rows, scratch)?;
        for transform in &panels.transforms {
            let before = |first, rows| self.before(first, rows, &mut Scratch::default());
            transform.apply(&mut panel, first, &before, &mut scratch.product)?;
        }
        for step in &panels.row_steps {
            for (at, &row) in step.rows.iter().enumerate() {
                let Some(local) = row.checked_sub(first).filter(|local| *local < rows) else {
                    continue;
                };
                let values = replacing(
                    &step.values,
                    &self.making.inputs.adapters,
                    at * self.columns,
                    self.columns,
                )?;
                let start = local * self.columns;
                if let Some(target) = panel.values.get_mut(start..start + self.columns) {
                    f64_panel::blend(target, &values, step.values.weight);
                }
            }
        }
        self.output.encode(&panel.values, out);
        let mut stored = vec![0.0; panel.values.len()];
        self.output.decode(out, &mut stored);
        if let Some(at) = stored.iter().position(|value| !value.is_finite()) {
            let value = panel.values.get(at).copied().unwrap_or(f64::NAN);
            return Err(self.overflow(first * self.columns + at, value));
        }
        self.measure(panels, first, rows, &panel, &stored)
    }

    /// Copies rows that are the same in all checkpoints, whatever they hold.
    fn copy_unchanged(
        &self,
        panels: &PanelWork<'a>,
        first: usize,
        rows: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<Option<DeltaStats>> {
        let Some(only) = panels.only.as_ref().filter(|_| self.input == self.output) else {
            return Ok(None);
        };
        let (at, count) = (first * self.columns, rows * self.columns);
        let bytes = difference::unchanged(only, self.base, at, count, &mut scratch.bytes)?;
        Ok(bytes.map(|bytes| {
            out.copy_from_slice(bytes);
            let elements = (rows * self.columns) as u64;
            DeltaStats { elements, ..DeltaStats::default() }
        }))
    }

    /// What rounding did, where something was added; replaced values have no update to speak of.
    fn measure(
        &self,
        panels: &PanelWork<'a>,
        first: usize,
        rows: usize,
        panel: &Panel,
        stored: &[f64],
    ) -> Result<DeltaStats> {
        let mut stats = DeltaStats::default();
        if !panels.is_measured {
            return Ok(stats);
        }
        let base = self.base_values(first * self.columns, rows * self.columns)?;
        for ((value, new), old) in panel.values.iter().zip(stored).zip(base) {
            let (asked, added) = (value - old, new - old);
            stats.asked += asked * asked;
            stats.added += added * added;
            stats.dot += asked * added;
            stats.touched += u64::from(asked != 0.0);
            stats.lost += u64::from(asked != 0.0 && added == 0.0);
            stats.elements += 1;
        }
        Ok(stats)
    }

    /// Finds the element that the kernel saw go wrong, and whose fault it is.
    fn explain_non_finite(&self, first: usize, base: &[u8], out: &[u8]) -> Result<()> {
        let count = out.len() / self.output.size();
        let (mut old, mut new) = (vec![0.0; count], vec![0.0; count]);
        self.input.decode(base, &mut old);
        self.output.decode(out, &mut new);
        let start = first * self.columns;
        if let Some(at) = old.iter().position(|value| !value.is_finite()) {
            return Err(self.non_finite_base(start + at, old.get(at).copied()));
        }
        match new.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let index = start + at;
                let delta = self.exact_delta(index / self.columns, index % self.columns);
                Err(self.overflow(index, old.get(at).copied().unwrap_or(f64::NAN) + delta))
            }
        }
    }

    fn exact_delta(&self, row: usize, column: usize) -> f64 {
        self.terms.within(row, 1).map(|(_, band)| band.element(row, column)).sum()
    }

    fn non_finite_base(&self, index: usize, value: Option<f64>) -> Error {
        let value = value.unwrap_or(f64::NAN).to_string();
        Error::from(ErrorKind::NonFiniteBase { index, value })
            .in_tensor(&self.tensor.base)
            .in_file(&self.base.shard.path)
    }

    fn overflow(&self, index: usize, value: f64) -> Error {
        let dtype = self.tensor.dtype.to_string();
        Error::from(ErrorKind::Overflow { index, value, dtype })
            .in_tensor(&self.tensor.full_name)
            .in_file(&self.making.plan.output)
    }
}
