//! Where an adapter's modules and replacements land in a base, always found by matching against the
//! base's own names, never by un-flattening a name.

use std::collections::BTreeSet;

use super::catalogue::Catalogue;
use super::convention::Names;
use super::module::{Kind, Module, Replacement, Replaces};
use super::orientation::Orientations;
use super::place::Placement;
use super::resolve::{Fits, Resolved, Wanted, exact, resolve, unmatched};
pub(crate) use super::scope::flatten;
use super::scope::{FLAT_CONNECTORS, Scope, scope_of};
use super::{Adapter, flat, gguf_base};
use crate::error::{ErrorKind, FamilyError, Locate, Result, UnmatchedName};
use crate::format::Checkpoint;

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
    let wanted: Vec<Wanted> = wanted(adapter);
    let look = Look { adapter, base, wanted: &wanted };
    let mut catalogue = Catalogue::default();
    let mut resolved = look.by_names(&names, &catalogue)?;
    if !resolved.complete() {
        catalogue = Catalogue::new(base, adapter.stacks.keys().map(String::as_str));
        resolved = look.by_other_layouts(&catalogue, &names, resolved)?;
    }
    if !resolved.complete() {
        refuse_packed(&wanted, &resolved, base)?;
    }
    let mut missing = if adapter.convention.names == Names::Dotted {
        unmatched(&wanted, &resolved, &names)
    } else {
        flat::unmatched(adapter, &resolved, &names)
    };
    let unknown = adapter.unknown.iter();
    missing.extend(unknown.map(|name| UnmatchedName { name: name.clone(), nearest: Vec::new() }));
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

/// What is looked for, and where.
struct Look<'a> {
    adapter: &'a Adapter,
    base: &'a Checkpoint,
    wanted: &'a [Wanted],
}

impl Look<'_> {
    /// Resolves with the base's own names. Those of a pipeline or of kohya's kind say which part of the
    /// model they are of, and go there before any rewriting is tried.
    fn by_names(&self, names: &BTreeSet<&str>, catalogue: &Catalogue) -> Result<Resolved> {
        let fits = |at: usize, name: &str| self.fits(at, name, catalogue);
        let fits: Fits<'_> = &fits;
        let mut found = exact(self.wanted, names);
        // Some writers of PEFT's directories keep names without dots too.
        let flat = self.adapter.convention.names != Names::Dotted
            || self.adapter.modules.iter().any(|module| !module.name.contains('.'));
        if flat && !found.complete() {
            found = found.or(flat::resolve(self.adapter, self.base, names, fits)?);
        }
        if found.complete() {
            return Ok(found);
        }
        Ok(found.or(resolve(self.wanted, names, fits)?))
    }

    /// Resolves with the names that the base's tensors have in other layouts too, if that finds more.
    fn by_other_layouts(
        &self,
        catalogue: &Catalogue,
        names: &BTreeSet<&str>,
        plain: Resolved,
    ) -> Result<Resolved> {
        let base_names = names.iter().copied();
        let names: BTreeSet<&str> = match self.adapter.convention.names {
            Names::Dotted => base_names.chain(catalogue.names()).collect(),
            _ => base_names.chain(catalogue.names_apart()).collect(),
        };
        let named = self.by_names(&names, catalogue);
        if let Ok(found) = &named
            && found.complete()
        {
            return named;
        }
        let fits = |at: usize, name: &str| self.fits(at, name, catalogue);
        let scoped = flat::resolve(self.adapter, self.base, &names, &fits)?;
        if scoped.complete() {
            return Ok(scoped);
        }
        Ok(plain.or(named?).or(scoped))
    }

    /// Whether what is wanted may be the tensor that a name stands for: by their shapes, as far as both
    /// are known. A part of a tensor is for its rule to measure.
    fn fits(&self, at: usize, name: &str, catalogue: &Catalogue) -> bool {
        let tensor = catalogue.whole(name).and_then(|name| self.base.tensor(&name));
        let Some(shape) = tensor.map(|view| view.spec.shape.as_slice()) else { return true };
        let modules = &self.adapter.modules;
        match (modules.get(at), self.adapter.replacements.get(at.wrapping_sub(modules.len()))) {
            (Some(module), _) => may_be(module, shape),
            (None, Some(replacement)) => self.may_replace(replacement, shape),
            (None, None) => true,
        }
    }

    fn may_replace(&self, replacement: &Replacement, shape: &[usize]) -> bool {
        let view = self.adapter.file.tensor(&replacement.tensor);
        let Some(values) = view.map(|view| view.spec.shape.as_slice()) else { return true };
        match replacement.replaces {
            // A vocabulary may have grown.
            Replaces::Rows(_) | Replaces::Weight => values.get(1..) == shape.get(1..),
            Replaces::Bias => values == shape,
        }
    }
}

/// Whether a module may be of a weight of this shape, either way round.
fn may_be(module: &Module, shape: &[usize]) -> bool {
    let is = |known: usize, size: usize| known == 0 || known == size;
    match (&module.kind, shape) {
        (Kind::Whole(whole), _) => whole == shape,
        (Kind::Linear | Kind::Embedding, [rows, columns]) => {
            let (outputs, inputs) = (module.outputs, module.inputs);
            is(outputs, *rows) && is(inputs, *columns) || is(outputs, *columns) && is(inputs, *rows)
        }
        (_, [rows, ..]) => is(module.outputs, *rows),
        (_, []) => false,
    }
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

/// What is to be said of a base whose layers are wrapped, with adapters inside: what is merged into a layer
/// would act beside those.
pub(crate) fn wrapped(base: &Checkpoint) -> Option<String> {
    let layer = base.names().find(|name| name.ends_with(".base_layer.weight"))?;
    let module = layer.strip_suffix("base_layer.weight").unwrap_or(layer);
    let inside = base
        .names()
        .find(|name| name.strip_prefix(module).is_some_and(|rest| rest.starts_with("lora_")));
    let inside = inside.map(|name| format!(" and holds adapters inside, such as `{name}`"));
    Some(format!(
        "the base's layers are wrapped (`{layer}`){}: what is merged into a `base_layer` would act beside \
         those. Save the model without them (PEFT's `unload()`), or merge with the library that made it",
        inside.unwrap_or_default()
    ))
}

/// What is to be said of a base in GGUF whose architecture has no table of transformers' names.
pub(crate) fn nameless(base: &Checkpoint) -> Option<String> {
    let architecture = gguf_base::unknown_architecture(base)?;
    Some(format!(
        "the base is a GGUF file of the architecture `{architecture}`, whose names in transformers are not known \
         here: merge into the safetensors checkpoint that it was made of, or give an adapter with the file's own names"
    ))
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

/// A base module's name as kohya flattens it, with the prefix of the part of a model it belongs to.
/// `several` says whether text encoders are numbered.
pub fn flat_module(name: &str, several: bool) -> String {
    let (scope, below) = scope_of(name);
    let prefix = match scope {
        Scope::TextEncoder(number) if several => format!("lora_te{number}_"),
        Scope::TextEncoder(_) => "lora_te_".to_owned(),
        Scope::Any if below.starts_with("text_model.") => "lora_te_".to_owned(),
        Scope::Conditioner => "lora_unet_llm_adapter_".to_owned(),
        Scope::Connectors => FLAT_CONNECTORS.to_owned(),
        Scope::Any | Scope::Denoiser => "lora_unet_".to_owned(),
    };
    format!("{prefix}{}", flatten(below))
}
