//! From modules with their singular values to plots: spectra, and energy kept by rank.

use lora_tool::ops::inspect::ModuleItem;

use super::grid;
use super::lines::{Axis, DISTINCT, Plot, Series};

/// Singular values below this share of the largest are rounding, and would stretch the axis.
const LEAST: f64 = 1e-6;

/// Singular values by rank: the median of all modules of a kind, between the extremes of all.
pub(super) fn spectra(modules: &[ModuleItem], id: &str) -> String {
    let values = modules.iter().filter_map(|module| {
        let values = &module.spectrum.as_ref()?.singular_values;
        Some((grid::place(&module.name).1, values.clone()))
    });
    let mut values: Vec<_> = values.collect();
    let largest = values.iter().filter_map(|(_, v)| v.first()).fold(0f64, |most, v| most.max(*v));
    for (_, values) in &mut values {
        values.retain(|value| *value > largest * LEAST);
    }
    let reading = "How strong each direction of the update is, median of the layers.";
    draw("Singular values", reading, Axis::Log, &values, id)
}

/// Share of the energy Σσ² that the first ranks hold.
pub(super) fn energy(modules: &[ModuleItem], id: &str) -> String {
    let values = modules.iter().filter_map(|module| {
        let values = &module.spectrum.as_ref()?.singular_values;
        let total: f64 = values.iter().map(|value| value * value).sum();
        let mut sum = 0.0;
        let share = |value: &f64| {
            sum += value * value;
            sum / total
        };
        (total > 0.0).then(|| (grid::place(&module.name).1, values.iter().map(share).collect()))
    });
    let reading = "What a lower rank would keep of the update, median of the layers.";
    draw("Energy by rank", reading, Axis::Share, &values.collect::<Vec<_>>(), id)
}

fn draw(title: &str, reading: &str, axis: Axis, values: &[(&str, Vec<f64>)], id: &str) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for (kind, _) in values {
        if !kinds.contains(kind) {
            kinds.push(kind);
        }
    }
    // More lines than can be told apart share the last one.
    let others = if kinds.len() > DISTINCT { kinds.split_off(DISTINCT - 1) } else { Vec::new() };
    let of = |group: &[&str]| {
        let members = values.iter().filter(|(kind, _)| group.contains(kind));
        members.map(|(_, values)| values.as_slice()).collect::<Vec<_>>()
    };
    let mut series: Vec<_> = kinds
        .iter()
        .map(|kind| Series { name: (*kind).to_owned(), values: medians(&of(&[*kind])) })
        .collect();
    if !others.is_empty() {
        let name = format!("{} other kinds", others.len());
        series.push(Series { name, values: medians(&of(&others)) });
    }
    let all: Vec<_> = values.iter().map(|(_, values)| values.as_slice()).collect();
    let band = if all.len() > 1 { extremes(&all) } else { Vec::new() };
    Plot { title, reading, axis, band, series }.draw(id)
}

/// The values at one rank, of all that reach it, ascending.
fn column(all: &[&[f64]], at: usize) -> Vec<f64> {
    let mut column: Vec<_> = all.iter().filter_map(|values| values.get(at).copied()).collect();
    column.sort_by(f64::total_cmp);
    column
}

fn longest(all: &[&[f64]]) -> usize {
    all.iter().map(|values| values.len()).max().unwrap_or(0)
}

fn medians(all: &[&[f64]]) -> Vec<f64> {
    let median = |at| {
        let column = column(all, at);
        column.get(column.len() / 2).copied()
    };
    (0..longest(all)).filter_map(median).collect()
}

fn extremes(all: &[&[f64]]) -> Vec<(f64, f64)> {
    let extremes = |at| {
        let column = column(all, at);
        Some((*column.first()?, *column.last()?))
    };
    (0..longest(all)).filter_map(extremes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_extremes_take_who_reaches_the_rank() {
        let all: [&[f64]; 3] = [&[3.0, 1.0], &[5.0], &[4.0, 2.0, 0.5]];
        assert_eq!(medians(&all), [4.0, 2.0, 0.5]);
        assert_eq!(extremes(&all), [(3.0, 5.0), (1.0, 2.0), (0.5, 0.5)]);
        assert!(medians(&[]).is_empty());
    }
}
