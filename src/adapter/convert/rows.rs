//! Modules that are rows of one another in another layout: a split one has some rows of B and all of A;
//! of a fused one the A stand one under another, and the B beside them, each in its own rows. Where all A
//! are the same one, it stands there once: the undoing of a split.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fold::{Factor, commonest, multiply};
use super::goal::{FittedModule, Goal};
use super::stored::{self, FACTORS, called, is_bias, is_factor, is_magnitude};
use crate::adapter::Adapter;
use crate::adapter::convention::{Part, ScalePlace};
use crate::adapter::layout::{Piece, Source, Target};
use crate::adapter::module::{Module, Nature, Side};
use crate::adapter::save::{NewModule, PartTensor};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Dtype;
use crate::weight::element::widest;

/// Which columns of B only one of a module's parts has, by module: such a module was fused of modules
/// with an A each, and falls into them again.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<usize, Owned>);

/// A module's parts, and of each column the part that has it.
#[derive(Debug)]
struct Owned {
    parts: Vec<Range<usize>>,
    columns: Vec<usize>,
}

/// A module as factors in the target's spelling, whichever family it was.
struct Plain {
    down: PartTensor,
    up: PartTensor,
    bias: Option<PartTensor>,
    magnitude: Option<PartTensor>,
    rank: usize,
    scale: f64,
    alpha: Option<f64>,
    factored: Option<&'static str>,
}

impl Owners {
    /// Looks at the B of every module that is divided.
    pub(super) fn new(adapter: &Adapter, targets: &[&Target]) -> Result<Self> {
        let mut parts: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        for target in targets {
            if let Source::Rows { pieces, .. } = &target.source
                && let [piece] = pieces.as_slice()
            {
                parts.entry(piece.module).or_default().push(piece.from.clone());
            }
        }
        let mut owners = Self::default();
        for (at, parts) in parts.into_iter().filter(|(_, parts)| parts.len() > 1) {
            let Some(module) = adapter.modules.get(at) else { continue };
            let tensors = stored::stored(adapter, module).in_tensor(&module.name)?;
            if !stored::is_plain(module, &tensors) {
                continue;
            }
            let up =
                tensors.into_iter().find(|(part, ..)| FACTORS.iter().any(|(_, up)| part == up));
            let Some((_, dtype, shape, bytes)) = up else { continue };
            let columns = owned_columns(&Factor { dtype, shape, bytes }, &parts);
            if let Some(columns) = columns {
                owners.0.insert(at, Owned { parts, columns });
            }
        }
        Ok(owners)
    }

    /// The columns of a part of a module; `None` for all.
    fn columns(&self, piece: &Piece) -> Option<Vec<usize>> {
        let Owned { parts, columns } = self.0.get(&piece.module)?;
        let own = parts.iter().position(|part| *part == piece.from)?;
        let own = columns.iter().enumerate().filter(|(_, owner)| **owner == own);
        Some(own.map(|(column, _)| column).collect())
    }
}

/// The part that has each column; `None` if any column has values in several, or none has any. Columns of
/// zeros go with the one before them.
fn owned_columns(up: &Factor, parts: &[Range<usize>]) -> Option<Vec<usize>> {
    let rows = up.shape.first().copied().filter(|rows| *rows > 0)?;
    let values = up.values().ok()?;
    let rank = values.len() / rows;
    let used = |part: &Range<usize>, column: usize| {
        part.clone().any(|row| values.get(row * rank + column).is_some_and(|value| *value != 0.0))
    };
    let mut owners = Vec::with_capacity(rank);
    for column in 0..rank {
        let mut having =
            (0..parts.len()).filter(|&at| parts.get(at).is_some_and(|p| used(p, column)));
        let first = having.next();
        if having.next().is_some() {
            return None;
        }
        owners.push(first);
    }
    let mut last = owners.iter().flatten().copied().next()?;
    Some(
        owners
            .into_iter()
            .map(|owner| {
                last = owner.unwrap_or(last);
                last
            })
            .collect(),
    )
}

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
    let mut plains: Vec<(usize, Plain)> = Vec::new();
    for (piece, module) in pieces.iter().zip(&modules) {
        if plains.iter().all(|(known, _)| *known != piece.module) {
            let plain = plain(adapter, goal, module, name, lost).in_tensor(&module.name)?;
            let Some(plain) = plain else { return Ok(None) };
            plains.push((piece.module, plain));
        }
    }
    let of =
        |piece: &Piece| plains.iter().find(|(at, _)| *at == piece.module).map(|(_, plain)| plain);
    let found: Vec<(&Piece, &Plain)> =
        pieces.iter().filter_map(|piece| Some((piece, of(piece)?))).collect();
    if let [(piece, plain)] = found.as_slice()
        && piece.to == (0..total)
    {
        return divided(plain, piece, total, owners, name, from);
    }
    joined(&found, total, name, from, lost).map(Some)
}

