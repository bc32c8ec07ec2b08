//! Whether what was written is what was read: every module's delta, in its factors.

use super::stored::added_bias;
use crate::adapter::Adapter;
use crate::adapter::layout::{MadeOf, Piece, Rows};
use crate::adapter::module::{Module, Update};
use crate::adapter::save::NewReplacement;
use crate::adapter::tensor::read_f64;
use crate::error::{ConvertError, ErrorKind, Locate, Result};
use crate::math::{Chain, LowRank, Transform};

/// The most that a module may differ: alphas and folded factors are f32.
const ALLOWED: f64 = 1e-6;

/// ‖written − original‖ / ‖original‖ of one written module; of one that is made of rows of several, the
/// largest of theirs.
///
/// # Errors
/// [`ConvertError::Differs`], if that is more than is allowed; a module that is not there.
pub(super) fn module(
    original: &Adapter,
    source: &MadeOf,
    written: &Adapter,
    name: &str,
) -> Result<f64> {
    let after = written.modules.iter().find(|module| module.name == name);
    let after = after.ok_or(ErrorKind::NotFound).in_tensor(name)?;
    let module = |at: usize| original.modules.get(at).ok_or(ErrorKind::NotFound);
    let error = match source {
        MadeOf::Whole(at) => whole(original, module(*at)?, written, after)?,
        MadeOf::Rows { pieces, total } => {
            let mut covered = 0;
            let mut worst: f64 = 0.0;
            for piece in pieces {
                let error = rows(original, module(piece.module)?, written, after, piece)?;
                worst = worst.max(error);
                covered += piece.to.count;
            }
            let all = covered == *total || rest_is_zero(written, after, pieces, *total)?;
            if all { worst } else { f64::INFINITY }
        }
    };
    if error <= ALLOWED {
        return Ok(error);
    }
    Err(ConvertError::Differs { error }.into())
}

/// Fails unless every replacement is there with its bytes.
pub(super) fn replaced(expected: &[NewReplacement], written: &Adapter) -> Result<()> {
    for new in expected {
        let mut replacements = written.replacements.iter();
        let replacement =
            replacements.find(|r| r.module == new.module && r.replaces == new.replaces);
        let view = replacement.and_then(|replacement| written.file.tensor(&replacement.tensor));
        let view = view.ok_or(ErrorKind::NotFound).in_tensor(&new.module)?;
        let mut scratch = Vec::new();
        if view.all(&mut scratch)? != new.bytes {
            return Err(ConvertError::Differs { error: f64::INFINITY }).in_tensor(&new.module);
        }
    }
    Ok(())
}

fn whole(original: &Adapter, before: &Module, written: &Adapter, after: &Module) -> Result<f64> {
    // Where nothing but the name is new, that is seen at once, whatever the family.
    let mut error = tensors(original, before, written, after)?;
    // Of other scales, the factors tell: those of zero are the same at any.
    if error > 0.0
        && let (Some(expected), Some(found)) = (update(original, before)?, update(written, after)?)
    {
        error = distance(&expected, before.scale.value, &found, after.scale.value);
        if let (Some(expected), Some(found)) = (&before.magnitude, &after.magnitude)
            && values(original, &expected.tensor)? != values(written, &found.tensor)?
        {
            error = f64::INFINITY;
        }
    }
    if error.is_infinite()
        && let Some(off) = rotated(original, before, written, after)?
    {
        error = off;
    }
    Ok(error.max(biases(original, before, written, after, None)?))
}

/// The same of some rows: those of the update, of its magnitudes and of its bias.
fn rows(
    original: &Adapter,
    before: &Module,
    written: &Adapter,
    after: &Module,
    piece: &Piece,
) -> Result<f64> {
    let (expected, found) = (update(original, before)?, update(written, after)?);
    let expected = expected.map(|expected| cut(&expected, piece.from));
    let found = found.map(|found| cut(&found, piece.to));
    let error = match (expected, found) {
        (Some(expected), Some(found)) => {
            distance(&expected, before.scale.value, &found, after.scale.value)
        }
        _ => stored_rows(original, before, written, after, piece)?,
    };
    let magnitudes = |adapter: &Adapter, module: &Module, rows: Rows| -> Result<_> {
        let Some(magnitude) = &module.magnitude else { return Ok(None) };
        values(adapter, &magnitude.tensor).map(|all| Some(picked(&all, rows, 1)))
    };
    let (expected, found) =
        (magnitudes(original, before, piece.from)?, magnitudes(written, after, piece.to)?);
    if let (Some(expected), Some(found)) = (&expected, &found)
        && expected != found
    {
        return Ok(f64::INFINITY);
    }
    Ok(error.max(biases(original, before, written, after, Some(piece))?))
}

/// The factors that a module's update is made of, its magnitudes set aside.
fn update(adapter: &Adapter, module: &Module) -> Result<Option<LowRank>> {
    Ok(match adapter.update(module, (module.outputs, module.inputs))? {
        Update::Factors(up, down) => Some(LowRank::from_factors(&up, &down, 1.0)),
        Update::LowRank(matrix) => Some(matrix),
        Update::Composite(composite) => Some(composite.low_rank()),
        Update::Rows(_) | Update::Stored(_) | Update::Transform(_) => None,
    })
}

