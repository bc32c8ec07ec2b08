//! All that goes to the target: every module, its scale settled with the others', and what replaces the
//! base's.

use std::collections::BTreeSet;

use super::base_facts::BaseFacts;
use super::fold::{Factor, commonest, fold, pad};
use super::goal::{FittedModule, Goal, ModuleReport};
use super::module::ModuleConversion;
use super::owners::Owners;
use super::rows::assemble;
use super::stored::FACTORS;
use crate::adapter::Adapter;
use crate::adapter::convention::{Names, Part, ScalePlace, reordered};
use crate::adapter::layout::{Layout, MadeOf, Target};
use crate::adapter::module::Replaces;
use crate::adapter::save::{NewModule, NewReplacement, PartTensor};
use crate::error::{ErrorKind, Locate, Result};

/// Everything that goes to the target.
#[derive(Debug, Default)]
pub(super) struct Fit {
    pub(super) modules: Vec<NewModule>,
    pub(super) reports: Vec<ModuleReport>,
    /// What each of the modules is made of.
    pub(super) sources: Vec<MadeOf>,
    pub(super) replacements: Vec<NewReplacement>,
    pub(super) lost: Vec<String>,
}

pub(super) fn all(
    adapter: &Adapter,
    goal: Goal<'_>,
    layout: &Layout,
    base: &BaseFacts,
) -> Result<Fit> {
    let mut all = Fit::default();
    let mut fitted = Vec::new();
    let sound: Vec<&Target> = layout.modules.iter().flatten().collect();
    let owners = Owners::new(adapter, &sound).in_file(&adapter.path)?;
    let module = |at: usize| adapter.modules.get(at).ok_or(ErrorKind::NotFound);
    for target in &layout.modules {
        let Target { name, source } = match target {
            Ok(target) => target,
            Err((at, error)) => {
                all.lost.push(format!("{}: {error}", module(*at)?.name));
                continue;
            }
        };
        let lost = &mut all.lost;
        let conversion = match source {
            MadeOf::Whole(at) => {
                let module = module(*at)?;
                ModuleConversion { adapter, module, name, goal }.fit(lost).in_tensor(&module.name)
            }
            MadeOf::Rows { pieces, total } => {
                assemble(adapter, goal, name, (pieces, *total), &owners, lost).in_tensor(name)
            }
        };
        if let Some(module) = conversion.in_file(&adapter.path)? {
            fitted.push(module);
            all.sources.push(source.clone());
        }
    }
    evenly_decomposed(&mut fitted, goal, &mut all.lost);
    settle(&mut fitted, goal, base, &mut all)?;
    replacements(adapter, goal, &layout.replacements, &mut all)?;
    Ok(all)
}

/// What replaces the base's goes where the target has a name for it.
fn replacements(
    adapter: &Adapter,
    goal: Goal<'_>,
    names: &[Result<String>],
    all: &mut Fit,
) -> Result<()> {
    for (replacement, name) in adapter.replacements.iter().zip(names) {
        let part = match replacement.replaces {
            Replaces::Weight => Part::Weight,
            Replaces::Bias => Part::Bias,
            Replaces::Rows(_) => Part::TokenRows,
        };
        let spelled = name.as_ref().ok().filter(|name| goal.spells(name, part));
        let Some(name) = spelled else {
            all.lost.push(format!("{}, which replaces the base's", replacement.label()));
            continue;
        };
        let view = adapter.file.tensor(&replacement.tensor).ok_or(ErrorKind::NotFound)?;
        let mut scratch = Vec::new();
        all.replacements.push(NewReplacement {
            module: name.clone(),
            replaces: replacement.replaces.clone(),
            dtype: view.spec.dtype,
            shape: view.spec.shape.clone(),
            bytes: view.all(&mut scratch)?.to_vec(),
        });
    }
    Ok(())
}

/// Where a config says for all modules of a model whether they have magnitudes, all have them or none.
fn evenly_decomposed(fitted: &mut [FittedModule], goal: Goal<'_>, lost: &mut Vec<String>) {
    if goal.target.scale == ScalePlace::Tensor {
        return;
    }
    let model = |name: &str| match goal.target.names {
        Names::Component => name.split('.').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let has =
        |module: &FittedModule| module.tensors.iter().any(|tensor| tensor.0 == Part::Magnitude);
    let plain: BTreeSet<String> =
        fitted.iter().filter(|module| !has(module)).map(|module| model(&module.name)).collect();
    let uneven =
        fitted.iter_mut().filter(|module| has(module) && plain.contains(&model(&module.name)));
    for module in uneven {
        module.tensors.retain(|tensor| tensor.0 != Part::Magnitude);
        let from = module.from.join(", ");
        lost.push(format!("{from}: its magnitudes (DoRA), which all modules have to have"));
    }
}

/// Gives every module the scale that the target can say, and puts the rest into its factors.
fn settle(
    fitted: &mut Vec<FittedModule>,
    goal: Goal<'_>,
    base: &BaseFacts,
    all: &mut Fit,
) -> Result<()> {
    let Goal { target, program, .. } = goal;
    let highest = fitted.iter().map(|module| module.rank).max().unwrap_or(1);
    let padded = program.is_some_and(|takes| takes.uniform) && target.names != Names::Gguf;
    if padded {
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
    let stated = |module: &FittedModule| match target.names {
        Names::Gguf => module.scale * module.rank as f64,
        _ => module.scale,
    };
    let shared_scale = match program {
        Some(takes) if takes.scale_one => 1.0,
        _ => commonest(&fitted.iter().map(stated).collect::<Vec<_>>()),
    };
    for mut module in fitted.drain(..) {
        let mut folded = module.folded;
        if goal.has_one_scale() {
            let ratio = stated(&module) / shared_scale;
            on_factors(&mut module.tensors, |down, up| fold(ratio, down, up))?;
            folded *= ratio;
            module.scale = match target.names {
                Names::Gguf => shared_scale / module.rank as f64,
                _ => shared_scale,
            };
            module.alpha = module.alpha.filter(|_| ratio == 1.0);
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
        let FittedModule { name, rank, scale, alpha, tensors, .. } = module;
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
fn reorder(module: &mut FittedModule, base: &BaseFacts) -> Result<()> {
    let (Some(architecture), Some(heads)) = (base.architecture, base.heads) else { return Ok(()) };
    let Some(heads) = architecture.permuted_heads(&module.name, heads) else { return Ok(()) };
    for (part, _, shape, bytes) in &mut module.tensors {
        if *part == Part::Up {
            let rows = shape.first().copied().unwrap_or(0);
            *bytes = reordered(bytes, rows, heads).ok_or_else(|| {
                let expected = format!("rows of {heads} heads of an even size");
                crate::Error::from(ErrorKind::BadShape { expected, found: shape.clone() })
                    .in_tensor(&module.name)
            })?;
        }
    }
    Ok(())
}
