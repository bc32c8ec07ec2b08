//! From pairs of tensors to modules, one thread a pair.

use rayon::prelude::*;

use super::depth::{candidate, look, rank_of};
use super::open::Extract;
use super::options::RankChoice;
use super::pair::{Form, Pair};
use super::report::{LeftOut, ModuleReport};
use crate::adapter::convention::{Key, Part};
use crate::adapter::module::{Kind, Replaces};
use crate::adapter::save::{NewModule, NewReplacement, PartTensor, Sized};
use crate::adapter::tensor::check_finite;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Dtype, TensorView};
use crate::math::elements::random::Stream;
use crate::math::linalg::panels::Panels;
use crate::math::linalg::sketch::Sketch;
use crate::math::rank::policy::{Candidate, TooSmall};
use crate::math::{Factor, LowRank, Matrix, RankPolicy};
use crate::ops::Progress;
use crate::weight::difference::Difference;
use crate::weight::element::{decoded, encoded};

/// What became of one pair.
pub(super) enum Fate {
    Equal,
    LeftOut(LeftOut),
    Whole(NewReplacement),
    /// The difference itself, for the module of this name.
    Stored(String, PartTensor),
    Module(Box<Found>),
}

/// A difference looked into.
pub(super) struct Found {
    at: usize,
    /// Left and right vectors with √σ each, in f32, as many as are accurate.
    factors: (Factor, Factor),
    candidate: Candidate,
    values: Vec<f64>,
    squared_norm: f64,
    passes: usize,
    /// The rank; of a shared policy, to be decided.
    rank: usize,
}

impl Found {
    fn new(at: usize, sketch: &Sketch, rank: Option<usize>, size: (usize, usize)) -> Self {
        let known = sketch.singular_values().len();
        let rank = rank.unwrap_or(known);
        Self {
            at,
            factors: sketch.svd.truncate(rank.min(known)).to_factors(),
            candidate: candidate(sketch, size.0, size.1),
            values: sketch.singular_values().to_vec(),
            squared_norm: sketch.squared_norm,
            passes: sketch.passes,
            rank,
        }
    }
}

/// A module to write and what to say of it, with the squared norms of the difference and the error.
pub(super) struct Extracted {
    pub(super) module: NewModule,
    pub(super) report: ModuleReport,
    pub(super) squared_norm: f64,
    pub(super) squared_error: f64,
    pub(super) parameters: u64,
}

/// What becomes of one pair by itself: its module cut to its rank, or what else.
///
/// # Errors
/// Reading, and values that are not finite.
pub(super) fn alone(extract: &Extract, at: usize) -> Result<std::result::Result<Extracted, Fate>> {
    let pair = extract.plan.pairs.get(at).ok_or(ErrorKind::NotFound)?;
    let fate = look_into(extract, at, pair, 0).map_err(|error| error.in_tensor(&pair.base))?;
    match fate {
        Fate::Module(found) => finish(extract, &found).map(Ok),
        fate => Ok(Err(fate)),
    }
}

/// Looks at every pair; a shared budget comes last.
pub(super) fn all(
    extract: &Extract,
    progress: &dyn Progress,
) -> Result<(Vec<Fate>, Vec<Extracted>)> {
    let bytes = |pair: &Pair| extract.tuned.tensor(&pair.tuned).map_or(0, |view| view.spec.bytes());
    progress.begin(extract.plan.pairs.iter().map(bytes).sum());
    let pairs = extract.plan.pairs.par_iter().enumerate();
    let fates: Vec<Fate> = pairs
        .map(|(at, pair)| {
            let fate = look_into(extract, at, pair, 0).map_err(|error| error.in_tensor(&pair.base));
            progress.advance(bytes(pair));
            fate
        })
        .collect::<Result<_>>()?;
    let (modules, others): (Vec<Fate>, Vec<Fate>) =
        fates.into_iter().partition(|fate| matches!(fate, Fate::Module(_)));
    let mut found: Vec<Found> = modules
        .into_iter()
        .filter_map(|fate| if let Fate::Module(found) = fate { Some(*found) } else { None })
        .collect();
    share(extract, &mut found)?;
    let done = found.par_iter().map(|found| finish(extract, found)).collect::<Result<_>>()?;
    Ok((others, done))
}

/// The views of a pair.
pub(super) fn views<'a>(
    extract: &'a Extract,
    pair: &Pair,
) -> Result<(TensorView<'a>, TensorView<'a>)> {
    let base = extract.base.tensor(&pair.base).ok_or(ErrorKind::NotFound)?;
    Ok((base, extract.tuned.tensor(&pair.tuned).ok_or(ErrorKind::NotFound)?))
}

