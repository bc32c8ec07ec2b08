//! Modules that are rows of one another in another layout: a split one has some rows of B and all of A;
//! of a fused one the A stand one under another, and the B beside them, each in its own rows. Where all A
//! are the same one, it stands there once: the undoing of a split.

use std::collections::BTreeMap;

use super::factors::{Factors, factor, factors_of, tensor};
use super::fold::{Factor, commonest, multiply};
use super::goal::{FittedModule, Goal};
use super::owners::Owners;
use super::stored;
use crate::adapter::Adapter;
use crate::adapter::convention::{Part, ScalePlace};
use crate::adapter::layout::{Piece, Rows};
use crate::adapter::module::{Module, Nature};
use crate::adapter::save::PartTensor;
use crate::error::{ErrorKind, Locate, Result};
use crate::weight::element::widest;

/// Makes a module of rows of others; nothing if all of it is zero, or lost.
pub(super) fn assemble(
    adapter: &Adapter,
    goal: Goal<'_>,
    name: &str,
    (pieces, total): (&[Piece], usize),
    owners: &Owners,
    lost: &mut Vec<String>,
) -> Result<Option<FittedModule>> {
    let modules: Vec<&Module> =
        pieces.iter().filter_map(|piece| adapter.modules.get(piece.module)).collect();
    let from = from(&modules);
    if modules.iter().all(|module| module.nature() == Nature::Full) && !modules.is_empty() {
        return whole(adapter, goal, name, &modules, (pieces, total), lost);
    }
    let mut all_factors: Vec<(usize, Factors)> = Vec::new();
    for (piece, module) in pieces.iter().zip(&modules) {
        if all_factors.iter().all(|(known, _)| *known != piece.module) {
            let factors = factors_of(adapter, goal, module, name, lost).in_tensor(&module.name)?;
            let Some(factors) = factors else { return Ok(None) };
            all_factors.push((piece.module, factors));
        }
    }
    let of = |piece: &Piece| {
        let found = all_factors.iter().find(|(at, _)| *at == piece.module);
        found.map(|(_, factors)| factors)
    };
    let found: Vec<(&Piece, &Factors)> =
        pieces.iter().filter_map(|piece| Some((piece, of(piece)?))).collect();
    if let [(piece, factors)] = found.as_slice()
        && piece.to == Rows::from(0..total)
    {
        return divided(factors, piece, total, owners, name, from);
    }
    joined(&found, total, name, from, lost).map(Some)
}

/// The names of what a module is made of, each once.
fn from(modules: &[&Module]) -> Vec<String> {
    let mut names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
    names.dedup();
    names
}

/// A split module: rows of B, with all of A, or those of its directions that are this part's alone.
fn divided(
    factors: &Factors,
    piece: &Piece,
    total: usize,
    owners: &Owners,
    name: &str,
    from: Vec<String>,
) -> Result<Option<FittedModule>> {
    let rows = |tensor: &PartTensor| factor(tensor).rows(piece.from);
    let (mut up, mut down) = (rows(&factors.up), factor(&factors.down));
    let (mut rank, mut alpha) = (factors.rank, factors.alpha);
    let alone = factors.bias.is_none() && factors.magnitude.is_none();
    // Rows that nothing is adapted of were filled in when it was fused.
    if alone && up.is_zero()? && !factor(&factors.up).is_zero()? {
        return Ok(None);
    }
    if let Some(columns) = owners.columns(piece).filter(|columns| !columns.is_empty()) {
        (up, down) = (up.columns(&columns), down.picked(&columns));
        // In this order an alpha that was a sum comes out whole again.
        alpha = alpha.map(|alpha| alpha * columns.len() as f64 / rank as f64);
        rank = columns.len();
    }
    let mut tensors = vec![tensor(factors.down.0, down), tensor(factors.up.0, up)];
    for beside in [&factors.bias, &factors.magnitude].into_iter().flatten() {
        tensors.push(tensor(beside.0, value_a_row(beside, total, &[piece])));
    }
    let (scale, factored) = (factors.scale, factors.factored);
    let name = name.to_owned();
    Ok(Some(FittedModule { from, name, rank, scale, alpha, tensors, factored, folded: 1.0 }))
}

/// One value a row, of the pieces' rows; zeros elsewhere.
fn value_a_row(tensor: &PartTensor, total: usize, pieces: &[&Piece]) -> Factor {
    let values = factor(tensor);
    let shape = values.shape.iter().map(|&size| if size == 1 { 1 } else { total }).collect();
    let flat = Factor { shape: vec![values.count()], ..values };
    let mut all = Factor::zeros(flat.dtype, vec![total]);
    for piece in pieces {
        all.put(piece.to, 0, &flat.rows(piece.from));
    }
    Factor { shape, ..all }
}

