//! Module by module, by their deltas.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::checkpoints::{self, tensors};
use super::report::{Compared, Found, Options, Report, report};
use crate::adapter::Adapter;
use crate::adapter::tensor::read_f64;
use crate::error::{ErrorKind, Locate, Result};
use crate::math::LowRank;
use crate::ops::Progress;
use crate::ops::combine::group::{Group, group};
use crate::ops::combine::{self, align};
use crate::ops::shared::inputs::AdapterInput;

/// Compares the deltas of two adapters; their tensors, where the deltas depend on the base.
pub(super) fn compare(
    options: &Options,
    both: [Adapter; 2],
    tolerance: f64,
    progress: &dyn Progress,
) -> Result<Report> {
    let mut both = Vec::from(both);
    for adapter in &mut both {
        adapter.sound()?;
        adapter.check_finite()?;
    }
    let inputs = [&options.a, &options.b].map(|path| AdapterInput::new(path, 1.0));
    let grouping = combine::Options { adapters: inputs.into(), ..combine::Options::default() };
    let mut modules = both.iter().flat_map(|adapter| &adapter.modules).peekable();
    let additive = modules.peek().is_some() && modules.all(|own| own.delta_rank().is_some());
    if let ([a, b], false) = (both.as_slice(), additive) {
        return checkpoints::compare(Compared::Tensors, &a.file, &b.file, tolerance, progress);
    }
    let common = align::common(&both);
    let both = align::align(both, common, None)?;
    let groups = group(&grouping, &both, &[])?;
    progress.begin(groups.len() as u64);
    let (mut only, mut shared) = ([Vec::new(), Vec::new()], Vec::new());
    for group in &groups {
        match group.members.as_slice() {
            [_, _] => shared.push(group),
            [one] => {
                if let Some(only) = only.get_mut(one.adapter) {
                    only.push(group.name.clone());
                }
            }
            _ => {}
        }
    }
    let found = shared.par_iter().map(|group| {
        let found = module(&both, group, tolerance).in_tensor(&group.name);
        progress.advance(1);
        found
    });
    let mut found: Vec<Found> = found.collect::<Result<_>>()?;
    if let [a, b] = both.as_slice() {
        replaced(a, b, tolerance, &mut found, &mut only)?;
    }
    let [only_a, only_b] = only;
    Ok(report(Compared::Adapters, found, only_a, only_b))
}

/// ‖Δa − Δb‖ by the singular values of the stacked factors: differences of norms would be lost in
/// rounding.
fn module(both: &[Adapter], group: &Group, tolerance: f64) -> Result<Found> {
    let mut deltas = Vec::with_capacity(2);
    let mut biases = Vec::with_capacity(2);
    for member in &group.members {
        let adapter = both.get(member.adapter).ok_or(ErrorKind::NotFound)?;
        let module = adapter.modules.get(member.module).ok_or(ErrorKind::NotFound)?;
        let factors = adapter.factors(module)?;
        let sign = if deltas.is_empty() { 1.0 } else { -1.0 };
        deltas.push(LowRank::new(factors.up * (module.scale.value * sign), factors.down));
        let bias = module.added_bias().map(|(name, scale)| {
            let view = adapter.file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
            let values = read_f64(view, 0, view.spec.elements())?;
            Ok::<_, crate::Error>(values.into_iter().map(|value| value * scale).collect())
        });
        biases.push(bias.transpose()?.unwrap_or_else(Vec::new));
    }
    let squares = |delta: &LowRank| delta.squared_norm();
    let mut sums = [0.0, deltas.first().map_or(0.0, squares), deltas.get(1).map_or(0.0, squares)];
    let difference = LowRank::sum(group.outputs, group.inputs, &deltas).svd();
    let values = difference.singular_values();
    sums[0] = values.iter().map(|value| value * value).sum();
    let mut largest = values.first().copied().unwrap_or(0.0);
    let (none, at) =
        (Vec::new(), |values: &Vec<f64>, at: usize| values.get(at).copied().unwrap_or(0.0));
    let (first, second) = (biases.first().unwrap_or(&none), biases.get(1).unwrap_or(&none));
    for index in 0..first.len().max(second.len()) {
        let (x, y) = (at(first, index), at(second, index));
        sums[0] += (x - y) * (x - y);
        sums[1] += x * x;
        sums[2] += y * y;
        largest = largest.max((x - y).abs());
    }
    Ok(Found::new(&group.name, sums, largest, tolerance))
}

/// Tensors that replace the base's.
fn replaced(
    a: &Adapter,
    b: &Adapter,
    tolerance: f64,
    found: &mut Vec<Found>,
    only: &mut [Vec<String>; 2],
) -> Result<()> {
    let of = |adapter: &Adapter| -> BTreeMap<String, String> {
        let all = adapter.replacements.iter();
        all.map(|replacement| (replacement.label(), replacement.tensor.clone())).collect()
    };
    let (first, second) = (of(a), of(b));
    for (label, tensor) in &first {
        let Some(other) = second.get(label) else {
            only[0].push(label.clone());
            continue;
        };
        if let (Some(x), Some(y)) = (a.file.tensor(tensor), b.file.tensor(other)) {
            found.push(tensors(label, x, y, tolerance).in_tensor(label)?);
        }
    }
    only[1].extend(second.into_keys().filter(|label| !first.contains_key(label)));
    Ok(())
}