/// The names of what a module is made of, each once.
fn from(modules: &[&Module]) -> Vec<String> {
    let mut names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
    names.dedup();
    names
}

/// A module's factors, bias and magnitudes; nothing if it cannot be divided.
fn plain(
    adapter: &Adapter,
    goal: Goal<'_>,
    module: &Module,
    name: &str,
    lost: &mut Vec<String>,
) -> Result<Option<Plain>> {
    let mut tensors = stored::stored(adapter, module)?;
    let alpha = module.scale.exact_alpha(module.rank);
    let (mut rank, mut factored) = (module.rank, None);
    let inputs = module.magnitude.as_ref().is_some_and(|own| own.side == Side::Inputs);
    if inputs || (!stored::is_plain(module, &tensors) && adapter.check_factors(module).is_err()) {
        lost.push(format!(
            "{}: the whole of it, a {} module in one piece",
            module.name, module.family
        ));
        return Ok(None);
    }
    if !stored::is_plain(module, &tensors) {
        let factors = adapter.factors(module)?;
        let new = NewModule::new(name, &module.kind, &factors, 1.0, None, Dtype::F32)?;
        tensors.retain(|(part, ..)| is_bias(*part));
        tensors.extend(new.tensors);
        (rank, factored) = (factors.rank(), Some(module.family));
    }
    let mut kept = Vec::new();
    for tensor in tensors {
        match stored::translated(module, tensor, goal.target)? {
            Ok(tensor) if goal.spells(name, tensor.0) => kept.push(tensor),
            Ok((part, ..)) | Err(part) => {
                lost.push(format!("{}: its {}", module.name, called(part, module)));
            }
        }
    }
    let mut take = |fits: &dyn Fn(Part) -> bool| {
        let at = kept.iter().position(|(part, ..)| fits(*part))?;
        Some(kept.remove(at))
    };
    let down = take(&|part| FACTORS.iter().any(|(down, _)| part == *down));
    let up = take(&is_factor);
    let (bias, magnitude) = (take(&is_bias), take(&is_magnitude));
    let (Some(down), Some(up)) = (down, up) else { return Ok(None) };
    let (scale, alpha) = (module.scale.value, alpha.filter(|_| factored.is_none()));
    Ok(Some(Plain { down, up, bias, magnitude, rank, scale, alpha, factored }))
}

fn factor((_, dtype, shape, bytes): &PartTensor) -> Factor {
    Factor { dtype: *dtype, shape: shape.clone(), bytes: bytes.clone() }
}

fn tensor(part: Part, factor: Factor) -> PartTensor {
    (part, factor.dtype, factor.shape, factor.bytes)
}

/// A split module: rows of B, with all of A, or those of its directions that are this part's alone.
fn divided(
    plain: &Plain,
    piece: &Piece,
    total: usize,
    owners: &Owners,
    name: &str,
    from: Vec<String>,
) -> Result<Option<FittedModule>> {
    let rows = |tensor: &PartTensor| factor(tensor).rows(piece.from.clone());
    let (mut up, mut down) = (rows(&plain.up), factor(&plain.down));
    let (mut rank, mut alpha) = (plain.rank, plain.alpha);
    let alone = plain.bias.is_none() && plain.magnitude.is_none();
    // Rows that nothing is adapted of were filled in when it was fused.
    if alone && up.is_zero()? && !factor(&plain.up).is_zero()? {
        return Ok(None);
    }
    if let Some(columns) = owners.columns(piece).filter(|own| !own.is_empty()) {
        (up, down) = (up.columns(&columns), down.picked(&columns));
        // In this order an alpha that was a sum comes out whole again.
        alpha = alpha.map(|alpha| alpha * columns.len() as f64 / rank as f64);
        rank = columns.len();
    }
    let mut tensors = vec![tensor(plain.down.0, down), tensor(plain.up.0, up)];
    for other in [&plain.bias, &plain.magnitude].into_iter().flatten() {
        tensors.push(tensor(other.0, lengths(other, total, &[piece])));
    }
    let (scale, factored) = (plain.scale, plain.factored);
    let name = name.to_owned();
    Ok(Some(FittedModule { from, name, rank, scale, alpha, tensors, factored, folded: 1.0 }))
}

