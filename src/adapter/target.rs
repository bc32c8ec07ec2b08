//! Where an adapter's modules and replacements land in a base, always found by matching against the
//! base's own names, never by un-flattening a name.

use std::collections::{BTreeMap, BTreeSet};

use super::Adapter;
use super::convention::Names;
use super::place::Placement;
use super::resolve::{Resolved, Wanted, nearest, resolve, unmatched};
use crate::error::{Error, ErrorKind, Locate, Result, UnmatchedName};
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
/// If a name fits in several ways, or its tensor is stored quantised under other names.
pub fn find(adapter: &Adapter, base: &Checkpoint, tied_head: Option<&str>) -> Result<Targets> {
    let names: BTreeSet<&str> = base.names().chain(tied_head).collect();
    let flattened = adapter.convention.names != Names::Dotted;
    let wanted: Vec<Wanted> = wanted(adapter);
    let resolved = if flattened {
        by_flat_names(adapter, &wanted, base, &names)?
    } else {
        resolve(&wanted, &names)?
    };
    refuse_packed(&wanted, &resolved, base)?;
    let missing = if flattened {
        flat_unmatched(adapter, &resolved, &names)
    } else {
        unmatched(&wanted, &resolved, &names)
    };
    let mut names = resolved.names.into_iter();
    let modules = names.by_ref().take(adapter.modules.len());
    let modules = modules.map(|name| name.iter().map(|name| Placement::whole(name)).collect());
    let modules = modules.collect();
    Ok(Targets { modules, replacements: names.collect(), unmatched: missing })
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

/// Prefixes of flattened names, and the part of a model they belong to. `lycoris_` and bare names
/// may belong to any.
const SCOPES: [(&str, Scope); 9] = [
    ("lora_unet_", Scope::Denoiser),
    ("lora_prior_unet_", Scope::Denoiser),
    ("lora_transformer_", Scope::Denoiser),
    ("oft_unet_", Scope::Denoiser),
    ("lora_te1_", Scope::TextEncoder(1)),
    ("lora_te2_", Scope::TextEncoder(2)),
    ("lora_te3_", Scope::TextEncoder(3)),
    ("lora_te_", Scope::TextEncoder(1)),
    ("lycoris_", Scope::Any),
];

/// Roots of known single-file checkpoints and pipeline components, and what stands below them.
const ROOTS: [(&str, Scope); 13] = [
    ("model.diffusion_model.", Scope::Denoiser),
    ("diffusion_model.", Scope::Denoiser),
    ("unet/", Scope::Denoiser),
    ("transformer/", Scope::Denoiser),
    ("prior/", Scope::Denoiser),
    ("cond_stage_model.transformer.", Scope::TextEncoder(1)),
    ("conditioner.embedders.0.transformer.", Scope::TextEncoder(1)),
    ("text_encoders.clip_l.transformer.", Scope::TextEncoder(1)),
    ("text_encoders.clip_g.transformer.", Scope::TextEncoder(2)),
    ("text_encoders.t5xxl.transformer.", Scope::TextEncoder(3)),
    ("text_encoder/", Scope::TextEncoder(1)),
    ("text_encoder_2/", Scope::TextEncoder(2)),
    ("text_encoder_3/", Scope::TextEncoder(3)),
];

/// A part of a diffusion model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Any,
    Denoiser,
    TextEncoder(u8),
}

/// A name as kohya flattens it: dots and slashes to underscores, without `.weight`.
pub(crate) fn flatten(name: &str) -> String {
    name.strip_suffix(".weight").unwrap_or(name).replace(['.', '/'], "_")
}

/// A flattened name without the prefix that says which part of a model it belongs to.
pub(crate) fn bare_name(name: &str) -> &str {
    SCOPES.iter().find_map(|(prefix, _)| name.strip_prefix(prefix)).unwrap_or(name)
}

/// A base module's name as kohya flattens it, with the prefix of the part of a model it belongs to.
/// `several` says whether text encoders are numbered.
pub fn flat_module(name: &str, several: bool) -> String {
    let root = ROOTS.iter().find_map(|(root, scope)| Some((name.strip_prefix(root)?, *scope)));
    let (below, scope) = root.unwrap_or((name, Scope::Any));
    let prefix = match scope {
        Scope::TextEncoder(number) if several => format!("lora_te{number}_"),
        Scope::TextEncoder(_) => "lora_te_".to_owned(),
        Scope::Any if below.starts_with("text_model.") => "lora_te_".to_owned(),
        Scope::Any | Scope::Denoiser => "lora_unet_".to_owned(),
    };
    format!("{prefix}{}", flatten(below))
}

/// (scope, flattened name) → base names that flatten to it.
type FlatNames<'a> = BTreeMap<(Scope, String), BTreeSet<&'a str>>;

fn flat_names<'a>(names: &BTreeSet<&'a str>) -> FlatNames<'a> {
    let mut flat = FlatNames::new();
    for &name in names.iter().filter(|name| !name.ends_with(".bias")) {
        let root = ROOTS.iter().find_map(|(root, scope)| Some((name.strip_prefix(root)?, *scope)));
        let (below, scope) = root.unwrap_or((name, Scope::Any));
        flat.entry((scope, flatten(below))).or_default().insert(name);
        if scope != Scope::Any {
            flat.entry((Scope::Any, flatten(below))).or_default().insert(name);
        }
    }
    flat
}

/// Resolves each name by flattening the base's; names that kept their dots may also fit as they are.
fn by_flat_names(
    adapter: &Adapter,
    wanted: &[Wanted],
    base: &Checkpoint,
    names: &BTreeSet<&str>,
) -> Result<Resolved> {
    let dotted = resolve(wanted, names)?;
    if dotted.names.iter().all(Option::is_some) {
        return Ok(dotted);
    }
    let flat = flat_names(names);
    let look_up = |name: &str| -> Result<Option<String>> {
        let scoped =
            SCOPES.iter().find_map(|(prefix, scope)| Some((name.strip_prefix(prefix)?, *scope)));
        let (bare, scope) = scoped.unwrap_or((name, Scope::Any));
        // A checkpoint without known roots holds one part only, whichever it is.
        let found = flat.get(&(scope, flatten(bare))).or_else(|| {
            flat.get(&(Scope::Any, flatten(bare))).filter(|found| {
                found.iter().all(|name| !ROOTS.iter().any(|(root, _)| name.starts_with(root)))
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
