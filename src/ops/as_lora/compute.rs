//! From updates to factors, module by module, in parallel.

use rayon::prelude::*;

use super::open::AsLora;
use super::options::DTYPE;
use super::origin::{Origin, Planned};
use super::report::ModuleReport;
use crate::adapter::module::Update;
use crate::adapter::save::{NewModule, Sized, bias_part, file_size};
use crate::adapter::tensor::read_f64;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::elements::random::Stream;
use crate::math::linalg::panels::Panels;
use crate::math::linalg::sketch::Sketch;
use crate::math::rank::policy::{Candidate, TooSmall};
use crate::math::{LowRank, Matrix, RankPolicy, RowMatrix};
use crate::ops::Progress;
use crate::ops::extract::{self, RankChoice, depth};
use crate::ops::merge::compute::module_delta::TransformedPlace;

/// What is written of a module and said of it; nothing is said of what stays as it is.
pub(super) type Done = (NewModule, Option<ModuleReport>);

/// Computes all modules. They are independent and each is computed by one thread, so the result does not depend on
/// how many there are.
///
/// # Errors
/// If reading fails, an update is not finite, or a budget does not reach.
pub(super) fn all(plan: &AsLora, progress: &dyn Progress) -> Result<Vec<Done>> {
    let cost = |planned: &Planned| (planned.size.0 + planned.size.1) as u64;
    progress.begin(plan.modules.iter().map(cost).sum());
    let policy = plan.options.rank;
    if policy.is_global() {
        return within_budget(plan, &|planned| progress.advance(cost(planned)));
    }
    let done = plan.modules.par_iter().map(|planned| {
        let sketch = look(plan, planned, 0)?;
        let rank = sketch.as_ref().map_or(0, |sketch| {
            policy.of(&depth::candidate(sketch, planned.size.0, planned.size.1))
        });
        let done = cut(plan, planned, sketch.as_ref(), rank).in_tensor(&plan.module(planned)?.name);
        progress.advance(cost(planned));
        done
    });
    done.collect()
}

/// As [`all`], of a budget that all modules share: their spectra come first.
fn within_budget(plan: &AsLora, looked: &(dyn Fn(&Planned) + Sync)) -> Result<Vec<Done>> {
    let spectra = plan.modules.par_iter().map(|planned| {
        let spectrum = look(plan, planned, 0)?;
        looked(planned);
        Ok(spectrum)
    });
    let mut spectra: Vec<Option<Sketch>> = spectra.collect::<Result<_>>()?;
    let ranks = ranks(plan, &mut spectra)?;
    let found = plan.modules.par_iter().zip(&spectra).zip(&ranks);
    let done = found.map(|((planned, sketch), rank)| {
        cut(plan, planned, sketch.as_ref(), *rank).in_tensor(&plan.module(planned)?.name)
    });
    done.collect()
}

/// The singular values and vectors of an update, as many as the rank policy needs and `least` at least; none of what
/// has no matrix. Of an update of a base that stores inputs × outputs it is that of the transpose.
fn look(plan: &AsLora, planned: &Planned, least: usize) -> Result<Option<Sketch>> {
    let module = plan.module(planned)?;
    let name = &module.name;
    let sketch = match &planned.origin {
        Origin::Kept => return Ok(None),
        Origin::Factors => {
            let factors = plan.adapter.factors(module).in_tensor(name)?;
            let scaled = LowRank::new(factors.up * module.scale.value, factors.down);
            if is_high(&scaled) {
                decompose(plan, &mut DenseUpdate(scaled.dense()), name, least)?
            } else {
                let svd = scaled.svd();
                let squares = svd.singular_values().iter().map(|value| value * value);
                let (rank, squared_norm) = (svd.singular_values().len(), squares.sum());
                Sketch { svd, rank, squared_norm, passes: 0, exact: true }
            }
        }
        Origin::Stored(tensor) => {
            let view = plan.adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound)?;
            let (rows, columns) = planned.size;
            let mut stored = StoredUpdate { view, scale: module.scale.value, rows, columns };
            decompose(plan, &mut stored, name, least)?
        }
        Origin::Rows => {
            let Update::Rows(matrix) = plan.adapter.update(module, planned.size)? else {
                return Err(ErrorKind::NotFound.into());
            };
            let (rows, columns) = planned.size;
            let scale = module.scale.value;
            decompose(plan, &mut MadeUpdate { matrix, scale, rows, columns }, name, least)?
        }
        Origin::Base(number) => {
            let merge = plan.merge.as_ref().ok_or(ErrorKind::NotFound)?;
            let place = TransformedPlace::of_weight(merge, *number).ok_or(ErrorKind::NotFound)?;
            decompose(plan, &mut place.open(merge)?, name, least)?
        }
    };
    if sketch.squared_norm.is_finite() {
        return Ok(Some(sketch));
    }
    Err(ErrorKind::UpdateNotFinite { dtype: "f32" }).in_tensor(name)
}

