//! A module's tensors as its file has them, and as the target spells and shapes them.

use super::fold::{Factor, multiply};
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, Key, Part, ScalePlace, one_file, peft};
use crate::adapter::module::{BiasEffect, Dialect, Kind, Module, Nature, Side};
use crate::adapter::save::PartTensor;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Metadata;

/// The parts of plain factors.
pub(super) const FACTORS: [(Part, Part); 2] =
    [(Part::Down, Part::Up), (Part::EmbeddingDown, Part::EmbeddingUp)];

/// Whether a part is a factor.
pub(super) fn is_factor(part: Part) -> bool {
    FACTORS.iter().any(|(down, up)| part == *down || part == *up)
}

/// The module's tensors by part, as they are stored.
pub(super) fn stored(adapter: &Adapter, module: &Module) -> Result<Vec<PartTensor>> {
    let mut tensors = Vec::new();
    for name in module.tensors() {
        let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let key = (adapter.convention.parse)(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch)?.to_vec();
        tensors.push((key.part, view.spec.dtype, view.spec.shape.clone(), bytes));
    }
    Ok(tensors)
}

/// Whether the stored tensors are the module's factors, whole.
pub(super) fn is_plain(module: &Module, tensors: &[PartTensor]) -> bool {
    let size = |part: Part| {
        let tensor = tensors.iter().find(|tensor| tensor.0 == part)?;
        Some(tensor.2.iter().product::<usize>())
    };
    let whole = !module.form.is_part();
    whole
        && FACTORS.iter().any(|(down, up)| {
            size(*down) == Some(module.rank * module.inputs)
                && size(*up) == Some(module.outputs * module.rank)
        })
        && tensors.iter().all(|(part, ..)| {
            let named = [Part::Named("dora_scale"), Part::Named("diff_b")];
            is_factor(*part) || is_bias(*part) || *part == Part::Magnitude || named.contains(part)
        })
}

/// Whether a part is for the layer's bias.
pub(super) fn is_bias(part: Part) -> bool {
    [Part::UpBias, Part::Named("diff_b")].contains(&part)
}

/// Whether a part is DoRA's magnitudes.
pub(super) fn is_magnitude(part: Part) -> bool {
    [Part::Magnitude, Part::Named("dora_scale")].contains(&part)
}

/// What a part is called where it is lost.
pub(super) fn called(part: Part, module: &Module) -> &'static str {
    let of_inputs = module.magnitude.as_ref().is_some_and(|found| found.side == Side::Inputs);
    match part {
        part if is_bias(part) => "bias",
        part if is_magnitude(part) && of_inputs => "magnitudes of inputs (DoRA)",
        part if is_magnitude(part) => "magnitudes (DoRA)",
        _ => "factors",
    }
}

/// The magnitudes of a sum that is decomposed (DoRA) as the target has them beside plain factors: those of
/// outputs, which PEFT and diffusers have for LoRA alone, whatever LyCORIS made the sum of.
pub(super) fn magnitudes(
    module: &Module,
    tensors: &[PartTensor],
    target: &Convention,
) -> Result<Option<PartTensor>> {
    let factored = matches!(module.form.nature(), Nature::LowRank(rank) if rank > 0);
    let stored = tensors.iter().find(|tensor| is_magnitude(tensor.0)).filter(|_| factored);
    let Some(stored) = stored else { return Ok(None) };
    Ok(translated(module, stored.clone(), target)?
        .ok()
        .filter(|tensor| tensor.0 == Part::Magnitude))
}

/// Why a module is none of the target's, where more can be said than that it has no factors, and which
/// convention has the like.
pub(super) fn differs(module: &Module, from: &Convention, target: &Convention) -> Option<String> {
    let lycoris = |convention: &Convention| convention.holds.families == Some(Dialect::Lycoris);
    let (from_lycoris, to_lycoris) = (lycoris(from), lycoris(target));
    let crosses = match from_lycoris {
        true => target.holds.families == Some(Dialect::Peft),
        false => to_lycoris,
    };
    let why = match (&module.magnitude, module.form.bound()) {
        (Some(found), _) if !to_lycoris && found.side == Side::Inputs => {
            "its magnitudes (DoRA) are of inputs, PEFT has them of outputs alone"
        }
        (Some(_), _) if !to_lycoris => "its magnitudes (DoRA) need factors to go with",
        (None, Some(bound)) if crosses => bound.other_dialect,
        (None, Some(bound)) => bound.no_factors,
        _ => return None,
    };
    let keeps = if from_lycoris { one_file() } else { peft() };
    Some(format!("{why}; --to {} keeps it", keeps.name))
}

