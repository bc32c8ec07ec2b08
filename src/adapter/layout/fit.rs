//! What one module is in its part's layout: a name in the other one, or rows of its tensors.

use std::collections::BTreeSet;
use std::ops::Range;

use super::model_part::{ModelPart, body};
use crate::adapter::Adapter;
use crate::adapter::architecture::{Cut, Detected, Rule, Side, fill};
use crate::adapter::convention::Names;
use crate::adapter::rename::Renamer;
use crate::adapter::scope::Scope;
use crate::error::Result;

/// A module in the split layout, and where the published one has it.
pub(super) struct Atom {
    pub(super) split: String,
    pub(super) published: String,
    pub(super) cut: Cut,
    pub(super) module: usize,
    /// Rows of the module.
    pub(super) from: Range<usize>,
}

/// What a module is in its layout.
pub(super) enum Fit {
    /// Its name in the wanted layout, where that is all that changes.
    Name(String),
    /// The split modules that it holds.
    Atoms(Vec<Atom>),
}

/// Whose names the other convention wants.
pub(super) fn wanted(renamer: &Renamer<'_>, detected: &Detected, scope: Scope) -> Side {
    let encoder = matches!(scope, Scope::TextEncoder(_)) || detected.component == "text_encoder";
    match renamer.to.names {
        Names::Flattened => detected.kohya,
        Names::Checkpoint if !encoder => Side::Published,
        _ => Side::Split,
    }
}

/// What a module is in its part's layout; nothing if no layout has it and none is needed.
pub(super) fn fit(
    adapter: &Adapter,
    part: &ModelPart,
    detected: &Detected,
    at: usize,
    renamer: &Renamer<'_>,
) -> Result<Option<Fit>> {
    let Some(body) = body(adapter, at) else { return Ok(None) };
    let to = wanted(renamer, detected, part.scope);
    let other_side = if part.side == Side::Split { Side::Published } else { Side::Split };
    let matched = |side: Side| {
        let rule = detected.rules.iter().find(|rule| body.capture(rule.side(side)).is_some())?;
        Some((side, rule, body.capture(rule.side(side))?))
    };
    let Some((side, rule, found)) = matched(part.side).or_else(|| matched(other_side)) else {
        return if part.side == to { Ok(None) } else { Err(renamer.unknown()) };
    };
    // XLabs has a name for some rows of a published tensor.
    let canonical = detected.rules.iter().find(|known| known.split == rule.split).unwrap_or(rule);
    if side == to && canonical.published == rule.published {
        return Ok(Some(Fit::Name(fill(rule.side(side), &found))));
    }
    if rule.cut == Cut::Whole && (to == Side::Split || canonical.cut == Cut::Whole) {
        return Ok(Some(Fit::Name(fill(canonical.side(to), &found))));
    }
    let atom = |rule: &Rule, from| {
        let canonical =
            detected.rules.iter().find(|known| known.split == rule.split).unwrap_or(rule);
        Atom {
            split: fill(&rule.split, &found),
            published: fill(&canonical.published, &found),
            cut: canonical.cut,
            module: at,
            from,
        }
    };
    let (rows, inputs) = (body.outputs, body.inputs);
    if side == Side::Split {
        return Ok(Some(Fit::Atoms(vec![atom(rule, 0..rows)])));
    }
    // One table may say again what another says.
    let mut split = BTreeSet::new();
    let fused = detected.rules.iter().filter(|known| known.published == rule.published);
    let atoms = fused
        .filter(|rule| split.insert(rule.split.as_str()))
        .map(|rule| Some(atom(rule, rows_of(rule.cut, rows, inputs)?)));
    atoms
        .collect::<Option<Vec<_>>>()
        .map(|atoms| Some(Fit::Atoms(atoms)))
        .ok_or_else(|| renamer.indivisible())
}

/// The rows of a published module that a split one has, held to what its inputs tell: attention has as many
/// queries as inputs wherever keys are fewer; what divides otherwise is another model.
pub(super) fn rows_of(cut: Cut, total: usize, inputs: usize) -> Option<Range<usize>> {
    cut.rows(total, Some(inputs), inputs)
}
