//! The parts of a model that an adapter's modules are of, and which architecture's layout each has.

use std::collections::{BTreeMap, BTreeSet};

use crate::adapter::Adapter;
use crate::adapter::architecture::{
    ARCHITECTURES, Architecture, Detected, Evidence, ModuleShape, Side,
};
use crate::adapter::convention::Names;
use crate::adapter::scope::{Scope, located, scope_of};
use crate::format::Checkpoint;

/// The modules of the adapter that belong to one part of the model.
pub(super) struct ModelPart {
    pub(super) scope: Scope,
    pub(super) modules: Vec<usize>,
    pub(super) detected: Option<Detected>,
    /// The layout that most names are of.
    pub(super) side: Side,
}

/// Whether a layout of the adapter's model is known.
pub fn is_known(adapter: &Adapter) -> bool {
    parts(adapter, None).iter().any(|part| part.detected.is_some())
}

/// Which architectures the modules tell they are of, by the names of their files in `architecture/`.
pub fn architectures(adapter: &Adapter) -> BTreeSet<&'static str> {
    let detected = |part: &ModelPart| {
        let bodies = part.modules.iter().filter_map(|&at| body(adapter, at));
        let bodies: Vec<ModuleShape<'_>> = bodies.collect();
        let of = |known: &&&Architecture| (known.detect)(&Evidence(&bodies)).is_some();
        part.detected.as_ref().and_then(|_| ARCHITECTURES.iter().find(of)).map(|known| known.name)
    };
    parts(adapter, None).iter().filter_map(detected).collect()
}

/// How many modules are of each part of the model: `denoiser`, `te1`, `te2`, `te3`, `connectors`, or `model` where
/// their names say no part.
pub fn counts(adapter: &Adapter) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for module in &adapter.modules {
        let part = match place(adapter, &module.name).0 {
            Scope::Any => "model",
            Scope::Denoiser => "denoiser",
            Scope::Connectors => "connectors",
            Scope::Conditioner => "conditioner",
            Scope::TextEncoder(1) => "te1",
            Scope::TextEncoder(2) => "te2",
            Scope::TextEncoder(_) => "te3",
        };
        *counts.entry(part).or_default() += 1;
    }
    counts
}

/// Modules whose names are of one of their model's two layouts alone: the published one, or diffusers'.
pub fn of_one_layout(adapter: &Adapter, published: bool) -> BTreeSet<&str> {
    let (side, other_side) = match published {
        true => (Side::Published, Side::Split),
        false => (Side::Split, Side::Published),
    };
    let mut found = BTreeSet::new();
    for part in parts(adapter, None) {
        let Some(detected) = &part.detected else { continue };
        let fits = |body: &ModuleShape<'_>, side| {
            detected.all().any(|rule| body.capture(rule.side(side)).is_some())
        };
        let alone = part.modules.iter().filter(|at| {
            body(adapter, **at).is_some_and(|body| fits(&body, side) && !fits(&body, other_side))
        });
        found.extend(alone.filter_map(|at| Some(adapter.modules.get(*at)?.name.as_str())));
    }
    found
}

/// Sorts the modules by the part of a model they are of, and finds each part's layouts.
pub(super) fn parts(adapter: &Adapter, reference: Option<&Checkpoint>) -> Vec<ModelPart> {
    let mut modules: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
    for (at, module) in adapter.modules.iter().enumerate() {
        modules.entry(place(adapter, &module.name).0).or_default().push(at);
    }
    let part = |(scope, modules): (Scope, Vec<usize>)| {
        let bodies: Vec<ModuleShape<'_>> =
            modules.iter().filter_map(|&at| body(adapter, at)).collect();
        let fits = |detected: &Detected, side| {
            let matching = |body: &&ModuleShape<'_>| {
                detected.all().any(|rule| body.capture(rule.side(side)).is_some())
            };
            bodies.iter().filter(matching).count()
        };
        let counts =
            |detected: &Detected| (fits(detected, Side::Split), fits(detected, Side::Published));
        let base = reference.and_then(|base| told_by_base(base, scope));
        let detected = base.or_else(|| detect(&Evidence(&bodies)));
        let counted = detected.map(|detected| (counts(&detected), detected));
        // Whose model it is nobody says, all of its names have to.
        let counted = counted.filter(|(_, detected)| {
            let known = |body: &ModuleShape<'_>| {
                detected.all().any(|rule| {
                    [Side::Split, Side::Published]
                        .iter()
                        .any(|side| body.capture(rule.side(*side)).is_some())
                })
            };
            scope != Scope::Any || bodies.iter().all(known)
        });
        let side = counted.as_ref().map_or(Side::Split, |((split, published), _)| {
            if published > split { Side::Published } else { Side::Split }
        });
        let detected = counted.map(|(_, detected)| detected);
        ModelPart { scope, modules, detected, side }
    };
    modules.into_iter().map(part).collect()
}

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    ARCHITECTURES.iter().find_map(|known| (known.detect)(seen))
}

/// What a base says of the part of it.
fn told_by_base(base: &Checkpoint, scope: Scope) -> Option<Detected> {
    let of = |wanted: Scope| -> Vec<ModuleShape<'_>> {
        let names = base.names().filter(|name| scope_of(name).0 == wanted);
        names
            .filter_map(|name| {
                let below = scope_of(name).1;
                ModuleShape::stored(base, name, below.strip_suffix(".weight").unwrap_or(below))
            })
            .collect()
    };
    let rooted = of(scope);
    let encoder = matches!(scope, Scope::TextEncoder(_));
    let encoder = encoder || [Scope::Connectors, Scope::Conditioner].contains(&scope);
    let bodies = if rooted.is_empty() && !encoder { of(Scope::Any) } else { rooted };
    detect(&Evidence(&bodies))
}

/// The part of a model that a module is of, and its name there.
pub(super) fn place<'a>(adapter: &Adapter, name: &'a str) -> (Scope, &'a str) {
    match adapter.convention.names {
        // Roots of language models may look like a component's.
        Names::Dotted | Names::Gguf => (Scope::Any, name),
        _ => located(name),
    }
}

pub(super) fn body(adapter: &Adapter, at: usize) -> Option<ModuleShape<'_>> {
    let module = adapter.modules.get(at)?;
    let path = place(adapter, &module.name).1;
    // Of a bias alone only its own length is known.
    let length = module.bias.as_ref().map_or(0, |bias| bias.length);
    let outputs = if module.outputs == 0 { length } else { module.outputs };
    Some(ModuleShape { path, flat: !path.contains('.'), outputs, inputs: module.inputs })
}
