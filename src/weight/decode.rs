//! How codes become numbers, whatever the encoding.

use std::ops::Range;
use std::sync::Arc;

use super::Encode;
use crate::error::Result;

/// Numbers that some rows of a weight stand for.
pub trait Decode: std::fmt::Debug + Send + Sync {
    /// Puts rows `rows` of the weight into `out`, row after row. The weight is a matrix: its last dimension
    /// by all others.
    ///
    /// # Errors
    /// If reading fails; if a scale, a code or an index is not what it may be.
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()>;

    /// Rows that decode together: panels of a multiple of it, from a multiple on, cost least.
    fn grain(&self) -> usize {
        1
    }
}

/// A weight that an encoding recognised.
#[derive(Debug)]
pub(super) struct Recognised {
    /// The weight's (component-prefixed) name, as an unquantised checkpoint has it.
    pub(super) name: String,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// Bits and groups in words.
    pub(super) detail: String,
    /// How it decodes.
    pub(super) codes: Arc<dyn Decode>,
    /// How it is written, where a reference writer's arithmetic is known.
    pub(super) writer: Option<Arc<dyn Encode>>,
    /// How it is written in 8 bits beside others of its encoding, where loaders take both.
    pub(super) eight_bit: InEightBits,
    /// Names of all its tensors.
    pub(super) parts: Vec<String>,
}

/// What writes a weight in codes of 8 bits in the place of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct InEightBits {
    /// As whole numbers.
    pub(super) integers: Option<Arc<dyn Encode>>,
    /// As floats of 4 bits of exponent, 3 of fraction.
    pub(super) floats: Option<Arc<dyn Encode>>,
    /// Whether its file says what each weight is; else a model's config does.
    pub(super) in_file: bool,
}

impl Recognised {
    pub(super) fn new(shape: Vec<usize>, detail: String, codes: impl Decode + 'static) -> Self {
        let (name, codes, parts) = (String::new(), Arc::new(codes), Vec::new());
        let eight_bit = InEightBits::default();
        Self { name, shape, detail, codes, writer: None, eight_bit, parts }
    }

    /// One that is written as well as read.
    pub(super) fn written(
        shape: Vec<usize>,
        detail: String,
        codes: impl Decode + Encode + 'static,
    ) -> Self {
        let codes = Arc::new(codes);
        let writer = Some(Arc::clone(&codes) as Arc<dyn Encode>);
        let (name, parts) = (String::new(), Vec::new());
        Self { name, shape, detail, codes, writer, eight_bit: InEightBits::default(), parts }
    }
}
