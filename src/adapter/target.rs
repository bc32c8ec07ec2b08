//! Where an adapter's modules and replacements land in a base, always found by matching against the
//! base's own names, never by un-flattening a name.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::catalogue::Catalogue;
use super::convention::Names;
use super::orientation::Orientations;
use super::place::Placement;
use super::resolve::{Resolved, Wanted, exact, nearest, resolve, unmatched};
pub(crate) use super::scope::flatten;
use super::scope::{Scope, readings, scope_of};
use crate::error::{Error, ErrorKind, FamilyError, Locate, Result, UnmatchedName};
use crate::format::{Checkpoint, Dtype};

/// The base tensors of an adapter's modules and replacements.
#[derive(Debug, Clone)]
pub struct Targets {
    /// For each of [`Adapter::modules`], where in the base it lies; nowhere if there is none.
    pub modules: Vec<Vec<Placement>>,
    /// For each of [`Adapter::replacements`], the base's tensor.
    pub replacements: Vec<Option<String>>,
    /// Those without a place.
    pub unmatched: Vec<UnmatchedName>,
}

/// Finds the base tensor of every module and replacement.
///
/// `tied_head` is a name that counts as the base's though only its tied twin is stored.
///
/// # Errors
/// If a name fits in several ways, its tensor is stored quantised under other names, or it means a
/// part of a tensor that the module does not fit.
pub fn find(adapter: &Adapter, base: &Checkpoint, tied_head: Option<&str>) -> Result<Targets> {
    let names: BTreeSet<&str> = base.names().chain(tied_head).collect();
    let flattened = adapter.convention.names != Names::Dotted;
    let wanted: Vec<Wanted> = wanted(adapter);
    let mut resolved = by_names(adapter, &wanted, base, &names)?;
    let mut catalogue = Catalogue::default();
    if !resolved.complete() {
        catalogue = Catalogue::new(base);
        resolved = by_other_layouts(adapter, &wanted, (base, &names), &catalogue, resolved)?;
    }
    refuse_packed(&wanted, &resolved, base)?;
    let missing = if flattened {
        flat_unmatched(adapter, &resolved, &names)
    } else {
        unmatched(&wanted, &resolved, &names)
    };
    let mut found = resolved.names.into_iter();
    let modules = adapter.modules.iter().zip(found.by_ref()).map(|(module, name)| match name {
        None => Ok(Vec::new()),
        Some(name) => catalogue
            .places(&name, module, base)
            .map_err(|error| error.in_tensor(&module.name).in_file(&adapter.path)),
    });
    let mut modules: Vec<Vec<Placement>> = modules.collect::<Result<_>>()?;
    Orientations::of(base, &adapter.orientation)?.settle(adapter, base, &mut modules);
    let replacements = found.zip(&adapter.replacements).map(|(name, replacement)| {
        let Some(name) = name else { return Ok(None) };
        let whole = catalogue.whole(&name).ok_or(FamilyError::Part { family: "whole-tensor" });
        whole.map(Some).in_tensor(&replacement.label()).in_file(&adapter.path)
    });
    Ok(Targets { modules, replacements: replacements.collect::<Result<_>>()?, unmatched: missing })
}

/// Resolves with the base's own names. Those of a pipeline or of kohya's kind say which part of the model
/// they are of, and go there before any rewriting is tried.
fn by_names(
    adapter: &Adapter,
    wanted: &[Wanted],
    base: &Checkpoint,
    names: &BTreeSet<&str>,
) -> Result<Resolved> {
    let mut found = exact(wanted, names);
    if adapter.convention.names != Names::Dotted && !found.complete() {
        found = found.or(by_flat_names(adapter, base, names)?);
    }
    if found.complete() { Ok(found) } else { Ok(found.or(resolve(wanted, names)?)) }
}

/// Resolves with the names that the base's tensors have in other layouts too, if that finds more.
fn by_other_layouts(
    adapter: &Adapter,
    wanted: &[Wanted],
    (base, names): (&Checkpoint, &BTreeSet<&str>),
    catalogue: &Catalogue,
    plain: Resolved,
) -> Result<Resolved> {
    let own = names.iter().copied();
    let names: BTreeSet<&str> = match adapter.convention.names {
        Names::Dotted => own.chain(catalogue.names()).collect(),
        _ => own.chain(catalogue.names_apart()).collect(),
    };
    let named = by_names(adapter, wanted, base, &names);
    if let Ok(found) = &named
        && found.complete()
    {
        return named;
    }
    let scoped = by_flat_names(adapter, base, &names)?;
    if scoped.complete() {
        return Ok(scoped);
    }
    Ok(plain.or(named?).or(scoped))
}

fn wanted(adapter: &Adapter) -> Vec<Wanted> {
    let modules = adapter.modules.iter().map(|module| Wanted {
        label: module.name.clone(),
        stored: vec![format!("{}.weight", module.name), module.name.clone()],
    });
    let replacements = adapter.replacements.iter().map(|replacement| Wanted {
        label: replacement.label(),
        stored: vec![replacement.label()],
    });
    modules.chain(replacements).collect()
}