/// What becomes of one pair; at least `least` singular values are looked for.
fn look_into(extract: &Extract, at: usize, pair: &Pair, least: usize) -> Result<Fate> {
    let (base, tuned) = views(extract, pair)?;
    if base.same_bytes(tuned)? {
        return Ok(Fate::Equal);
    }
    let size = (pair.rows, pair.columns);
    let mut difference = Difference::new(base, tuned, size)?;
    let options = &extract.options;
    let kind = match &pair.form {
        Form::Factors { kind, .. } => kind,
        Form::Whole => return whole(extract, pair, tuned, &mut difference, WHOLE),
    };
    if *kind == Kind::Embedding && !options.embeddings {
        return whole(
            extract,
            pair,
            tuned,
            &mut difference,
            "an embedding; --embeddings takes it in",
        );
    }
    if spatial(kind) && options.kohya && options.conv_rank.is_none() {
        let reason = "a convolution with a kernel, without --conv-rank";
        return left_out(pair, reason, &mut difference);
    }
    if !spells(extract, pair, kind) {
        return left_out(pair, "the convention has no name for it", &mut difference);
    }
    if options.min_diff > 0.0 {
        let squared_norm = scan(&mut difference)?;
        if squared_norm == 0.0 {
            return Ok(Fate::Equal);
        }
        if difference.largest <= options.min_diff && squared_norm.is_finite() {
            let (tensor, reason) =
                (pair.base.clone(), "no element differs by more than --min-diff".into());
            return Ok(Fate::LeftOut(LeftOut { tensor, reason, norm: squared_norm.sqrt() }));
        }
    }
    let choice = choice(extract, kind);
    let stream = Stream::new(options.seed, &pair.base, 0);
    let sketch = look(&mut difference, choice, options, stream, least)?;
    if !sketch.squared_norm.is_finite() {
        return Err(difference.explain_non_finite()?);
    }
    if sketch.squared_norm == 0.0 {
        // Other bytes for the same numbers: another dtype, or the zero's other sign.
        return Ok(Fate::Equal);
    }
    let shared = matches!(choice, RankChoice::Policy(policy) if policy.is_global());
    let most = options.max_rank.unwrap_or(usize::MAX);
    let rank = (!shared).then(|| rank_of(choice, &sketch, size.0, size.1).min(most));
    if rank == Some(0) {
        let (tensor, norm) = (pair.base.clone(), sketch.squared_norm.sqrt());
        let reason = "nothing in it stands above the noise of rounding".into();
        return Ok(Fate::LeftOut(LeftOut { tensor, reason, norm }));
    }
    Ok(Fate::Module(Box::new(Found::new(at, &sketch, rank, size))))
}

const WHOLE: &str = "a norm, bias or lone parameter; --full-norms stores it";

fn choice(extract: &Extract, kind: &Kind) -> RankChoice {
    let options = &extract.options;
    options.conv_rank.filter(|_| spatial(kind)).unwrap_or(options.rank)
}

/// Whether a layer is a convolution of more than one position.
pub(super) fn spatial(kind: &Kind) -> bool {
    matches!(kind, Kind::Conv(kernel) if kernel.iter().any(|&side| side > 1))
}

pub(super) fn spells(extract: &Extract, pair: &Pair, kind: &Kind) -> bool {
    let part = if *kind == Kind::Embedding { Part::EmbeddingDown } else { Part::Down };
    extract.convention.spell(&Key { module: pair.module.clone(), part }).is_some()
}

/// ‖difference‖², one pass.
fn scan(difference: &mut Difference<'_>) -> Result<f64> {
    let (rows, columns) = (difference.rows(), difference.columns());
    let height = ((1 << 18) / columns.max(1)).clamp(1, rows.max(1));
    let mut panel = vec![0f32; height * columns];
    let mut sum = 0.0;
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first) * columns;
        if let Some(panel) = panel.get_mut(..count) {
            difference.fill(first, panel)?;
            sum += panel.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
        }
    }
    Ok(sum)
}

fn left_out(pair: &Pair, reason: &'static str, difference: &mut Difference<'_>) -> Result<Fate> {
    let squared_norm = scan(difference)?;
    if !squared_norm.is_finite() {
        return Err(difference.explain_non_finite()?);
    }
    if squared_norm == 0.0 {
        // The same values in another dtype.
        return Ok(Fate::Equal);
    }
    let (tensor, norm) = (pair.base.clone(), squared_norm.sqrt());
    Ok(Fate::LeftOut(LeftOut { tensor, reason: reason.into(), norm }))
}

