//! TUNED − BASE: the one place where two stored tensors are subtracted. As a matrix that is read panel by panel
//! and never held ([`Difference`]), as weight · (T − W) added to values of a merge ([`Tuned`]), and as sums over
//! all elements ([`sums`]).

use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::TensorView;
use crate::math::ElementType;
use crate::math::kernel::stored_delta;
use crate::math::linalg::panels::Panels;
use crate::weight::element::{element_type, read_f64};

/// The difference of two stored tensors as a matrix. It is rounded once to f32, from f64 where one of them is
/// stored so.
pub(crate) struct Difference<'a> {
    base: Side<'a>,
    tuned: Side<'a>,
    rows: usize,
    columns: usize,
    /// The largest |tuned − base| seen so far; not a number once an element is not finite.
    pub(crate) largest: f32,
    wide: (Vec<f64>, Vec<f64>),
}

struct Side<'a> {
    view: TensorView<'a>,
    element: ElementType,
    scratch: Vec<u8>,
    values: Vec<f32>,
}

impl<'a> Side<'a> {
    fn new(view: TensorView<'a>) -> Result<Self> {
        let element = element_type(view.spec.dtype)
            .ok_or_else(|| ErrorKind::BadDtype { dtype: view.spec.dtype.to_string() })
            .in_tensor(&view.spec.name)?;
        Ok(Self { view, element, scratch: Vec::new(), values: Vec::new() })
    }

    fn bytes(&mut self, first: usize, count: usize) -> Result<&[u8]> {
        let size = self.element.size() as u64;
        let range = first as u64 * size..(first + count) as u64 * size;
        self.view.bytes(range, &mut self.scratch)
    }

    fn decode(&mut self, first: usize, count: usize) -> Result<()> {
        let element = self.element;
        let mut values = std::mem::take(&mut self.values);
        values.resize(count, 0.0);
        element.decode_f32(self.bytes(first, count)?, &mut values);
        self.values = values;
        Ok(())
    }

    fn decode_wide(&mut self, first: usize, values: &mut Vec<f64>, count: usize) -> Result<()> {
        let element = self.element;
        values.resize(count, 0.0);
        element.decode(self.bytes(first, count)?, values);
        Ok(())
    }
}

impl<'a> Difference<'a> {
    pub(crate) fn new(
        base: TensorView<'a>,
        tuned: TensorView<'a>,
        (rows, columns): (usize, usize),
    ) -> Result<Self> {
        let (base, tuned) = (Side::new(base)?, Side::new(tuned)?);
        Ok(Self { base, tuned, rows, columns, largest: 0.0, wide: (Vec::new(), Vec::new()) })
    }

    fn is_wide(&self) -> bool {
        self.base.element == ElementType::F64 || self.tuned.element == ElementType::F64
    }

    /// Says which element of which checkpoint is not finite.
    pub(crate) fn explain_non_finite(&mut self) -> Result<Error> {
        for row in 0..self.rows {
            let first = row * self.columns;
            for side in [&mut self.base, &mut self.tuned] {
                let mut values = Vec::new();
                side.decode_wide(first, &mut values, self.columns)?;
                let at = values.iter().position(|value| !value.is_finite());
                if let Some(at) = at {
                    let value = values.get(at).map(ToString::to_string).unwrap_or_default();
                    return Ok(Error::from(ErrorKind::NonFiniteBase { index: first + at, value })
                        .in_tensor(&side.view.spec.name)
                        .in_file(&side.view.shard.path));
                }
            }
        }
        let reason = "the difference is too large for f32".to_owned();
        Ok(Error::from(ErrorKind::BadOption(reason)).in_tensor(&self.base.view.spec.name))
    }
}

impl Panels for Difference<'_> {
    type Error = Error;

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&mut self, first: usize, out: &mut [f32]) -> Result<()> {
        let at = first * self.columns;
        if self.is_wide() {
            let (mut base, mut tuned) = std::mem::take(&mut self.wide);
            self.base.decode_wide(at, &mut base, out.len())?;
            self.tuned.decode_wide(at, &mut tuned, out.len())?;
            for ((slot, new), old) in out.iter_mut().zip(&tuned).zip(&base) {
                *slot = (new - old) as f32;
            }
            self.wide = (base, tuned);
        } else {
            self.base.decode(at, out.len())?;
            self.tuned.decode(at, out.len())?;
            for ((slot, new), old) in out.iter_mut().zip(&self.tuned.values).zip(&self.base.values)
            {
                *slot = new - old;
            }
        }
        let mut largest = self.largest;
        for value in out.iter() {
            largest = if value.abs() > largest { value.abs() } else { largest };
        }
        self.largest = largest;
        Ok(())
    }
}

