//! ggml's block types, in GGUF files (gguf-py `quants.py`, ggml `ggml-quants.c`). A block is decoded alone, and a row
//! never shares one. The files below hold a family of types each.
//!
//! In ComfyUI's GGUF files `comfy.gguf.orig_shape.NAME` is a tensor's true shape.

mod k_quants;
mod k_written;
mod nonlinear;
mod search;
mod simple;
mod table_written;
mod ternary;
mod written;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::{Encoding, Recognised};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::format::ggml;
use crate::math::kernel::loops::{Loop, widest};
use crate::weight::model::Model;
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing, stored};
use written::{Blocks, Put};

pub(super) const ENCODING: Encoding = Encoding { name: NAME, companions: &[], recognise };
/// Its name, which weights read from a GGUF base have in whatever file.
pub(in crate::weight) const NAME: &str = "ggml";

/// Decodes whole blocks.
type Read = fn(&[u8], &mut [f32]);

/// A type, known when the loop over its blocks is compiled.
trait Kind {
    fn read(block: &[u8], out: &mut [f32]);
}

/// Blocks of so many bytes and elements.
struct All<'a, const BYTES: usize, const ELEMENTS: usize, K>(
    &'a [u8],
    &'a mut [f32],
    PhantomData<K>,
);

impl<const BYTES: usize, const ELEMENTS: usize, K: Kind> Loop for All<'_, BYTES, ELEMENTS, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let blocks = self.0.as_chunks::<BYTES>().0.iter();
        for (block, values) in blocks.zip(self.1.as_chunks_mut::<ELEMENTS>().0) {
            // Numbers of its own cannot overlap the block: only so does the compiler make vectors of a whole block.
            let mut numbers = [0.0; ELEMENTS];
            K::read(block, &mut numbers);
            *values = numbers;
        }
    }
}

/// What decodes blocks of so many bytes and elements, each by a function that is inlined into the loop.
macro_rules! read {
    ($bytes:literal, $elements:literal, $read:path) => {
        |bytes, out| {
            struct This;
            impl Kind for This {
                #[inline(always)]
                fn read(block: &[u8], out: &mut [f32]) {
                    $read(block, out);
                }
            }
            widest(All::<$bytes, $elements, This>(bytes, out, PhantomData));
        }
    };
}

/// Types that are read, by ggml's number.
const TYPES: [(u32, Read); 16] = [
    (2, read!(18, 32, simple::q4_0)),
    (3, read!(20, 32, simple::q4_1)),
    (6, read!(22, 32, simple::q5_0)),
    (7, read!(24, 32, simple::q5_1)),
    (8, read!(34, 32, simple::q8_0)),
    (10, read!(84, 256, k_quants::q2_k)),
    (11, read!(110, 256, k_quants::q3_k)),
    (12, read!(144, 256, k_quants::q4_k)),
    (13, read!(176, 256, k_quants::q5_k)),
    (14, read!(210, 256, k_quants::q6_k)),
    (20, read!(18, 32, nonlinear::iq4_nl)),
    (23, read!(136, 256, nonlinear::iq4_xs)),
    (34, read!(54, 256, ternary::tq1_0)),
    (35, read!(66, 256, ternary::tq2_0)),
    (39, read!(17, 32, nonlinear::mxfp4)),
    (40, read!(36, 64, nonlinear::nvfp4)),
];

#[derive(Debug)]
struct Stretch {
    codes: Stored,
    decode: Read,
    /// Elements and bytes of a block.
    size: (usize, usize),
    columns: usize,
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some((kind, shape)) = model.blocks(&stored.name) else { return Ok(None) };
    let (name, size) = (ggml::name(kind), ggml::block(kind));
    let decode = TYPES.iter().find(|row| row.0 == kind).map(|row| row.1);
    let (Some(decode), Some(size)) = (decode, size) else {
        return Err(Model::unsupported(stored, format!("ggml's type {name}")));
    };
    let columns = shape.last().copied().unwrap_or(1);
    let shape = true_shape(model, stored, shape)?;
    // Other rows than the file's: then all is one row of blocks.
    let columns = if shape.last() == Some(&columns) { columns } else { size.0 };
    let codes = Stretch { codes: stored.clone(), decode, size, columns };
    let is_whole = codes.columns == shape.last().copied().unwrap_or(1);
    let writer = Writer::new((stored, true), kind, &shape).filter(|_| is_whole);
    let codes = Flat { width: shape.last().copied().unwrap_or(1), blocks: codes };
    let mut found = Recognised::new(shape, name.to_owned(), codes);
    found.writer = writer.map(|writer| Arc::new(writer) as Arc<dyn Encode>);
    Ok(Some(model.recognised(&stored.name, &stored.name, &[&stored.name], found)))
}

/// Writes a weight's rows as blocks of a type.
#[derive(Debug)]
struct Writer {
    /// The tensor that the weight is stored in.
    stored: Stored,
    /// Whether that tensor has blocks of the same type, whose scales can be kept.
    is_same: bool,
    put: Put,
    decode: Read,
    /// Elements and bytes of a block.
    size: (usize, usize),
    /// The weight's shape.
    shape: Vec<usize>,
}