/// Whether a product has so many levels that its matrix is sooner decomposed than its factors are: those of both sides
/// cost (rows + columns) · rank² and the core rank³, a matrix rows · columns · rank and a few passes.
fn is_high(product: &LowRank) -> bool {
    const SMALL: usize = 512;
    let least = product.rows().min(product.columns());
    product.rank() > SMALL && 2 * product.rank() > least
}

fn decompose<P: Panels<Error = Error>>(
    plan: &AsLora,
    panels: &mut P,
    name: &str,
    least: usize,
) -> Result<Sketch> {
    let choice = RankChoice::Policy(plan.options.rank);
    let options = extract::Options::default();
    depth::look(panels, choice, &options, Stream::new(options.seed, name, 0), least).in_tensor(name)
}

/// The rank of every module; 0 where there is no matrix. A shared budget looks deeper where a module may have more
/// than is known of it.
fn ranks(plan: &AsLora, spectra: &mut [Option<Sketch>]) -> Result<Vec<usize>> {
    loop {
        let found = plan.modules.iter().zip(spectra.iter());
        let found: Vec<(&Planned, &Sketch)> =
            found.filter_map(|(planned, sketch)| Some((planned, sketch.as_ref()?))).collect();
        let mut shares = shares(plan, &found)?.into_iter();
        let all: Vec<usize> = spectra
            .iter()
            .map(|sketch| sketch.as_ref().and_then(|_| shares.next()).unwrap_or(0))
            .collect();
        let deepened = plan.modules.par_iter().zip(spectra.par_iter_mut()).zip(&all);
        let deepened = deepened.map(|((planned, sketch), rank)| {
            let known = sketch.as_ref().map_or(0, |sketch| sketch.singular_values().len());
            let complete = sketch.as_ref().is_none_or(|sketch| sketch.exact);
            if complete || *rank <= known {
                return Ok(false);
            }
            *sketch = look(plan, planned, (known * 2).max((*rank).min(known * 4)))?;
            Ok(true)
        });
        if !deepened.collect::<Result<Vec<bool>>>()?.contains(&true) {
            return Ok(all);
        }
    }
}

fn shares(plan: &AsLora, found: &[(&Planned, &Sketch)]) -> Result<Vec<usize>> {
    let policy = plan.options.rank;
    let candidates: Vec<Candidate> = found
        .iter()
        .map(|(planned, sketch)| depth::candidate(sketch, planned.size.0, planned.size.1))
        .collect();
    let sized = found.iter().map(|(planned, _)| {
        let (name, biased) = (plan.module(planned)?.name.as_str(), planned.changes_bias(plan)?);
        Ok(Sized { name, kind: &planned.kind, shape: planned.size, scale: 1.0, biased })
    });
    let sized: Vec<Sized<'_>> = sized.collect::<Result<_>>()?;
    let metadata = plan.metadata();
    let bytes = |ranks: &[usize]| {
        let size = file_size(plan.native, &sized, ranks, &plan.replacements, DTYPE, &metadata);
        size.unwrap_or(u64::MAX)
    };
    let most: Vec<usize> =
        found.iter().map(|(planned, _)| planned.size.0.min(planned.size.1)).collect();
    policy.share(&candidates, &most, &bytes).map_err(|TooSmall { least }| {
        let unit = if matches!(policy, RankPolicy::Size(_)) { "bytes" } else { "parameters" };
        ErrorKind::BudgetTooSmall { budget: policy.to_string(), least, unit }.into()
    })
}

