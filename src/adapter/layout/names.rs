//! Names and rows of the result, part by part of the model.

use std::collections::BTreeMap;

use super::atoms::{alone, join};
use super::fit::{Atom, Fit, fit, wanted};
use super::model_part::{ModelPart, parts, place};
use super::target::{Layout, MadeOf, Target, Wanted};
use crate::adapter::Adapter;
use crate::adapter::architecture::{Cut, Detected, ModuleShape, PRIOR, Rule, Side, fill};
use crate::adapter::convention::Names;
use crate::adapter::rename::Renamer;
use crate::adapter::scope::{PRIOR_ENCODER, Scope};
use crate::error::{ConvertError, Error, Locate, Result};
use crate::format::Checkpoint;

/// What is found, in order of the adapter's modules.
type Found = (usize, Wanted);

/// Names and rows of the result. Its errors are of what has no name, or does not divide as its layout
/// does. `places` has the base's tensor of each module, where a whole one is known.
///
/// # Errors
/// If one file would have to hold the adapters of several models and cannot.
pub fn of(
    adapter: &Adapter,
    renamer: &Renamer<'_>,
    reference: Option<&Checkpoint>,
    places: &[Option<String>],
) -> Result<Layout> {
    let mut parts = parts(adapter, reference);
    for detected in parts.iter_mut().filter_map(|part| part.detected.as_mut()) {
        detected.arrange(renamer.to.names == Names::Checkpoint);
    }
    let t5 = parts.iter().find_map(|part| part.detected.as_ref()?.t5);
    let numbered = t5.is_some() || parts.iter().any(|p| matches!(p.scope, Scope::TextEncoder(2..)));
    let prior = parts.iter().any(|p| p.detected.as_ref().is_some_and(|d| d.component == PRIOR))
        || adapter.modules.iter().any(|module| module.name.starts_with(PRIOR_ENCODER));
    let two_encoders = renamer.two_encoders || numbered;
    let renamer = Renamer { two_encoders, t5, prior, ..*renamer };
    if renamer.to.names == Names::Dotted {
        one_model(adapter, &parts)?;
    }
    let mut found: Vec<Found> = Vec::new();
    for part in &parts {
        found.extend(of_part(adapter, part, &renamer, places));
    }
    found.sort_by_key(|(at, _)| *at);
    let replaced = adapter.replacements.iter();
    let replacements =
        replaced.map(|stored| replacement(adapter, &stored.module, &parts, &renamer));
    Ok(Layout {
        replacements: replacements.collect(),
        modules: found.into_iter().map(|(_, target)| target).collect(),
    })
}

/// The name of a replacement's module.
fn replacement(
    adapter: &Adapter,
    name: &str,
    parts: &[ModelPart],
    renamer: &Renamer<'_>,
) -> Result<String> {
    let (scope, path) = place(adapter, name);
    let of_model = parts.iter().find(|part| part.scope == scope);
    let Some((part, detected)) = of_model.and_then(|part| Some((part, part.detected.as_ref()?)))
    else {
        return renamer.rename(name, None);
    };
    let body = ModuleShape { path, flat: !path.contains('.'), outputs: 0, inputs: 0 };
    let to = wanted(renamer, detected, scope);
    let fits =
        |rule: &&Rule| rule.cut == Cut::Whole && body.capture(rule.side(part.side)).is_some();
    let rule = detected.rules.iter().find(fits).ok_or_else(|| renamer.unknown())?;
    let found = body.capture(rule.side(part.side)).unwrap_or_default();
    let name = renamer.spell(scope, &fill(rule.side(to), &found), detected);
    name.ok_or_else(|| renamer.unknown())
}

/// PEFT and its like hold the adapter of one model.
fn one_model(adapter: &Adapter, parts: &[ModelPart]) -> Result<()> {
    if parts.len() <= 1 {
        return Ok(());
    }
    let model = |part: &ModelPart| match (part.scope, &part.detected) {
        (Scope::TextEncoder(0 | 1), _) => "text_encoder".to_owned(),
        (Scope::TextEncoder(number), _) => format!("text_encoder_{number}"),
        (_, Some(detected)) => detected.component.to_owned(),
        _ => "another".to_owned(),
    };
    let mut models: Vec<String> = parts.iter().map(model).collect();
    models.sort();
    let models = models.join(", ");
    Err(Error::from(ConvertError::SeveralModels { models })).in_file(&adapter.path)
}

fn of_part(
    adapter: &Adapter,
    part: &ModelPart,
    renamer: &Renamer<'_>,
    places: &[Option<String>],
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut joined: BTreeMap<String, Vec<Atom>> = BTreeMap::new();
    for &at in &part.modules {
        let Some(module) = adapter.modules.get(at) else { continue };
        let renamed = || {
            let place = places.get(at).and_then(Option::as_deref);
            renamer.rename(&module.name, place)
        };
        let fit = part.detected.as_ref().map(|detected| fit(adapter, part, detected, at, renamer));
        let spelled = |path: &str, detected: &Detected| {
            renamer.spell(part.scope, path, detected).ok_or_else(|| renamer.unknown())
        };
        match (fit, part.detected.as_ref()) {
            (Some(Ok(Some(Fit::Name(path)))), Some(detected)) => {
                let target = spelled(&path, detected)
                    .map(|name| Target { name, source: MadeOf::Whole(at) })
                    .map_err(|error| (at, error));
                found.push((at, target));
            }
            (Some(Ok(Some(Fit::Atoms(atoms)))), Some(detected)) => {
                if wanted(renamer, detected, part.scope) == Side::Published {
                    for atom in atoms {
                        joined.entry(atom.published.clone()).or_default().push(atom);
                    }
                    continue;
                }
                found.extend(atoms.into_iter().map(|atom| {
                    let target = spelled(&atom.split, detected).map_err(|error| (at, error));
                    (at, target.map(|name| Target { name, source: alone(atom) }))
                }));
            }
            (Some(Err(error)), _) => found.push((at, Err((at, error)))),
            _ => {
                let target = renamed().map_err(|error| (at, error));
                let source = MadeOf::Whole(at);
                found.push((at, target.map(|name| Target { name, source })));
            }
        }
    }
    for (path, atoms) in joined {
        let at = atoms.first().map_or(0, |atom| atom.module);
        let Some(detected) = &part.detected else { continue };
        let source = join(adapter, atoms).ok_or_else(|| renamer.indivisible());
        let name = renamer.spell(part.scope, &path, detected).ok_or_else(|| renamer.unknown());
        let target = source.and_then(|source| Ok(Target { name: name?, source }));
        found.push((at, target.map_err(|error| (at, error))));
    }
    found
}