/// What has no factors, where that is asked for: the tuned tensor itself in a convention that replaces
/// the base's, the difference in one that adds to it.
fn whole(
    extract: &Extract,
    pair: &Pair,
    tuned: TensorView<'_>,
    difference: &mut Difference<'_>,
    reason: &'static str,
) -> Result<Fate> {
    if !extract.options.full_norms {
        return left_out(pair, reason, difference);
    }
    let bias = pair.base.ends_with(".bias");
    let spells = |part: Part| {
        let named = bias || pair.base.ends_with(".weight");
        named && extract.convention.spell(&Key { module: pair.module.clone(), part }).is_some()
    };
    let (replaces, part) =
        if bias { (Replaces::Bias, Part::Bias) } else { (Replaces::Weight, Part::Weight) };
    if spells(part) {
        check_finite(tuned)?;
        if same_shape(extract, pair)? && scan(difference)? == 0.0 {
            return Ok(Fate::Equal);
        }
        let mut scratch = Vec::new();
        return Ok(Fate::Whole(NewReplacement {
            module: pair.module.clone(),
            replaces,
            dtype: tuned.spec.dtype,
            shape: tuned.spec.shape.clone(),
            bytes: tuned.all(&mut scratch)?.to_vec(),
        }));
    }
    let part = Part::Named(if bias { "diff_b" } else { "diff" });
    // What is restated later could not be told apart from what it is beside.
    if extract.convention == extract.target && spells(part) {
        return stored(pair, part, tuned, difference);
    }
    left_out(pair, "the convention cannot store it whole", difference)
}

/// Whether the tuned tensor has not grown.
fn same_shape(extract: &Extract, pair: &Pair) -> Result<bool> {
    let (base, tuned) = views(extract, pair)?;
    Ok(base.spec.shape == tuned.spec.shape)
}

/// The difference in f32, in which that of 16-bit values is exact.
fn stored(
    pair: &Pair,
    part: Part,
    tuned: TensorView<'_>,
    difference: &mut Difference<'_>,
) -> Result<Fate> {
    let mut values = vec![0f32; pair.rows * pair.columns];
    difference.fill(0, &mut values)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(difference.explain_non_finite()?);
    }
    if values.iter().all(|value| *value == 0.0) {
        return Ok(Fate::Equal);
    }
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = (part, Dtype::F32, tuned.spec.shape.clone(), bytes);
    Ok(Fate::Stored(pair.module.clone(), tensor))
}

/// Shares a budget out, looking deeper where a module may have more than is known of it.
fn share(extract: &Extract, found: &mut [Found]) -> Result<()> {
    let RankChoice::Policy(policy) = extract.options.rank else { return Ok(()) };
    if !policy.is_global() || found.is_empty() {
        return Ok(());
    }
    let most = extract.options.max_rank.unwrap_or(usize::MAX);
    loop {
        let ranks = shares(extract, policy, found, most)?;
        for (found, rank) in found.iter_mut().zip(&ranks) {
            found.rank = *rank;
        }
        let deeper = found.par_iter_mut().filter(|found| found.rank > found.values.len());
        let deepened = deeper.map(|found| {
            let Some(pair) = extract.plan.pairs.get(found.at) else { return Ok(false) };
            let least = (found.values.len() * 2).max(found.rank.min(found.values.len() * 4));
            if let Fate::Module(again) = look_into(extract, found.at, pair, least)? {
                *found = *again;
            }
            Ok(true)
        });
        if !deepened.collect::<Result<Vec<bool>>>()?.contains(&true) {
            return Ok(());
        }
    }
}

fn shares(
    extract: &Extract,
    policy: RankPolicy,
    found: &[Found],
    most: usize,
) -> Result<Vec<usize>> {
    let pairs: Vec<&Pair> =
        found.iter().filter_map(|found| extract.plan.pairs.get(found.at)).collect();
    let sized = pairs.iter().filter_map(|pair| {
        let Form::Factors { kind, turned } = &pair.form else { return None };
        let shape = if *turned { (pair.columns, pair.rows) } else { (pair.rows, pair.columns) };
        Some(Sized { name: &pair.module, kind, shape, scale: 1.0, biased: false })
    });
    let sized: Vec<Sized<'_>> = sized.collect();
    let bytes = |ranks: &[usize]| extract.file_size(&sized, ranks).unwrap_or(u64::MAX);
    let candidates: Vec<Candidate> = found.iter().map(|found| found.candidate.clone()).collect();
    let caps = vec![most; candidates.len()];
    policy.share(&candidates, &caps, &bytes).map_err(|TooSmall { least }| {
        let unit = if matches!(policy, RankPolicy::Size(_)) { "bytes" } else { "parameters" };
        ErrorKind::BudgetTooSmall { budget: policy.to_string(), least, unit }.into()
    })
}