/// A fused module of several, or of one whose rows are in another order.
fn joined(
    found: &[(&Piece, &Factors)],
    total: usize,
    name: &str,
    from: Vec<String>,
    lost: &mut Vec<String>,
) -> Result<FittedModule> {
    let scales: Vec<f64> = found.iter().map(|(_, factors)| factors.scale).collect();
    let scale = commonest(&scales);
    let stored = widest(found.iter().flat_map(|(_, factors)| [factors.up.1, factors.down.1]));
    let (mut downs, mut starts): (Vec<&Factors>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rank = 0;
    for (_, factors) in found {
        let known = downs.iter().position(|down| down.down == factors.down);
        let start = known.and_then(|at| starts.get(at).copied()).unwrap_or(rank);
        if known.is_none() {
            rank += factors.rank;
        }
        downs.push(factors);
        starts.push(start);
    }
    let Some((_, first)) = found.first() else { return Err(ErrorKind::NothingSelected.into()) };
    let shape = |tensor: &PartTensor, sizes: [usize; 2]| {
        sizes.into_iter().chain(tensor.2.iter().skip(2).copied()).collect::<Vec<_>>()
    };
    let inputs = first.down.2.get(1).copied().unwrap_or(1);
    let mut down = Factor::zeros(stored, shape(&first.down, [rank, inputs]));
    let mut up = Factor::zeros(stored, shape(&first.up, [total, rank]));
    let mut folded = 1.0;
    for ((piece, factors), start) in found.iter().zip(&starts) {
        let mut rows = factor(&factors.up).rows(piece.from);
        let ratio = factors.scale / scale;
        if ratio != 1.0 {
            multiply(&mut rows, ratio)?;
            folded = ratio;
        }
        let dtype = widest([up.dtype, rows.dtype].into_iter());
        up = up.into_dtype(dtype)?;
        up.put(piece.to, *start, &rows.into_dtype(dtype)?);
        down.put(
            (*start..*start + factors.rank).into(),
            0,
            &factor(&factors.down).into_dtype(stored)?,
        );
    }
    let mut tensors = vec![tensor(first.down.0, down), tensor(first.up.0, up)];
    tensors.extend(biases_and_magnitudes(found, total, scale, lost, &from)?);
    let alpha = shared_alpha(found, &starts, rank, scale);
    let factored = found.iter().find_map(|(_, factors)| factors.factored);
    Ok(FittedModule { from, name: name.to_owned(), rank, scale, alpha, tensors, factored, folded })
}

/// The alpha of all directions: the sum of those of the A that stand there.
fn shared_alpha(
    found: &[(&Piece, &Factors)],
    starts: &[usize],
    rank: usize,
    scale: f64,
) -> Option<f64> {
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for ((_, factors), start) in found.iter().zip(starts) {
        sums.insert(*start, factors.alpha?);
    }
    Some(sums.values().sum::<f64>()).filter(|sum| *sum / rank as f64 == scale)
}

/// Biases, zero where a part has none, and magnitudes, which every row needs.
fn biases_and_magnitudes(
    found: &[(&Piece, &Factors)],
    total: usize,
    scale: f64,
    lost: &mut Vec<String>,
    from: &[String],
) -> Result<Vec<PartTensor>> {
    let mut tensors = Vec::new();
    let covered: usize = found.iter().map(|(piece, _)| piece.to.count).sum();
    let with = |of: fn(&Factors) -> Option<&PartTensor>| -> Vec<(&Piece, &Factors, &PartTensor)> {
        found.iter().filter_map(|(piece, factors)| Some((*piece, *factors, of(factors)?))).collect()
    };
    let biases = with(|factors| factors.bias.as_ref());
    let magnitudes = with(|factors| factors.magnitude.as_ref());
    let complete = magnitudes.len() == found.len() && covered == total;
    if !magnitudes.is_empty() && !complete {
        lost.push(format!("{}: their magnitudes (DoRA), which not all rows have", from.join(", ")));
    }
    for all in [biases, if complete { magnitudes } else { Vec::new() }] {
        let Some((_, _, first)) = all.first() else { continue };
        let mut dtype = widest(all.iter().map(|(_, _, tensor)| tensor.1));
        let mut parts = Vec::new();
        for (piece, factors, stored) in &all {
            let mut part = factor(stored);
            if stored.0 == Part::UpBias {
                multiply(&mut part, factors.scale / scale)?;
            }
            dtype = widest([dtype, part.dtype].into_iter());
            parts.push((*piece, part));
        }
        let shape = first.2.iter().map(|&size| if size == 1 { 1 } else { total }).collect();
        let mut sum = Factor::zeros(dtype, vec![total]);
        for (piece, part) in parts {
            let flat = Factor { shape: vec![part.count()], ..part };
            sum.put(piece.to, 0, &flat.rows(piece.from).into_dtype(dtype)?);
        }
        tensors.push(tensor(first.0, Factor { shape, ..sum }));
    }
    Ok(tensors)
}

/// Stored differences: their rows themselves.
fn whole(
    adapter: &Adapter,
    goal: Goal<'_>,
    name: &str,
    modules: &[&Module],
    (pieces, total): (&[Piece], usize),
    lost: &mut Vec<String>,
) -> Result<Option<FittedModule>> {
    let from = from(modules);
    let mut all: BTreeMap<Part, Vec<(&Piece, PartTensor)>> = BTreeMap::new();
    for (piece, module) in pieces.iter().zip(modules) {
        for tensor in stored::stored(adapter, module).in_tensor(&module.name)? {
            all.entry(tensor.0).or_default().push((piece, tensor));
        }
    }
    let mut tensors = Vec::new();
    let spelled = |part: &Part| goal.spells(name, *part);
    if goal.target.scale != ScalePlace::Tensor || !all.keys().all(spelled) {
        lost.push(format!("{}: the whole of it, a full module", from.join(", ")));
        return Ok(None);
    }
    for (part, found) in all {
        let dtype = widest(found.iter().map(|(_, tensor)| tensor.1));
        let Some((_, first)) = found.first() else { continue };
        let mut shape = first.2.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = total;
        }
        let mut sum = Factor::zeros(dtype, shape);
        for (piece, stored) in &found {
            let rows = factor(stored).rows(piece.from);
            sum.put(piece.to, 0, &rows.into_dtype(dtype)?);
        }
        tensors.push(tensor(part, sum));
    }
    let (name, scale) = (name.to_owned(), 1.0);
    let factored = None;
    Ok(Some(FittedModule {
        from,
        name,
        rank: 0,
        scale,
        alpha: None,
        tensors,
        factored,
        folded: 1.0,
    }))
}
