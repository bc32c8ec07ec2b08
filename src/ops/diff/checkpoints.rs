//! Tensor by tensor, as they are stored.

use rayon::prelude::*;

use super::report::{Compared, Differs, Found, Report, report};
use crate::adapter::tensor::element_type;
use crate::error::{Locate, Result};
use crate::format::{Checkpoint, TensorView};
use crate::ops::Progress;
use crate::ops::shared::pairing;
use crate::weight::difference::sums;
use crate::weight::pair::Pair;

/// Compares all tensors of two files.
pub(super) fn compare(
    compared: Compared,
    a: &Checkpoint,
    b: &Checkpoint,
    tolerance: f64,
    progress: &dyn Progress,
) -> Result<Report> {
    let paired = pairing::paired(a, b)?;
    let stored = paired.pairs.iter().map(|pair| (pair.base.as_str(), pair.clone()));
    // A head that one of them ties is its embedding.
    let parted = paired.head.as_ref().filter(|head| head.parted).map(|head| {
        let (base, tuned) = (head.embedding.clone(), head.tuned.clone());
        (head.name.as_str(), Pair { base, tuned })
    });
    let shared: Vec<(&str, Pair)> = stored.chain(parted).collect();
    let bytes = |pair: &Pair| a.tensor(&pair.base).map_or(0, |view| view.spec.bytes());
    progress.begin(shared.iter().map(|(_, pair)| bytes(pair)).sum());
    let found = shared.par_iter().map(|(name, pair)| {
        let (first, second) = paired.views(pair)?;
        let found = tensors(name, first, second, tolerance).in_tensor(name);
        progress.advance(bytes(pair));
        found
    });
    let found = found.collect::<Result<Vec<_>>>()?;
    Ok(report(compared, found, paired.only_base, paired.only_tuned))
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