/// The same of rotations of outputs, as they move some vectors; none if either is something else.
fn rotated(
    original: &Adapter,
    before: &Module,
    written: &Adapter,
    after: &Module,
) -> Result<Option<f64>> {
    const PROBES: usize = 4;
    let chain = |adapter: &Adapter, module: &Module| -> Result<Option<Chain>> {
        let update = adapter.update(module, (module.outputs, module.inputs))?;
        let Update::Transform(Transform::Linear { left, right, plus: None }) = update else {
            return Ok(None);
        };
        Ok(right.is_identity().then_some(left))
    };
    let (expected, found) = (chain(original, before)?, chain(written, after)?);
    let (Some(expected), Some(found)) = (expected, found) else { return Ok(None) };
    let size = before.outputs;
    if size == 0 || after.outputs != size {
        return Ok(None);
    }
    let probe = |at: usize| ((at + 1) as f64 * 0.618).sin();
    let still: Vec<f64> = (0..PROBES * size).map(probe).collect();
    let (mut moved, mut again) = (still.clone(), still.clone());
    expected.apply(&mut moved, size);
    found.apply(&mut again, size);
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    let (whole, off) = (distance(&moved, &still), distance(&moved, &again));
    Ok(Some(if whole == 0.0 { off } else { off / whole }))
}

fn cut(factors: &LowRank, rows: Rows) -> LowRank {
    let numbers: Vec<usize> = rows.numbers().collect();
    LowRank::new(factors.up.select_rows(&numbers), factors.down.clone())
}

/// Some rows of values that lie row by row; what is not there is left out.
fn picked(values: &[f64], rows: Rows, width: usize) -> Vec<f64> {
    let of = |row: usize| values.get(row * width..(row + 1) * width).unwrap_or_default();
    rows.numbers().flat_map(of).copied().collect()
}

fn values(adapter: &Adapter, tensor: &str) -> Result<Vec<f64>> {
    let view = adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound).in_tensor(tensor)?;
    read_f64(view, 0, view.spec.elements())
}

/// 0 if the stored difference has the same values in these rows.
fn stored_rows(
    original: &Adapter,
    before: &Module,
    written: &Adapter,
    after: &Module,
    piece: &Piece,
) -> Result<f64> {
    let of = |adapter: &Adapter, module: &Module, rows: Rows| -> Result<Vec<f64>> {
        let Update::Stored(name) = adapter.update(module, (module.outputs, module.inputs))? else {
            return Err(ErrorKind::NotAdditive { family: module.family }.into());
        };
        Ok(picked(&values(adapter, &name)?, rows, module.inputs))
    };
    let same = of(original, before, piece.from)? == of(written, after, piece.to)?;
    Ok(if same { 0.0 } else { f64::INFINITY })
}

/// Whether the rows of no piece are zero.
fn rest_is_zero(written: &Adapter, after: &Module, pieces: &[Piece], total: usize) -> Result<bool> {
    let within = |row: usize| pieces.iter().any(|piece| piece.to.contains(row));
    let rest = (0..total).filter(|row| !within(*row));
    if let Some(factors) = update(written, after)? {
        return Ok(rest
            .into_iter()
            .all(|row| factors.up.row(row).iter().all(|value| *value == 0.0)));
    }
    let Update::Stored(name) = written.update(after, (after.outputs, after.inputs))? else {
        return Ok(false);
    };
    let (all, width) = (values(written, &name)?, after.inputs);
    let zero = |row: usize| {
        all.get(row * width..(row + 1) * width).is_some_and(|row| row.iter().all(|v| *v == 0.0))
    };
    Ok(rest.into_iter().all(zero))
}

fn distance(before: &LowRank, old_scale: f64, after: &LowRank, new_scale: f64) -> f64 {
    let same = before.up == after.up && before.down == after.down;
    if same && old_scale == new_scale {
        return 0.0;
    }
    if (before.rows(), before.columns()) != (after.rows(), after.columns()) {
        return f64::INFINITY;
    }
    let norm = before.squared_norm().sqrt() * old_scale.abs();
    if same {
        return if norm == 0.0 { 0.0 } else { (old_scale - new_scale).abs() / old_scale.abs() };
    }
    let scaled = |factors: &LowRank, by: f64| LowRank::new(&factors.up * by, factors.down.clone());
    let parts = [scaled(before, old_scale), scaled(after, -new_scale)];
    let difference = LowRank::sum(before.rows(), before.columns(), &parts);
    let off = difference.svd().singular_values().iter().map(|value| value * value).sum::<f64>();
    if norm == 0.0 { off.sqrt() } else { off.sqrt() / norm }
}

/// 0 if all tensors hold the same bytes and the scales agree, the scales' difference else.
fn tensors(original: &Adapter, before: &Module, written: &Adapter, after: &Module) -> Result<f64> {
    let bytes = |adapter: &Adapter, module: &Module| -> Result<Vec<Vec<u8>>> {
        let bias = module.bias.as_ref().map(|bias| bias.tensor.as_str());
        let names = module.tensors().filter(|name| Some(*name) != bias);
        let read = names.map(|name| {
            let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            let mut scratch = Vec::new();
            Ok(view.all(&mut scratch)?.to_vec())
        });
        read.collect()
    };
    if bytes(original, before)? != bytes(written, after)? {
        return Ok(f64::INFINITY);
    }
    let (expected, found) = (before.scale.value, after.scale.value);
    Ok(if expected == found {
        0.0
    } else {
        (expected - found).abs() / expected.abs().max(f64::MIN_POSITIVE)
    })
}

fn biases(
    original: &Adapter,
    before: &Module,
    written: &Adapter,
    after: &Module,
    piece: Option<&Piece>,
) -> Result<f64> {
    let (Some(expected), Some(found)) =
        (added_bias(original, before)?, added_bias(written, after)?)
    else {
        return Ok(0.0);
    };
    let (expected, found) = match piece {
        None => (expected, found),
        Some(Piece { from, to, .. }) => (picked(&expected, *from, 1), picked(&found, *to, 1)),
    };
    if expected.len() != found.len() {
        return Ok(f64::INFINITY);
    }
    let norm = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
    let off = expected.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    Ok(if norm == 0.0 { off } else { off / norm })
}