/// Weights that are stored packed have no `.weight` at all: say what they are instead of "unmatched".
fn refuse_packed(wanted: &[Wanted], resolved: &Resolved, base: &Checkpoint) -> Result<()> {
    const PACKED: [(&str, &str); 4] = [
        (".qweight", "GPTQ or AWQ"),
        (".weight_packed", "compressed-tensors"),
        ("_blocks", "MXFP4"),
        (".weight.absmax", "bitsandbytes"),
    ];
    for (wanted, name) in wanted.iter().zip(&resolved.names) {
        if name.is_some() {
            continue;
        }
        for (ending, scheme) in PACKED {
            // The module's last two parts are enough to see that it is stored that way.
            let parts: Vec<&str> = wanted.label.split('.').rev().take(2).collect();
            let tail: Vec<&str> = parts.into_iter().rev().collect();
            let tail = format!("{}{ending}", tail.join("."));
            if let Some(packed) = base.names().find(|name| name.ends_with(&tail)) {
                let (base_tensor, scheme) = (packed.to_owned(), scheme.to_owned());
                return Err(ErrorKind::Quantised { base_tensor, scheme }).in_tensor(&wanted.label);
            }
        }
    }
    Ok(())
}

/// How a base tensor is quantised, if it is; by its dtype and its companions.
pub fn quantisation(base: &Checkpoint, name: &str) -> Option<String> {
    let view = base.tensor(name)?;
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let has = |ending: &str| base.tensor(&format!("{module}{ending}")).is_some();
    let scaled = [".weight_scale", ".weight_scale_inv", ".scale_weight", ".scales", ".SCB"]
        .iter()
        .find(|ending| has(ending));
    let dtype = view.spec.dtype;
    let scheme = match (dtype, scaled) {
        (Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64, _) => return None,
        (Dtype::U8, _) if has(".weight.absmax") => "bitsandbytes 4-bit".to_owned(),
        (_, Some(scale)) => format!("{dtype} with `{}`", scale.trim_start_matches('.')),
        (Dtype::F8_E4M3 | Dtype::F8_E5M2, None) => format!("{dtype}"),
        (Dtype::U8 | Dtype::I8 | Dtype::I32 | Dtype::U32, None) => format!("packed in {dtype}"),
        _ => return None,
    };
    Some(scheme)
}

/// A base module's name as kohya flattens it, with the prefix of the part of a model it belongs to.
/// `several` says whether text encoders are numbered.
pub fn flat_module(name: &str, several: bool) -> String {
    let (scope, below) = scope_of(name);
    let prefix = match scope {
        Scope::TextEncoder(number) if several => format!("lora_te{number}_"),
        Scope::TextEncoder(_) => "lora_te_".to_owned(),
        Scope::Any if below.starts_with("text_model.") => "lora_te_".to_owned(),
        Scope::Any | Scope::Denoiser | Scope::Connectors => "lora_unet_".to_owned(),
    };
    format!("{prefix}{}", flatten(below))
}

/// (scope, flattened name) → base names that flatten to it.
type FlatNames<'a> = BTreeMap<(Scope, String), BTreeSet<&'a str>>;

fn flat_names<'a>(names: &BTreeSet<&'a str>) -> FlatNames<'a> {
    let mut flat = FlatNames::new();
    for &name in names.iter().filter(|name| !name.ends_with(".bias")) {
        let (scope, below) = scope_of(name);
        flat.entry((scope, flatten(below))).or_default().insert(name);
        if scope != Scope::Any {
            flat.entry((Scope::Any, flatten(below))).or_default().insert(name);
        }
    }
    flat
}

/// Resolves each name by flattening the base's, below the root that its prefix means.
fn by_flat_names(adapter: &Adapter, base: &Checkpoint, names: &BTreeSet<&str>) -> Result<Resolved> {
    let flat = flat_names(names);
    let look_up = |name: &str| -> Result<Option<String>> {
        let found = readings(name).into_iter().find_map(|(scope, below)| {
            // A checkpoint without known roots holds one part only, whichever it is.
            flat.get(&(scope, flatten(&below))).or_else(|| {
                flat.get(&(Scope::Any, flatten(&below)))
                    .filter(|found| found.iter().all(|name| scope_of(name).0 == Scope::Any))
            })
        });
        let Some(found) = found else { return Ok(None) };
        let mut found = found.iter();
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => {
                let (first, second) = ((*first).to_owned(), (*second).to_owned());
                Err(Error::from(ErrorKind::FlatCollision { first, second })
                    .in_tensor(name)
                    .in_file(&base.path))
            }
            (only, _) => Ok(only.map(|only| (*only).to_owned())),
        }
    };
    let modules = adapter.modules.iter().map(|module| look_up(&module.name));
    let replacements = adapter.replacements.iter().map(|replacement| look_up(&replacement.module));
    let found = modules.chain(replacements).collect::<Result<_>>()?;
    Ok(Resolved { names: found })
}

fn flat_unmatched(
    adapter: &Adapter,
    resolved: &Resolved,
    names: &BTreeSet<&str>,
) -> Vec<UnmatchedName> {
    let labels = adapter.modules.iter().map(|module| module.name.as_str());
    let replaced = adapter.replacements.iter().map(|replacement| replacement.module.as_str());
    labels
        .chain(replaced)
        .zip(&resolved.names)
        .filter(|(_, found)| found.is_none())
        .enumerate()
        .map(|(at, (label, _))| UnmatchedName {
            name: label.to_owned(),
            nearest: if at < 16 { nearest(&format!("{label}.weight"), names) } else { Vec::new() },
        })
        .collect()
}