/// What writes a weight that is stored in a tensor of a GGUF file as blocks of a type; none if the type is only read,
/// or rows of the weight are not whole blocks of it.
pub(crate) fn writer(stored: &Stored, kind: u32, shape: &[usize]) -> Option<Arc<dyn Encode>> {
    Some(Arc::new(Writer::new((stored, false), kind, shape)?))
}

impl Writer {
    fn new((stored, is_same): (&Stored, bool), kind: u32, shape: &[usize]) -> Option<Self> {
        let size = ggml::block(kind)?;
        let (put, decode) = (written::writer(kind)?, TYPES.iter().find(|row| row.0 == kind)?.1);
        let is_whole = shape.last()?.is_multiple_of(size.0);
        let (stored, shape) = (stored.clone(), shape.to_vec());
        is_whole.then_some(Self { stored, is_same, put, decode, size, shape })
    }

    /// Bytes of a row of some columns.
    fn row_bytes(&self, columns: usize) -> usize {
        columns / self.size.0 * self.size.1
    }
}

impl Encode for Writer {
    fn parts(&self, _: Writing) -> Vec<Part> {
        let mut shape = self.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = self.row_bytes(*last);
        }
        vec![Part { name: self.stored.name.clone(), dtype: Dtype::U8, shape }]
    }

    fn grain(&self) -> usize {
        1
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let row = self.row_bytes(self.shape.last().copied().unwrap_or(1));
        let place = panel.rows.start * row;
        let (mut bytes, mut scratch) = (vec![0; panel.rows.len() * row], Vec::new());
        let range = place..place + bytes.len();
        let kept = match self.is_same && !panel.fresh() {
            true => Some(self.stored.bytes(range, &mut scratch)?),
            false => None,
        };
        let (values, draws, size) = (panel.values, panel.draws(), self.size);
        (self.put)(Blocks { values, kept, draws, size, bytes: &mut bytes });
        let first = out.values.len();
        out.values.resize(first + values.len(), 0.0);
        let read = out.values.get_mut(first..).unwrap_or_default();
        (self.decode)(&bytes, read);
        if let Some((at, value)) = not_finite(read) {
            let index = place / size.1 + at / size.0;
            return Err(self.stored.error(QuantError::ScaleNotFinite { index, value }));
        }
        out.put(0, place, bytes);
        Ok(())
    }
}

/// The shape that ComfyUI's files say a tensor had before it was reshaped.
fn true_shape(model: &Model<'_>, stored: &Stored, shape: Vec<usize>) -> Result<Vec<usize>> {
    let name = model.module(&stored.name);
    let key = format!("comfy.gguf.orig_shape.{name}");
    let Some(text) = model.metadata(&stored.name, &key) else { return Ok(shape) };
    let numbers = text.trim_matches(['[', ']']).split(',').map(|number| number.trim().parse().ok());
    let told: Option<Vec<usize>> = numbers.collect();
    let elements = stored::elements(&shape);
    told.filter(|told| stored::elements(told) == elements).ok_or_else(|| {
        let config = format!("its shape was {text}");
        let tensors = format!("it has {elements} elements");
        stored.error(QuantError::Conflict { config, tensors })
    })
}

impl Stretch {
    /// Whole blocks, counted from the first.
    fn decode(&self, blocks: Range<usize>, out: &mut [f32]) -> Result<()> {
        let mut scratch = Vec::new();
        let (elements, bytes) = self.size;
        let stored = self.codes.bytes(blocks.start * bytes..blocks.end * bytes, &mut scratch)?;
        (self.decode)(stored, out);
        let Some((at, _)) = not_finite(out) else { return Ok(()) };
        let (index, value) = (blocks.start * elements + at, "not a finite number");
        Err(self.codes.error(QuantError::CodeNotFinite { index, value }))
    }
}

/// Rows of any width over blocks that run on.
#[derive(Debug)]
struct Flat {
    width: usize,
    blocks: Stretch,
}

impl Decode for Flat {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let elements = self.blocks.size.0;
        let flat = rows.start * self.width..rows.end * self.width;
        let blocks = flat.start / elements..flat.end.div_ceil(elements);
        if self.blocks.columns == self.width {
            return self.blocks.decode(blocks, out);
        }
        let mut whole = vec![0.0; blocks.len() * elements];
        self.blocks.decode(blocks.clone(), &mut whole)?;
        let lead = flat.start - blocks.start * elements;
        out.copy_from_slice(whole.get(lead..lead + flat.len()).unwrap_or_default());
        Ok(())
    }
}

/// The first number that is not finite, and its place.
fn not_finite(values: &[f32]) -> Option<(usize, f32)> {
    struct Finite<'a>(&'a [f32]);
    impl Loop for Finite<'_> {
        type Output = bool;

        #[inline(always)]
        fn run(self) -> bool {
            self.0.iter().fold(true, |all, value| all & value.is_finite())
        }
    }
    if widest(Finite(values)) {
        return None;
    }
    let at = values.iter().position(|value| !value.is_finite())?;
    Some((at, values.get(at).copied().unwrap_or(f32::NAN)))
}

/// The half-precision number at a byte.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_sizes_of_the_format() {
        for (kind, decode) in TYPES {
            let (elements, bytes) = ggml::block(kind).expect("a type of the format");
            let mut out = vec![f32::NAN; elements];
            decode(&vec![0; bytes], &mut out);
            assert!(out.iter().all(|value| value.is_finite()), "{}", ggml::name(kind));
        }
    }
}
