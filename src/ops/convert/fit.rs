//! What of each module the target can hold, and how: its tensors as they are, its update as plain
//! factors, or not at all.

use super::fold::{Factor, commonest, fold, multiply, pad};
use super::{Base, For, ModuleReport, uniform};
use crate::adapter::convention::{Convention, Key, Names, Part, ScalePlace};
use crate::adapter::module::{BiasEffect, Kind, Module, Replaces, Side};
use crate::adapter::save::{NewModule, NewReplacement, PartTensor};
use crate::adapter::tensor::read_f64;
use crate::adapter::{Adapter, gguf};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Dtype;

/// Everything that goes to the target.
#[derive(Debug, Default)]
pub(super) struct All {
    pub(super) modules: Vec<NewModule>,
    pub(super) reports: Vec<ModuleReport>,
    pub(super) replacements: Vec<NewReplacement>,
    pub(super) lost: Vec<String>,
}

/// One module, before its scale is settled with the others'.
#[derive(Debug)]
pub(super) struct Fitted {
    from: String,
    name: String,
    rank: usize,
    scale: f64,
    alpha: Option<f64>,
    tensors: Vec<PartTensor>,
    factored: Option<&'static str>,
}

/// The parts of plain factors.
const FACTORS: [(Part, Part); 2] =
    [(Part::Down, Part::Up), (Part::EmbeddingDown, Part::EmbeddingUp)];

pub(super) fn all(
    adapter: &Adapter,
    target: &Convention,
    program: Option<For>,
    names: &[Result<String>],
    base: Base,
) -> Result<All> {
    let mut all = All::default();
    let mut fitted = Vec::new();
    for (module, name) in adapter.modules.iter().zip(names) {
        match name {
            Ok(name) => {
                let one = fit(adapter, module, name, target, program, &mut all.lost);
                fitted.extend(one.in_tensor(&module.name).in_file(&adapter.path)?);
            }
            Err(error) => all.lost.push(format!("{}: {error}", module.name)),
        }
    }
    settle(&mut fitted, target, program, base, &mut all)?;
    for replacement in &adapter.replacements {
        let part = match replacement.replaces {
            Replaces::Weight => Part::Weight,
            Replaces::Bias => Part::Bias,
            Replaces::Rows(_) => Part::TokenRows,
        };
        let key = Key { module: replacement.module.clone(), part };
        if program.is_some() || (target.format)(&key).is_none() || target.names != Names::Dotted {
            all.lost.push(format!("{}, which replaces the base's", replacement.label()));
            continue;
        }
        let view = adapter.file.tensor(&replacement.tensor).ok_or(ErrorKind::NotFound)?;
        let mut scratch = Vec::new();
        all.replacements.push(NewReplacement {
            module: replacement.module.clone(),
            replaces: replacement.replaces.clone(),
            dtype: view.spec.dtype,
            shape: view.spec.shape.clone(),
            bytes: view.all(&mut scratch)?.to_vec(),
        });
    }
    Ok(all)
}

