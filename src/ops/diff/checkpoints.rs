//! Tensor by tensor, as they are stored.

use rayon::prelude::*;

use super::{Compared, Differs, Found, Report, report};
use crate::adapter::tensor::element_type;
use crate::error::{Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::ops::Progress;

/// Elements compared at a time.
const CHUNK: u64 = 1 << 18;

/// Compares all tensors of two files.
pub(super) fn compare(
    compared: Compared,
    a: &Checkpoint,
    b: &Checkpoint,
    tolerance: f64,
    progress: &dyn Progress,
) -> Result<Report> {
    let (shared, only_a): (Vec<&str>, Vec<&str>) =
        a.names().partition(|name| b.tensor(name).is_some());
    let only_b = b.names().filter(|name| a.tensor(name).is_none());
    let bytes = |name: &str| a.tensor(name).map_or(0, |view| view.spec.bytes());
    progress.begin(shared.iter().map(|name| bytes(name)).sum());
    let found = shared.par_iter().filter_map(|name| {
        let found = tensors(name, a.tensor(name)?, b.tensor(name)?, tolerance).in_tensor(name);
        progress.advance(bytes(name));
        Some(found)
    });
    let found = found.collect::<Result<Vec<_>>>()?;
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok(report(compared, found, owned(only_a), owned(only_b.collect())))
}

/// Compares two tensors of one name.
pub(super) fn tensors(
    name: &str,
    a: TensorView<'_>,
    b: TensorView<'_>,
    tolerance: f64,
) -> Result<Found> {
    if a.spec.shape != b.spec.shape {
        let what = format!("shape {:?} against {:?}", a.spec.shape, b.spec.shape);
        return Ok(Found::other(name, what));
    }
    let types = element_type(a.spec.dtype).zip(element_type(b.spec.dtype));
    let Some((first, second)) = types else {
        if a.same_bytes(b)? {
            return Ok(Found { differs: None, squares: [0.0; 3] });
        }
        return Ok(Found::other(name, format!("other {} codes", a.spec.dtype)));
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut squares, mut largest, mut elements) = ([0.0; 3], 0f64, 0);
    let count = a.spec.elements() as u64;
    for at in (0..count).step_by(CHUNK as usize) {
        let end = (at + CHUNK).min(count);
        let bytes = |view: TensorView<'_>, size: usize, scratch: &mut Vec<u8>| {
            let mut own = Vec::new();
            let range = at * size as u64..end * size as u64;
            let found = view.shard.source.bytes(
                view.shard.header.data_start + view.spec.start + range.start
                    ..view.shard.header.data_start + view.spec.start + range.end,
                &mut own,
            );
            scratch.clear();
            scratch.extend_from_slice(found.in_file(&view.shard.path)?);
            Ok::<(), crate::Error>(())
        };
        bytes(a, first.size(), &mut left)?;
        bytes(b, second.size(), &mut right)?;
        if first == second && left == right {
            let mut values = vec![0.0; (end - at) as usize];
            first.decode(&left, &mut values);
            let square: f64 = values.iter().map(|value| value * value).sum();
            // Equal bytes are equal, whatever they stand for.
            let square = if square.is_finite() { square } else { 0.0 };
            squares[1] += square;
            squares[2] += square;
            continue;
        }
        let (mut x, mut y) = (vec![0.0; (end - at) as usize], vec![0.0; (end - at) as usize]);
        first.decode(&left, &mut x);
        second.decode(&right, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let off = (x - y).abs();
            squares[0] += off * off;
            squares[1] += x * x;
            squares[2] += y * y;
            elements += u64::from(x != y);
            largest = if off > largest || off.is_nan() { off } else { largest };
        }
    }
    let mut found = Found::new(name, squares, largest, tolerance);
    if let Some(differs) = &mut found.differs {
        differs.elements = Some(elements);
    }
    if a.spec.dtype != b.spec.dtype && tolerance == 0.0 && found.differs.is_none() {
        let what = format!("{} against {}, the same values", a.spec.dtype, b.spec.dtype);
        let values = Differs {
            name: name.to_owned(),
            what: Some(what),
            relative: Some(0.0),
            largest: Some(0.0),
            elements: Some(0),
        };
        found.differs = Some(values);
    }
    Ok(found)
}
