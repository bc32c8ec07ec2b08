//! Modules of single experts as PEFT stores a whole stack's: one pair of factors, in the order that
//! [`stacks`](crate::adapter::stacks) reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::adapter::key::Part;
use crate::adapter::new_adapter::{NewAdapter, NewModule, PartTensor};
use crate::adapter::stack_names::{Stack, expert_of, place_of};
use crate::error::{ErrorKind, ExpertsError, Locate, Result};
use crate::format::Dtype;

/// One factor of one expert.
struct Matrix<'a> {
    rows: usize,
    columns: usize,
    size: usize,
    bytes: &'a [u8],
}

impl Matrix<'_> {
    fn at(&self, row: usize, column: usize) -> Option<&[u8]> {
        let inside = row < self.rows && column < self.columns;
        let first = (row * self.columns + column) * self.size;
        self.bytes.get(first..first + self.size).filter(|_| inside)
    }
}

/// Puts the experts of every known stack into one module, called as the parameter is. The second
/// value is each such module's place among the nested ones, which its tensors are called after.
///
/// # Errors
/// If a stack's experts cannot lie in one tensor, or other modules are of the same experts.
pub(super) fn pack(adapter: &mut NewAdapter) -> Result<BTreeMap<String, String>> {
    let mut packed: BTreeMap<String, BTreeMap<usize, NewModule>> = BTreeMap::new();
    let mut rest = Vec::new();
    for module in std::mem::take(&mut adapter.modules) {
        match expert_of(&module.name).filter(|(label, _)| adapter.stacks.contains_key(label)) {
            Some((label, expert)) => {
                packed.entry(label).or_default().insert(expert, module);
            }
            None => rest.push(module),
        }
    }
    let labels: BTreeSet<String> = packed.keys().cloned().collect();
    for module in &rest {
        let above = |label: &&String| {
            let holder = label.rsplit_once('.').map_or("", |(holder, _)| holder);
            let below = module.name.strip_prefix(holder).and_then(|rest| rest.strip_prefix('.'));
            below.is_some_and(|below| below.starts_with(|first: char| first.is_ascii_digit()))
        };
        if let Some(stack) = labels.iter().find(above) {
            let (stack, module) = (stack.clone(), module.name.clone());
            return Err(ExpertsError::TwoWays { stack, module }.into());
        }
    }
    for (label, experts) in packed {
        let Some(stack) = adapter.stacks.get(&label) else { continue };
        rest.push(joined(&label, &experts, *stack).in_tensor(&label)?);
    }
    adapter.modules = rest;
    let place = |label: &String| (label.clone(), place_of(label, &labels));
    Ok(labels.iter().map(place).collect())
}

fn joined(label: &str, modules: &BTreeMap<usize, NewModule>, stack: Stack) -> Result<NewModule> {
    let rank = modules.values().map(|module| module.rank).max().unwrap_or(0).max(1);
    let Some(first) = modules.values().next() else { return Err(ErrorKind::NotFound.into()) };
    if modules.values().any(|module| module.scale != first.scale) {
        return Err(ExpertsError::Uneven { what: "scale" }.into());
    }
    if modules.keys().any(|expert| *expert >= stack.experts) {
        return Err(ExpertsError::Uneven { what: "number" }.into());
    }
    let (dtype, _) = factor(first, Part::Down)?;
    let size = dtype.bitsize() / 8;
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let (mut inputs, mut outputs) = (0, 0);
    for expert in 0..stack.experts {
        let Some(module) = modules.get(&expert) else { continue };
        let ((down_dtype, a), (up_dtype, b)) =
            (factor(module, Part::Down)?, factor(module, Part::Up)?);
        // (B·A)ᵀ = Aᵀ·Bᵀ.
        let shape = if stack.crossed { (b.rows, a.columns) } else { (a.columns, b.rows) };
        if down.is_empty() {
            (inputs, outputs) = shape;
            down = vec![0; stack.experts * rank * inputs * size];
            up = vec![0; outputs * rank * stack.experts * size];
        }
        if (down_dtype, up_dtype) != (dtype, dtype) || shape != (inputs, outputs) {
            return Err(ExpertsError::Uneven { what: "size or dtype" }.into());
        }
        for level in 0..module.rank {
            let row = (expert * rank + level) * inputs;
            for input in 0..inputs {
                let from = if stack.crossed { b.at(input, level) } else { a.at(level, input) };
                put(&mut down, row + input, from, size);
            }
            for output in 0..outputs {
                let at = (output * rank + level) * stack.experts + expert;
                let from = if stack.crossed { a.at(level, output) } else { b.at(output, level) };
                put(&mut up, at, from, size);
            }
        }
    }
    let depth = stack.experts * rank;
    let tensors: Vec<PartTensor> = vec![
        (Part::Down, dtype, vec![depth, inputs], down),
        (Part::Up, dtype, vec![outputs, depth], up),
    ];
    let alpha = first.alpha.filter(|_| first.rank == rank);
    Ok(NewModule { name: label.to_owned(), rank, scale: first.scale, alpha, tensors })
}

fn put(out: &mut [u8], at: usize, value: Option<&[u8]>, size: usize) {
    if let (Some(place), Some(value)) = (out.get_mut(at * size..(at + 1) * size), value) {
        place.copy_from_slice(value);
    }
}

/// A module's only tensor of this part, as a matrix.
fn factor(module: &NewModule, part: Part) -> Result<(Dtype, Matrix<'_>)> {
    let tensor = module.tensors.iter().find(|tensor| tensor.0 == part);
    let Some((_, dtype, shape, bytes)) = tensor.filter(|_| module.tensors.len() == 2) else {
        return Err(ExpertsError::Uneven { what: "their tensors" }.into());
    };
    let [rows, columns] = shape.as_slice() else {
        let expected = "a matrix".to_owned();
        return Err(ErrorKind::BadShape { expected, found: shape.clone() }.into());
    };
    Ok((*dtype, Matrix { rows: *rows, columns: *columns, size: dtype.bitsize() / 8, bytes }))
}
