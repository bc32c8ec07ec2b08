//! Weights as a trainer sees them that keeps its base quantised (QLoRA): each as codes, and read again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;

use super::decoded::put;
use super::encoding::Setting;
use super::stored::elements;
use super::{Encode, Encoded, Panel, Stored, Writing};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, Computed, Dtype, TensorSpec};

/// Bytes of one element.
const SIZE: u64 = 4;
/// Elements that are looked at together, about.
const PANEL: usize = 1 << 16;

/// Matrices of a checkpoint that are read as their codes would be.
#[derive(Debug, Default)]
pub(crate) struct Trained {
    weights: Vec<Arc<Rounded>>,
}

impl Trained {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.weights.len()
    }

    /// ‖read − stored‖ / ‖stored‖ of what has been read so far; `None` if nothing has.
    pub(crate) fn moved(&self) -> Option<f64> {
        let (mut moved, mut all) = (0.0, 0.0);
        for weight in &self.weights {
            let mut end = 0;
            for (first, panel) in lock(&weight.moved).iter() {
                // Rows may have been read more than once.
                if *first >= end {
                    (moved, all, end) = (moved + panel.away, all + panel.all, panel.end);
                }
            }
        }
        (all > 0.0).then(|| (moved / all).sqrt())
    }
}

/// The checkpoint with those of its matrices quantised and read again that `is_quantised` says.
///
/// # Errors
/// If two tensors have one name.
pub(crate) fn as_trained(
    checkpoint: Checkpoint,
    setting: &'static Setting,
    is_quantised: impl Fn(&str) -> bool,
) -> Result<(Checkpoint, Trained)> {
    let (mut headers, mut trained) = (Vec::new(), Trained::default());
    for (number, shard) in checkpoint.shards.iter().enumerate() {
        let prefix = checkpoint.component_of(number).map_or("", |found| found.prefix.as_str());
        let (mut header, mut computed) = (shard.header.clone(), BTreeMap::new());
        for spec in &mut header.tensors {
            let full = format!("{prefix}{}", spec.name);
            let Some(view) = checkpoint.tensor(&full).filter(|_| is_quantised(&full)) else {
                continue;
            };
            let stored = Stored::new(&full, view);
            let Some(weight) = Rounded::new(stored, setting) else { continue };
            let length = elements(&spec.shape) as u64 * SIZE;
            *spec = TensorSpec { dtype: Dtype::F32, end: spec.start + length, ..spec.clone() };
            let weight = Arc::new(weight);
            trained.weights.push(Arc::clone(&weight));
            computed.insert(spec.name.clone(), weight as Arc<dyn Computed>);
        }
        headers.push((header, computed));
    }
    Ok((checkpoint.with_headers(headers)?, trained))
}

/// What of some rows their codes have moved.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// The row behind the last.
    end: usize,
    /// Σ (read − stored)².
    away: f64,
    /// Σ stored².
    all: f64,
}

/// A matrix that is read as its codes would be.
#[derive(Debug)]
struct Rounded {
    stored: Stored,
    rows: usize,
    columns: usize,
    writer: Arc<dyn Encode>,
    survey: OnceLock<Vec<f32>>,
    /// By the first row.
    moved: Mutex<BTreeMap<usize, Moved>>,
}

impl Rounded {
    fn new(stored: Stored, setting: &Setting) -> Option<Self> {
        let [rows, columns] = *stored.shape.as_slice() else { return None };
        let writer = (setting.writer)(&stored, (rows, columns))?;
        let (survey, moved) = (OnceLock::new(), Mutex::default());
        Some(Self { stored, rows, columns, writer, survey, moved })
    }

    /// Stored numbers of some rows.
    fn values(&self, rows: &Range<usize>) -> Result<Vec<f32>> {
        let first = rows.start * self.columns;
        let values = self.stored.floats(first..rows.end * self.columns)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let value = values.get(at).copied().unwrap_or(f32::NAN).to_string();
                Err(self.stored.error(ErrorKind::NonFiniteBase { index: first + at, value }))
            }
        }
    }

    /// What encoding any row needs of all.
    fn survey(&self) -> Result<&[f32]> {
        if let Some(survey) = self.survey.get() {
            return Ok(survey);
        }
        let step = (PANEL / self.columns.max(1)).max(1).next_multiple_of(self.writer.grain());
        let panels: Vec<usize> = (0..self.rows).step_by(step).collect();
        let found = panels.into_par_iter().map(|first| {
            let values = self.values(&(first..(first + step).min(self.rows)))?;
            Ok(self.writer.survey(&values))
        });
        // The first in order fails, whatever the threads.
        let found: Vec<Result<Vec<f32>>> = found.collect();
        let found: Vec<Vec<f32>> = found.into_iter().collect::<Result<_>>()?;
        let settled = self.writer.settle(&found.concat())?;
        Ok(self.survey.get_or_init(|| settled))
    }
}

impl Computed for Rounded {
    fn bytes(&self, range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        let (grain, columns) = (self.writer.grain().max(1), self.columns.max(1));
        let first = (range.start / SIZE) as usize / columns / grain * grain;
        let end = (range.end.div_ceil(SIZE) as usize).div_ceil(columns);
        let rows = first..end.next_multiple_of(grain).min(self.rows);
        let writing = Writing::default();
        let survey = if self.prepares() { self.survey()? } else { &[] };
        let values = self.values(&rows)?;
        let mut encoded = Encoded::default();
        let panel = Panel::new(&self.stored.name, rows.clone(), &values, writing, survey);
        self.writer.rows(&panel, &mut encoded).in_tensor(&self.stored.name)?;
        let mut moved = Moved { end: rows.end, away: 0.0, all: 0.0 };
        for (value, read) in values.iter().zip(&encoded.values) {
            let (value, read) = (f64::from(*value), f64::from(*read));
            moved.away += (read - value) * (read - value);
            moved.all += value * value;
        }
        lock(&self.moved).insert(rows.start, moved);
        let skip = (range.start / SIZE) as usize - first * columns;
        put(encoded.values.get(skip..).unwrap_or_default(), &range, out);
        Ok(())
    }

    fn grain(&self) -> usize {
        self.writer.grain()
    }

    fn prepares(&self) -> bool {
        self.writer.surveys(Writing::default())
    }

    fn prepare(&self) -> Result<()> {
        if self.prepares() { self.survey().map(|_| ()) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
