//! Tensor by tensor, as they are stored.

use rayon::prelude::*;

use super::{Compared, Differs, Found, Report, report};
use crate::adapter::tensor::element_type;
use crate::error::{Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::math::ElementType;
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
    let sums = sums((a, first), (b, second))?;
    let mut found = Found::new(name, sums.squares, sums.largest, tolerance);
    if let Some(differs) = &mut found.differs {
        differs.elements = Some(sums.elements);
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

/// What two tensors' elements come to.
#[derive(Debug, Default)]
struct Sums {
    /// ‖A − B‖², ‖A‖², ‖B‖².
    squares: [f64; 3],
    /// The largest |a − b|; not a number if one is not.
    largest: f64,
    /// How many differ.
    elements: u64,
}

impl Sums {
    /// Elements whose bytes are equal are equal, whatever they stand for.
    fn add_equal(&mut self, values: &[f64]) {
        let square: f64 = values.iter().map(|value| value * value).sum();
        let square = if square.is_finite() { square } else { 0.0 };
        self.squares[1] += square;
        self.squares[2] += square;
    }

    fn add(&mut self, a: &[f64], b: &[f64]) {
        for (x, y) in a.iter().zip(b) {
            let off = (x - y).abs();
            self.squares[0] += off * off;
            self.squares[1] += x * x;
            self.squares[2] += y * y;
            self.elements += u64::from(x != y);
            self.largest = if off > self.largest || off.is_nan() { off } else { self.largest };
        }
    }
}

/// Reads two tensors of one shape, chunk by chunk.
fn sums(
    (a, first): (TensorView<'_>, ElementType),
    (b, second): (TensorView<'_>, ElementType),
) -> Result<Sums> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut sums = Sums::default();
    let count = a.spec.elements() as u64;
    for at in (0..count).step_by(CHUNK as usize) {
        let end = (at + CHUNK).min(count);
        let range = |element: ElementType| at * element.size() as u64..end * element.size() as u64;
        let left = a.bytes(range(first), &mut left)?;
        let right = b.bytes(range(second), &mut right)?;
        x.resize((end - at) as usize, 0.0);
        first.decode(left, &mut x);
        if first == second && left == right {
            sums.add_equal(&x);
            continue;
        }
        y.resize((end - at) as usize, 0.0);
        second.decode(right, &mut y);
        sums.add(&x, &y);
    }
    Ok(sums)
}
