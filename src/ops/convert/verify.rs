//! Whether what was written is what was read: every module's delta, in its factors.

use super::fit::added_bias;
use crate::adapter::Adapter;
use crate::adapter::module::Module;
use crate::error::{ConvertError, ErrorKind, Locate, Result};
use crate::math::LowRank;

/// The most that a module may differ: alphas and folded factors are f32.
const ALLOWED: f64 = 1e-6;

/// ‖written − original‖ / ‖original‖ of one module.
///
/// # Errors
/// [`ConvertError::Differs`], if that is more than is allowed; a module that is not there.
pub(super) fn compare(
    original: &Adapter,
    own: &str,
    written: &Adapter,
    theirs: &str,
) -> Result<f64> {
    let (before, after) = (find(original, own)?, find(written, theirs)?);
    let error = match original.factors(before) {
        Ok(factors) if written.check_factors(after).is_ok() => {
            distance(&factors, before.scale.value, &written.factors(after)?, after.scale.value)
        }
        // An update that depends on the base is the same where its tensors are.
        _ => tensors(original, before, written, after)?,
    };
    let error = error.max(biases(original, before, written, after)?);
    if error <= ALLOWED {
        return Ok(error);
    }
    Err(ConvertError::Differs { error }.into())
}

fn find<'a>(adapter: &'a Adapter, name: &str) -> Result<&'a Module> {
    let found = adapter.modules.iter().find(|module| module.name == name);
    found.ok_or(ErrorKind::NotFound).in_tensor(name)
}

fn distance(before: &LowRank, scale: f64, after: &LowRank, other: f64) -> f64 {
    let same = before.up == after.up && before.down == after.down;
    if same && scale == other {
        return 0.0;
    }
    if (before.rows(), before.columns()) != (after.rows(), after.columns()) {
        return f64::INFINITY;
    }
    let norm = before.squared_norm().sqrt() * scale.abs();
    if same {
        return if norm == 0.0 { 0.0 } else { (scale - other).abs() / scale.abs() };
    }
    let scaled = |factors: &LowRank, by: f64| LowRank::new(&factors.up * by, factors.down.clone());
    let parts = [scaled(before, scale), scaled(after, -other)];
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
    let (own, other) = (before.scale.value, after.scale.value);
    Ok(if own == other { 0.0 } else { (own - other).abs() / own.abs().max(f64::MIN_POSITIVE) })
}

fn biases(original: &Adapter, before: &Module, written: &Adapter, after: &Module) -> Result<f64> {
    let (Some(own), Some(other)) = (added_bias(original, before)?, added_bias(written, after)?)
    else {
        return Ok(0.0);
    };
    let norm = own.iter().map(|value| value * value).sum::<f64>().sqrt();
    let off = own.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    Ok(if norm == 0.0 { off } else { off / norm })
}