/// The module's tensors by part, as they are stored.
fn stored(adapter: &Adapter, module: &Module) -> Result<Vec<PartTensor>> {
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
fn is_plain(module: &Module, tensors: &[PartTensor]) -> bool {
    let size = |part: Part| {
        let tensor = tensors.iter().find(|tensor| tensor.0 == part)?;
        Some(tensor.2.iter().product::<usize>())
    };
    FACTORS.iter().any(|(down, up)| {
        size(*down) == Some(module.rank * module.inputs)
            && size(*up) == Some(module.outputs * module.rank)
    }) && tensors.iter().all(|(part, ..)| {
        let factor = FACTORS.iter().any(|(down, up)| part == down || part == up);
        let named = [Part::Named("dora_scale"), Part::Named("diff_b")];
        factor || matches!(part, Part::UpBias | Part::Magnitude) || named.contains(part)
    })
}

fn fit(
    adapter: &Adapter,
    module: &Module,
    name: &str,
    target: &Convention,
    program: Option<For>,
    lost: &mut Vec<String>,
) -> Result<Option<Fitted>> {
    let tensors = stored(adapter, module)?;
    let spells = |part: Part| {
        let key = Key { module: name.to_owned(), part };
        program != Some(For::Vllm) && (target.format)(&key).is_some()
            || FACTORS.iter().any(|(down, up)| part == *down || part == *up)
                && (target.format)(&key).is_some()
    };
    let fitted = |tensors, factored, rank, scale, alpha| Fitted {
        from: module.name.clone(),
        name: name.to_owned(),
        rank,
        scale,
        alpha,
        tensors,
        factored,
    };
    let alpha =
        module.scale.alpha.filter(|alpha| *alpha == module.scale.value * module.rank as f64);
    if is_plain(module, &tensors) {
        let mut kept = Vec::new();
        for tensor in tensors {
            match translated(module, tensor, target)? {
                Ok(tensor) if spells(tensor.0) => kept.push(tensor),
                Ok((part, ..)) | Err(part) => {
                    lost.push(format!("{}: its {}", module.name, called(part)));
                }
            }
        }
        return Ok(Some(fitted(kept, None, module.rank, module.scale.value, alpha)));
    }
    let both = adapter.convention.scale == ScalePlace::Tensor && target.scale == ScalePlace::Tensor;
    if both && tensors.iter().all(|tensor| spells(tensor.0)) {
        let mut kept = tensors;
        kept.extend(alpha_tensor(adapter, module)?);
        return Ok(Some(fitted(kept, None, module.rank, module.scale.value, module.scale.alpha)));
    }
    if adapter.check_factors(module).is_err() {
        lost.push(format!("{}: the whole of it, a {} module", module.name, module.family));
        return Ok(None);
    }
    let factors = adapter.factors(module)?;
    let (down, up) = match module.kind {
        Kind::Embedding => (Part::EmbeddingDown, Part::EmbeddingUp),
        _ => (Part::Down, Part::Up),
    };
    if !spells(down) || !spells(up) {
        lost.push(format!("{}: the whole of it", module.name));
        return Ok(None);
    }
    if module.bias.is_some() {
        lost.push(format!("{}: its {}", module.name, called(Part::UpBias)));
    }
    let scale = module.scale.value;
    let new = NewModule::new(name, &module.kind, &factors, scale, None, Dtype::F32)?;
    Ok(Some(fitted(new.tensors, Some(module.family), factors.rank(), scale, None)))
}

fn called(part: Part) -> &'static str {
    match part {
        Part::UpBias | Part::Named("diff_b") => "bias",
        Part::Magnitude | Part::Named("dora_scale") => "magnitudes (DoRA)",
        _ => "factors",
    }
}

/// The alpha tensor that stands beside a module's own.
fn alpha_tensor(adapter: &Adapter, module: &Module) -> Result<Option<PartTensor>> {
    let key = Key { module: module.name.clone(), part: Part::Alpha };
    let Some(view) = (adapter.convention.format)(&key).and_then(|name| adapter.file.tensor(&name))
    else {
        return Ok(None);
    };
    let mut scratch = Vec::new();
    let bytes = view.all(&mut scratch)?.to_vec();
    Ok(Some((Part::Alpha, view.spec.dtype, view.spec.shape.clone(), bytes)))
}

/// Biases and magnitudes as the target spells and shapes them; the part that has no counterpart else.
fn translated(
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
        Part::Named("diff_b") if !kohya => Err(part),
        _ => Ok((part, dtype, shape, bytes)),
    })
}

