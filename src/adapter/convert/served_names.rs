//! The base's own names and rows, for programs that know no others.

use std::collections::BTreeMap;

use super::served::{Served, expert_of};
use crate::adapter::layout::{Layout, MadeOf, Piece, Target, Wanted};
use crate::adapter::module::Module;
use crate::adapter::place::Placement;
use crate::adapter::{Adapter, target};
use crate::error::{ConvertError, Error, ErrorKind, Locate, Result};
use crate::format::Checkpoint;
use crate::weight::root::Root;
use crate::weight::tied;

/// Gives modules the names, the program's place for a wrapped language model, and where the base has projections fused or divided otherwise also the
/// rows, of the base's tensors.
///
/// # Errors
/// Modules whose update has another shape than the base's weight.
pub(super) fn names(served: &Served<'_>, layout: &mut Layout) -> Result<()> {
    base_names(served, layout)?;
    if let Some(root) = served.takes.wrapped.filter(|_| served.wraps && served.dotted) {
        for target in layout.modules.iter_mut().flatten() {
            let moves = !served.takes.base_names || Root::is_bare(&target.name);
            let moved = root.of(&target.name).filter(|_| moves);
            target.name = moved.unwrap_or_else(|| target.name.clone());
        }
    }
    Ok(())
}

fn base_names(served: &Served<'_>, layout: &mut Layout) -> Result<()> {
    let Some(base) = served.reference.as_ref().filter(|_| served.takes.base_names && served.dotted)
    else {
        return Ok(());
    };
    let found = match target::find(
        served.adapter,
        base,
        tied::find(base)?.map(|tied| tied.head).as_deref(),
    ) {
        Ok(found) => found,
        // Servers have the plain names of a quantised base.
        Err(error) if matches!(error.kind(), ErrorKind::Quantised { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for (name, place) in layout.replacements.iter_mut().zip(&found.replacements) {
        if let Some(tensor) = place {
            let stem = tensor.strip_suffix(".bias").unwrap_or_else(|| stem(tensor));
            *name = Ok(stem.to_owned());
        }
    }
    let found = found.modules;
    let mut joined: BTreeMap<String, (usize, Vec<Piece>)> = BTreeMap::new();
    let mut modules: Vec<Wanted> = Vec::new();
    for wanted in std::mem::take(&mut layout.modules) {
        let Ok(Target { source: MadeOf::Whole(at), .. }) = &wanted else {
            modules.push(wanted);
            continue;
        };
        let at = *at;
        let Some(module) = served.adapter.modules.get(at) else { continue };
        // A stack that stays one is a parameter of transformers' own, whatever checkpoints call it.
        let stacked = !served.adapter.stacks.is_empty() && expert_of(&module.name).is_some();
        if stacked && served.expert_form().is_none() {
            modules.push(wanted);
            continue;
        }
        let places = found.get(at).map(Vec::as_slice).unwrap_or_default();
        for place in places {
            check_shape(base, place, module).in_file(&served.adapter.path)?;
        }
        match places {
            [] => modules.push(Err((at, absent(served.adapter)))),
            [place] if place.is_whole() => modules.push(Ok(Target {
                name: stem(&place.tensor).to_owned(),
                source: MadeOf::Whole(at),
            })),
            [place] if is_rows(place) => {
                let rows = place.rows.clone().unwrap_or_default();
                let total = base
                    .tensor(&place.tensor)
                    .map_or(0, |view| view.spec.shape.first().copied().unwrap_or(0));
                let piece = Piece { module: at, from: (0..rows.len()).into(), to: rows.into() };
                let name = stem(&place.tensor).to_owned();
                joined.entry(name).or_insert((total, Vec::new())).1.push(piece);
            }
            parts if parts.iter().all(is_part) => {
                modules.extend(parts.iter().filter_map(|place| {
                    let rows = place.part.as_ref()?.rows.clone();
                    let total = rows.len();
                    let pieces =
                        vec![Piece { module: at, from: rows.into(), to: (0..total).into() }];
                    let name = stem(&place.tensor).to_owned();
                    Some(Ok(Target { name, source: MadeOf::Rows { pieces, total } }))
                }));
            }
            _ => modules.push(wanted),
        }
    }
    modules.extend(joined.into_iter().map(|(name, (total, mut pieces))| {
        pieces.sort_by_key(|piece| piece.to.first);
        Ok(Target { name, source: MadeOf::Rows { pieces, total } })
    }));
    layout.modules = modules;
    Ok(())
}

fn stem(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn absent(adapter: &Adapter) -> Error {
    let reason = "the reference has no weight of this name";
    ConvertError::Name { to: adapter.convention.name, reason }.into()
}

fn is_rows(place: &Placement) -> bool {
    let plain = place.expert.is_none() && place.columns.is_none() && place.part.is_none();
    plain && place.rows.is_some() && place.turned != Some(true)
}

fn is_part(place: &Placement) -> bool {
    let plain = place.expert.is_none() && place.columns.is_none() && place.rows.is_none();
    plain && place.part.is_some() && place.turned != Some(true)
}

fn check_shape(base: &Checkpoint, place: &Placement, module: &Module) -> Result<()> {
    let Some(view) = base.tensor(&place.tensor) else { return Ok(()) };
    let shape = place.shape(&view.spec.shape);
    let rows = shape.first().copied().unwrap_or(0);
    let columns: usize = shape.iter().skip(1).product();
    let (outputs, inputs) = (module.outputs, module.inputs);
    if shape.len() < 2
        || outputs == 0
        || inputs == 0
        || (outputs, inputs) == (rows, columns)
        || (outputs, inputs) == (columns, rows)
    {
        return Ok(());
    }
    let (delta, base_tensor) = (module.shape(), place.tensor.clone());
    let found = view.spec.shape.clone();
    Err(ErrorKind::ShapeMismatch { delta, base_tensor, found }).in_tensor(&module.name)
}