/// Why a convention takes no factors of a module of this kind.
pub(super) fn no_such_factors(target: &Convention, module: &Module) -> String {
    let kind = if module.kind == Kind::Embedding { "an embedding's factors" } else { "factors" };
    format!("the {} convention has no names for {kind}", target.name)
}

/// What stands beside a module's own tensors and says how they are meant.
pub(super) fn beside(adapter: &Adapter, module: &Module) -> Result<Vec<PartTensor>> {
    let mut found = Vec::new();
    for part in [Part::Alpha, Part::Named("on_input")] {
        let key = Key { module: module.name.clone(), part };
        let view = adapter.convention.spell(&key).and_then(|name| adapter.file.tensor(&name));
        if let Some(view) = view {
            let mut scratch = Vec::new();
            let bytes = view.all(&mut scratch)?.to_vec();
            found.push((part, view.spec.dtype, view.spec.shape.clone(), bytes));
        }
    }
    Ok(found)
}

/// Biases and magnitudes as the target spells and shapes them; the part that has no counterpart else.
pub(super) fn translated(
    module: &Module,
    (part, dtype, shape, bytes): PartTensor,
    target: &Convention,
) -> Result<std::result::Result<PartTensor, Part>> {
    let kohya = target.scale == ScalePlace::Tensor;
    let kernel = match &module.kind {
        Kind::Conv(kernel) => kernel.len(),
        _ => 0,
    };
    let outputs = module.outputs;
    Ok(match part {
        Part::Magnitude if kohya => {
            let shape = [outputs, 1].into_iter().chain(std::iter::repeat_n(1, kernel)).collect();
            Ok((Part::Named("dora_scale"), dtype, shape, bytes))
        }
        Part::Named("dora_scale") if !kohya => {
            let side = module.magnitude.as_ref().map(|magnitude| magnitude.side);
            let shape = match kernel {
                0 => vec![outputs],
                _ => [1, outputs].into_iter().chain(std::iter::repeat_n(1, kernel)).collect(),
            };
            match side {
                Some(Side::Outputs) => Ok((Part::Magnitude, dtype, shape, bytes)),
                _ => Err(part),
            }
        }
        Part::UpBias if kohya => {
            let scaled = module.bias.as_ref().is_some_and(|b| b.effect == BiasEffect::AddScaled);
            let mut bias = Factor { dtype, shape, bytes };
            if scaled {
                multiply(&mut bias, module.scale.value)?;
            }
            Ok((Part::Named("diff_b"), bias.dtype, bias.shape, bias.bytes))
        }
        // The scale is in it already, and PEFT will multiply it in again.
        Part::Named("diff_b") if !kohya && module.scale.value != 0.0 => {
            let mut bias = Factor { dtype, shape: vec![outputs], bytes };
            multiply(&mut bias, module.scale.value.recip())?;
            Ok((Part::UpBias, bias.dtype, bias.shape, bias.bytes))
        }
        Part::Named("diff_b") if !kohya => Err(part),
        _ => Ok((part, dtype, shape, bytes)),
    })
}

/// A bias that is added, all its values, times its coefficient.
pub(super) fn added_bias(adapter: &Adapter, module: &Module) -> Result<Option<Vec<f64>>> {
    let Some((tensor, coefficient)) = module.added_bias() else { return Ok(None) };
    let view = adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound).in_tensor(tensor)?;
    let values = read_f64(view, 0, view.spec.elements())?;
    Ok(Some(values.into_iter().map(|value| value * coefficient).collect()))
}

/// The metadata of the adapter's header.
pub(super) fn header(adapter: &Adapter) -> Metadata {
    let metadata = adapter.file.shards.first().and_then(|shard| shard.header.metadata.clone());
    metadata.unwrap_or_default()
}