/// A tuned tensor ready to be read.
pub(crate) struct Tuned<'a> {
    view: TensorView<'a>,
    weight: f64,
}

impl<'a> Tuned<'a> {
    /// T, a difference from which has this weight.
    pub(crate) fn new(view: TensorView<'a>, weight: f64) -> Self {
        Self { view, weight }
    }

    /// Elements `first..first + count` of T, all of them finite.
    fn read(&self, first: usize, count: usize) -> Result<Vec<f64>> {
        let values = read_f64(self.view, first, count)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let value = values.get(at).map(ToString::to_string).unwrap_or_default();
                Err(ErrorKind::NonFinite { index: first + at, value })
                    .in_tensor(&self.view.spec.name)
                    .in_file(&self.view.shard.path)
            }
        }
    }

    /// T − W of elements `first..` as f32, W being these bytes of a base; whether the types are such
    /// that it can.
    pub(crate) fn subtract(
        &self,
        (base, element): (&[u8], ElementType),
        first: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some(kernel_type) = self.kernel_type().filter(|_| stored_delta::takes(element)) else {
            return Ok(false);
        };
        let bytes = stored(self.view, kernel_type, first, out.len(), scratch)?;
        if kernel_type == element && bytes == base {
            // The same bytes have no difference, whatever they are.
            out.fill(0.0);
        } else if !stored_delta::subtract((kernel_type, element), bytes, base, out) {
            self.read(first, out.len())?;
        }
        Ok(true)
    }

    /// The type, if the kernels take it.
    fn kernel_type(&self) -> Option<ElementType> {
        element_type(self.view.spec.dtype).filter(|element| stored_delta::takes(*element))
    }

    /// Whether its bytes in `range` are just these, in this dtype.
    fn holds(
        &self,
        base: TensorView<'_>,
        range: &std::ops::Range<u64>,
        bytes: &[u8],
    ) -> Result<bool> {
        let mut scratch = Vec::new();
        Ok(self.view.spec.dtype == base.spec.dtype
            && self.view.bytes(range.clone(), &mut scratch)? == bytes)
    }
}

/// Adds all differences to elements `first..` of the base, which `values` hold.
pub(crate) fn add_all(differences: &[Tuned<'_>], values: &mut [f64], first: usize) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let base = values.to_vec();
    for difference in differences {
        let tuned = difference.read(first, base.len())?;
        for ((value, tuned), base) in values.iter_mut().zip(&tuned).zip(&base) {
            // 0 is not added, which would take the sign of a −0.
            if tuned != base {
                *value += difference.weight * (tuned - base);
            }
        }
    }
    Ok(())
}

/// Adds all differences to `values`, which these bytes of a base, elements `first..`, stand for;
/// whether the types are such that it can.
pub(crate) fn add_stored(
    differences: &[Tuned<'_>],
    (base, element): (&[u8], ElementType),
    values: &mut [f64],
    first: usize,
    scratch: &mut Vec<u8>,
) -> Result<bool> {
    if differences.iter().any(|difference| difference.kernel_type().is_none()) {
        return Ok(false);
    }
    for difference in differences {
        let Some(kernel_type) = difference.kernel_type() else { return Ok(false) };
        let bytes = stored(difference.view, kernel_type, first, values.len(), scratch)?;
        if !stored_delta::add_difference(
            (kernel_type, element),
            bytes,
            base,
            difference.weight,
            values,
        ) {
            difference.read(first, values.len())?;
        }
    }
    Ok(true)
}

/// The bytes of elements `first..first + count` of a tensor.
pub(crate) fn stored<'s>(
    view: TensorView<'s>,
    element: ElementType,
    first: usize,
    count: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8]> {
    let size = element.size() as u64;
    view.bytes(first as u64 * size..(first + count) as u64 * size, scratch)
}

/// The base's bytes of elements `first..first + count`, if all differences are 0 there to the bit.
pub(crate) fn unchanged<'s>(
    differences: &[Tuned<'_>],
    base: TensorView<'s>,
    first: usize,
    count: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<&'s [u8]>> {
    let size = base.spec.dtype.bitsize() as u64 / 8;
    let range = first as u64 * size..(first + count) as u64 * size;
    let bytes = base.bytes(range.clone(), scratch)?;
    for difference in differences {
        if !difference.holds(base, &range, bytes)? {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Elements compared at a time.
const CHUNK: u64 = 1 << 18;

/// What two tensors' elements come to.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// ‖A − B‖², ‖A‖², ‖B‖².
    pub(crate) squares: [f64; 3],
    /// The largest |a − b|; not a number if one is not.
    pub(crate) largest: f64,
    /// How many differ.
    pub(crate) elements: u64,
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
///
/// # Errors
/// If reading fails.
pub(crate) fn sums(
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
