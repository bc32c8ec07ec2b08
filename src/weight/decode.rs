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
    /// How it is written in whole numbers of 8 bits beside others of its encoding, where loaders take both.
    pub(super) eight_bit: Option<Arc<dyn Encode>>,
    /// Names of all its tensors.
    pub(super) parts: Vec<String>,
}

impl Recognised {
    pub(super) fn new(shape: Vec<usize>, detail: String, codes: impl Decode + 'static) -> Self {
        let (name, codes, parts) = (String::new(), Arc::new(codes), Vec::new());
        Self { name, shape, detail, codes, writer: None, eight_bit: None, parts }
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
        Self { name, shape, detail, codes, writer, eight_bit: None, parts }
    }
}