/// One value a row, of the pieces' rows; zeros elsewhere.
fn lengths(tensor: &PartTensor, total: usize, pieces: &[&Piece]) -> Factor {
    let own = factor(tensor);
    let shape = own.shape.iter().map(|&size| if size == 1 { 1 } else { total }).collect();
    let flat = Factor { shape: vec![own.count()], ..own };
    let mut all = Factor::zeros(flat.dtype, vec![total]);
    for piece in pieces {
        all.put(piece.to.clone(), 0, &flat.rows(piece.from.clone()));
    }
    Factor { shape, ..all }
}

/// A fused module of several, or of one whose rows are in another order.
fn joined(
    found: &[(&Piece, &Plain)],
    total: usize,
    name: &str,
    from: Vec<String>,
    lost: &mut Vec<String>,
) -> Result<FittedModule> {
    let scales: Vec<f64> = found.iter().map(|(_, plain)| plain.scale).collect();
    let scale = commonest(&scales);
    let stored = widest(found.iter().flat_map(|(_, plain)| [plain.up.1, plain.down.1]));
    let (mut downs, mut starts): (Vec<&Plain>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rank = 0;
    for (_, plain) in found {
        let known = downs.iter().position(|down| down.down == plain.down);
        let start = known.and_then(|at| starts.get(at).copied()).unwrap_or(rank);
        if known.is_none() {
            rank += plain.rank;
        }
        downs.push(plain);
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
    for ((piece, plain), start) in found.iter().zip(&starts) {
        let mut own = factor(&plain.up).rows(piece.from.clone());
        let ratio = plain.scale / scale;
        if ratio != 1.0 {
            multiply(&mut own, ratio)?;
            folded = ratio;
        }
        let dtype = widest([up.dtype, own.dtype].into_iter());
        up = up.into_dtype(dtype)?;
        up.put(piece.to.clone(), *start, &own.into_dtype(dtype)?);
        down.put(*start..*start + plain.rank, 0, &factor(&plain.down).into_dtype(stored)?);
    }
    let mut tensors = vec![tensor(first.down.0, down), tensor(first.up.0, up)];
    tensors.extend(beside(found, total, scale, lost, &from)?);
    let alpha = shared_alpha(found, &starts, rank, scale);
    let factored = found.iter().find_map(|(_, plain)| plain.factored);
    Ok(FittedModule { from, name: name.to_owned(), rank, scale, alpha, tensors, factored, folded })
}

/// The alpha of all directions: the sum of those of the A that stand there.
fn shared_alpha(
    found: &[(&Piece, &Plain)],
    starts: &[usize],
    rank: usize,
    scale: f64,
) -> Option<f64> {
    let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
    for ((_, plain), start) in found.iter().zip(starts) {
        sums.insert(*start, plain.alpha?);
    }
    Some(sums.values().sum::<f64>()).filter(|sum| *sum / rank as f64 == scale)
}

/// Biases, zero where a part has none, and magnitudes, which every row needs.
fn beside(
    found: &[(&Piece, &Plain)],
    total: usize,
    scale: f64,
    lost: &mut Vec<String>,
    from: &[String],
) -> Result<Vec<PartTensor>> {
    let mut tensors = Vec::new();
    let covered: usize = found.iter().map(|(piece, _)| piece.to.len()).sum();
    let with = |of: fn(&Plain) -> Option<&PartTensor>| -> Vec<(&Piece, &Plain, &PartTensor)> {
        found.iter().filter_map(|(piece, plain)| Some((*piece, *plain, of(plain)?))).collect()
    };
    let biases = with(|plain| plain.bias.as_ref());
    let magnitudes = with(|plain| plain.magnitude.as_ref());
    let complete = magnitudes.len() == found.len() && covered == total;
    if !magnitudes.is_empty() && !complete {
        lost.push(format!("{}: their magnitudes (DoRA), which not all rows have", from.join(", ")));
    }
    for all in [biases, if complete { magnitudes } else { Vec::new() }] {
        let Some((_, _, first)) = all.first() else { continue };
        let mut dtype = widest(all.iter().map(|(_, _, tensor)| tensor.1));
        let mut parts = Vec::new();
        for (piece, plain, own) in &all {
            let mut part = factor(own);
            if own.0 == Part::UpBias {
                multiply(&mut part, plain.scale / scale)?;
            }
            dtype = widest([dtype, part.dtype].into_iter());
            parts.push((*piece, part));
        }
        let shape = first.2.iter().map(|&size| if size == 1 { 1 } else { total }).collect();
        let mut sum = Factor::zeros(dtype, vec![total]);
        for (piece, part) in parts {
            let flat = Factor { shape: vec![part.count()], ..part };
            sum.put(piece.to.clone(), 0, &flat.rows(piece.from.clone()).into_dtype(dtype)?);
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
        for (piece, own) in &found {
            let rows = factor(own).rows(piece.from.clone());
            sum.put(piece.to.clone(), 0, &rows.into_dtype(dtype)?);
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