/// Gives every module the scale that the target can say, and puts the rest into its factors.
fn settle(
    fitted: &mut Vec<Fitted>,
    target: &Convention,
    program: Option<For>,
    base: Base,
    all: &mut All,
) -> Result<()> {
    let highest = fitted.iter().map(|module| module.rank).max().unwrap_or(1);
    if program == Some(For::Vllm) {
        for module in fitted.iter_mut() {
            on_factors(&mut module.tensors, |down, up| {
                pad(highest, down, up);
                Ok(())
            })?;
            if module.rank != highest {
                (module.rank, module.alpha) = (highest, None);
            }
        }
    }
    // llama.cpp divides its one alpha by each module's own rank.
    let said = |module: &Fitted| match target.names {
        Names::Gguf => module.scale * module.rank as f64,
        _ => module.scale,
    };
    let one = commonest(&fitted.iter().map(said).collect::<Vec<_>>());
    for mut module in fitted.drain(..) {
        let mut folded = 1.0;
        if uniform(target, program) {
            folded = said(&module) / one;
            on_factors(&mut module.tensors, |down, up| fold(folded, down, up))?;
            module.scale = match target.names {
                Names::Gguf => one / module.rank as f64,
                _ => one,
            };
            module.alpha = module.alpha.filter(|_| folded == 1.0);
        }
        if target.names == Names::Gguf {
            reorder(&mut module, base)?;
        }
        all.reports.push(ModuleReport {
            from: module.from,
            to: module.name.clone(),
            factored: module.factored,
            folded,
            relative_error: 0.0,
        });
        let Fitted { name, rank, scale, alpha, tensors, .. } = module;
        all.modules.push(NewModule { name, rank, scale, alpha, tensors });
    }
    Ok(())
}

/// Hands a module's factors over to be changed.
fn on_factors(
    tensors: &mut [PartTensor],
    change: impl FnOnce(&mut Factor, &mut Factor) -> Result<()>,
) -> Result<()> {
    let place = |part: Part| tensors.iter().position(|tensor| tensor.0 == part);
    let pair = FACTORS.iter().find_map(|(down, up)| Some((place(*down)?, place(*up)?)));
    let Some((down_at, up_at)) = pair else { return Ok(()) };
    let factor = |at: usize| {
        let (_, dtype, shape, bytes) = tensors.get(at)?.clone();
        Some(Factor { dtype, shape, bytes })
    };
    let (Some(mut down), Some(mut up)) = (factor(down_at), factor(up_at)) else { return Ok(()) };
    change(&mut down, &mut up)?;
    for (at, factor) in [(down_at, down), (up_at, up)] {
        if let Some(tensor) = tensors.get_mut(at) {
            (tensor.1, tensor.2, tensor.3) = (factor.dtype, factor.shape, factor.bytes);
        }
    }
    Ok(())
}

/// Rows of B in llama.cpp's order.
fn reorder(module: &mut Fitted, base: Base) -> Result<()> {
    let (Some(architecture), Some(heads)) = (base.architecture, base.heads) else { return Ok(()) };
    let Some(heads) = architecture.permuted_heads(&module.name, heads) else { return Ok(()) };
    for (part, _, shape, bytes) in &mut module.tensors {
        if *part == Part::Up {
            let rows = shape.first().copied().unwrap_or(0);
            *bytes = gguf::reordered(bytes, rows, heads).ok_or_else(|| {
                let expected = format!("rows of {heads} heads of an even size");
                crate::Error::from(ErrorKind::BadShape { expected, found: shape.clone() })
                    .in_tensor(&module.from)
            })?;
        }
    }
    Ok(())
}

/// `target_modules` of the config that the adapter had, where the target has PEFT's config too.
pub(super) fn targets(adapter: &Adapter, target: &Convention) -> Option<Vec<String>> {
    let same = adapter.convention.name == target.name;
    let config = adapter.config.as_ref().filter(|_| same)?;
    let list = config.document.get("target_modules")?.as_array()?;
    list.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}

/// A bias that is added, all its values, times its coefficient.
pub(super) fn added_bias(adapter: &Adapter, module: &Module) -> Result<Option<Vec<f64>>> {
    let Some((tensor, coefficient)) = module.added_bias() else { return Ok(None) };
    let view = adapter.file.tensor(tensor).ok_or(ErrorKind::NotFound).in_tensor(tensor)?;
    let values = read_f64(view, 0, view.spec.elements())?;
    Ok(Some(values.into_iter().map(|value| value * coefficient).collect()))
}