fn matrix(factor: &Factor, rows: usize, columns: usize) -> Matrix {
    Matrix::from_fn(rows, columns, |row, column| {
        factor.row(row).get(column).copied().map_or(0.0, f64::from)
    })
}

/// Cuts a difference to its rank, in the orientation and dtype that is written.
fn finish(extract: &Extract, found: &Found) -> Result<Extracted> {
    let pair = extract.plan.pairs.get(found.at).ok_or(ErrorKind::NotFound)?;
    let Form::Factors { kind, turned } = &pair.form else {
        return Err(ErrorKind::NotFound.into());
    };
    let rank = found.rank.min(found.values.len());
    let (left, right) = &found.factors;
    let (up, down) = (matrix(left, pair.rows, rank), matrix(right, rank, pair.columns));
    let (up, down) = if *turned { (down.transpose(), up.transpose()) } else { (up, down) };
    let exact = LowRank::new(up, down);
    let factors = match extract.options.clamp_quantile {
        Some(share) => clamp(&exact, share),
        None => exact.clone(),
    };
    let module = NewModule::new(&pair.module, kind, &factors, 1.0, None, extract.dtype)
        .in_tensor(&pair.base)?;
    let kept: f64 = found.values.iter().take(rank).map(|value| value * value).sum();
    let written = rounded(&factors, extract.dtype)?;
    // What is lost to rounding lies in the kept directions, which what was dropped does not.
    let minus = LowRank::new(-&exact.up, exact.down.clone());
    let (rows, columns) = (exact.rows(), exact.columns());
    let off = LowRank::sum(rows, columns, &[written, minus]).svd();
    let off: f64 = off.singular_values().iter().map(|value| value * value).sum();
    let squared_error = (found.squared_norm - kept).max(0.0) + off;
    let next = found.values.get(rank).filter(|value| **value > 0.0);
    let last = rank.checked_sub(1).and_then(|last| found.values.get(last));
    let report = ModuleReport {
        name: pair.module.clone(),
        base_tensor: pair.base.clone(),
        rank,
        norm: found.squared_norm.sqrt(),
        energy_kept: (kept / found.squared_norm).min(1.0),
        relative_error: (squared_error / found.squared_norm).sqrt(),
        gap: last.zip(next).map(|(last, next)| last / next),
        passes: found.passes,
    };
    let parameters = (rank * (pair.rows + pair.columns)) as u64;
    Ok(Extracted { module, report, squared_norm: found.squared_norm, squared_error, parameters })
}

/// The factors as they are read back.
fn rounded(factors: &LowRank, dtype: Dtype) -> Result<LowRank> {
    let round = |matrix: &Matrix| -> Result<Matrix> {
        let values = decoded(dtype, &encoded(dtype, matrix.as_slice())?)?;
        Ok(Matrix::from_vec(matrix.nrows(), matrix.ncols(), values))
    };
    Ok(LowRank::new(round(&factors.up)?, round(&factors.down)?))
}

/// kohya's `--clamp_quantile` (`networks/extract_lora_from_models.py`): all of σ in up, then both factors
/// held within ± the quantile of their values taken together.
fn clamp(factors: &LowRank, share: f64) -> LowRank {
    let (mut up, mut down) = (factors.up.clone(), factors.down.clone());
    for at in 0..factors.rank() {
        let length = down.row(at).norm();
        if length > 0.0 {
            down.row_mut(at).unscale_mut(length);
            up.column_mut(at).scale_mut(length);
        }
    }
    let mut values: Vec<f64> = up.iter().chain(down.iter()).copied().collect();
    values.sort_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * values.len().saturating_sub(1) as f64;
    let below = values.get(place.floor() as usize).copied().unwrap_or(0.0);
    let above = values.get(place.ceil() as usize).copied().unwrap_or(below);
    let limit = (below + (above - below) * place.fract()).abs();
    let hold = |value: f64| value.clamp(-limit, limit);
    LowRank::new(up.map(hold), down.map(hold))
}
