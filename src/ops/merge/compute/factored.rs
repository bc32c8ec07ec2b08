//! What methods that look at singular values and vectors make of a tensor's updates: factors for each part of it that
//! adapters have modules of, as `combine` makes them of the modules.

use std::ops::Range;

use super::bands::{Bands, Block};
use super::product::factors;
use crate::adapter::Adapter;
use crate::error::{ErrorKind, Result};
use crate::math::{LowRank, Matrix};
use crate::method::{Problem, Weighted};
use crate::ops::merge::plan::method_choice::MethodChoice;
use crate::ops::merge::plan::region::Region;
use crate::ops::merge::plan::step::{InputDelta, MethodStep, Term, TermForm};

/// A term of a step, with the number of the share that it is of.
type Part<'a> = (usize, &'a Term);

/// Combines the updates of a tensor of rows × columns, part by part.
///
/// # Errors
/// Factors that cannot be read, and updates that have none.
pub(super) fn combined(
    method: &MethodChoice,
    step: &MethodStep,
    adapters: &[Adapter],
    size: (usize, usize),
) -> Result<Bands> {
    let block = |parts: &Vec<Part<'_>>| block(method, step, parts, adapters, size);
    let blocks = apart(step).iter().map(block).collect::<Result<_>>()?;
    Ok(Bands::of_blocks(blocks, size))
}

/// The terms of all shares, those together that meet: modules that are rows of one tensor are combined each by itself,
/// and experts of a stack.
fn apart(step: &MethodStep) -> Vec<Vec<Part<'_>>> {
    let terms = step.shares.iter().enumerate().flat_map(|(at, share)| {
        let terms: &[Term] = match &share.delta {
            InputDelta::Updates(terms) => terms,
            // The plan has none.
            InputDelta::Difference(_) => &[],
        };
        terms.iter().map(move |term| (at, term))
    });
    let mut groups: Vec<Vec<Part<'_>>> = Vec::new();
    for (at, term) in terms {
        let meets = |group: &Vec<Part<'_>>| {
            group.iter().any(|(_, other)| Region::meet(other.region.as_ref(), term.region.as_ref()))
        };
        let (mut joined, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(meets);
        groups = others;
        joined.push(vec![(at, term)]);
        groups.push(joined.concat());
    }
    groups
}

/// What the method makes of some terms.
fn block(
    method: &MethodChoice,
    step: &MethodStep,
    parts: &[Part<'_>],
    adapters: &[Adapter],
    size: (usize, usize),
) -> Result<Block> {
    let place = |term: &Term| term.region.as_ref().map_or(0..size.0, |region| region.rows.clone());
    let all = parts.iter().map(|(_, term)| place(term));
    let around = |a: Range<usize>, b: Range<usize>| a.start.min(b.start)..a.end.max(b.end);
    let rows = all.reduce(around).unwrap_or(0..0);
    // Methods may look at outputs and inputs unlike, so each module is combined the way round that it is.
    let turned = parts.iter().all(|(_, term)| term.source == TermForm::Transposed);
    let way_round = |matrix: LowRank| if turned { matrix.transposed() } else { matrix };
    let mut inputs = Vec::new();
    for (at, share) in step.shares.iter().enumerate() {
        let mut deltas = Vec::new();
        for (_, term) in parts.iter().filter(|(of, _)| *of == at) {
            let (left, right) = factors(term, adapters, size)?;
            let delta = LowRank::from_factors(&left, &right, term.coefficient());
            deltas.push(lower(delta, place(term).start - rows.start, rows.len()));
        }
        if !deltas.is_empty() {
            let factors = way_round(LowRank::sum(rows.len(), size.1, &deltas));
            inputs.push(Weighted {
                factors,
                scale: 1.0,
                weight: share.weight,
                adapter: share.input,
            });
        }
    }
    let problem = Problem {
        rows: if turned { size.1 } else { rows.len() },
        columns: if turned { rows.len() } else { size.1 },
        inputs: &inputs,
        weights: &step.weights,
        settings: step.settings.as_ref().unwrap_or(&method.settings),
        compat: method.compat,
        rank: None,
    };
    let combined = method.method.combine(&problem).ok_or(ErrorKind::NotFound)?;
    let (left, right) = way_round(combined.factors).to_factors();
    Ok(Block { rows, left, coefficient: combined.scale, right })
}

/// The matrix with rows of zeros above it, and below it up to so many.
fn lower(delta: LowRank, above: usize, rows: usize) -> LowRank {
    if delta.rows() == rows {
        return delta;
    }
    let mut up = Matrix::zeros(rows, delta.rank());
    up.rows_mut(above, delta.rows()).copy_from(&delta.up);
    LowRank::new(up, delta.down)
}