/// Cuts an update to its rank.
fn cut(plan: &AsLora, planned: &Planned, sketch: Option<&Sketch>, rank: usize) -> Result<Done> {
    let Some(sketch) = sketch else { return Ok((planned.kept(plan)?, None)) };
    let module = plan.module(planned)?;
    let mut factors = sketch.svd.truncate(rank.min(sketch.singular_values().len()));
    if planned.turned {
        factors = factors.transposed();
    }
    if factors.rank() == 0 {
        let (outputs, inputs) = planned.size;
        factors = LowRank::new(Matrix::zeros(outputs, 1), Matrix::zeros(1, inputs));
    }
    let values = planned.bias(plan)?;
    let bias = values.as_deref().map(|values| (bias_part(plan.native), values));
    let new = NewModule::new(&module.name, &planned.kind, &factors, 1.0, bias, DTYPE)?;
    let dropped = sketch.squared_error(factors.rank());
    let error = ((dropped + rounding(&factors)) / sketch.squared_norm).sqrt();
    let report = ModuleReport {
        name: module.name.clone(),
        family: module.family,
        exact_factors: matches!(planned.origin, Origin::Factors),
        rank: factors.rank(),
        norm: sketch.squared_norm.sqrt(),
        relative_error: if sketch.squared_norm > 0.0 { error } else { 0.0 },
        passes: sketch.passes,
    };
    Ok((new, Some(report)))
}

/// ‖factors as they are stored − factors‖², of their products. What is rounded lies in the kept directions, which
/// what was dropped does not.
fn rounding(factors: &LowRank) -> f64 {
    let stored = |matrix: &Matrix| matrix.map(|value| f64::from(value as f32));
    let (up, down) = (stored(&factors.up), stored(&factors.down));
    let parts = [
        LowRank::new(&up - &factors.up, factors.down.clone()),
        LowRank::new(up, down - &factors.down),
    ];
    LowRank::sum(factors.rows(), factors.columns(), &parts).squared_norm()
}

/// An update that is made row by row.
struct MadeUpdate {
    matrix: RowMatrix,
    scale: f64,
    rows: usize,
    columns: usize,
}

impl Panels for MadeUpdate {
    type Error = Error;

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let mut values = vec![0.0; out.len()];
        self.matrix.add_to(&mut values, self.columns, first, self.scale);
        for (slot, value) in out.iter_mut().zip(values) {
            *slot = value as f32;
        }
        Ok(())
    }
}

/// An update that is a matrix.
struct DenseUpdate(Matrix);

impl Panels for DenseUpdate {
    type Error = Error;

    fn rows(&self) -> usize {
        self.0.nrows()
    }

    fn columns(&self) -> usize {
        self.0.ncols()
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        for (at, row) in out.chunks_mut(self.0.ncols().max(1)).enumerate() {
            for (slot, value) in row.iter_mut().zip(self.0.row(first + at).iter()) {
                *slot = *value as f32;
            }
        }
        Ok(())
    }
}

/// A stored update, read by rows.
struct StoredUpdate<'a> {
    view: TensorView<'a>,
    scale: f64,
    rows: usize,
    columns: usize,
}

impl Panels for StoredUpdate<'_> {
    type Error = Error;

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let values = read_f64(self.view, first * self.columns, out.len())?;
        for (slot, value) in out.iter_mut().zip(values) {
            *slot = (self.scale * value) as f32;
        }
        Ok(())
    }
}
