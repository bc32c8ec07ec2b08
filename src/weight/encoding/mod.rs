//! How weights are stored: one file an encoding, each with the rule that tells it apart and the loop that
//! decodes its rows. [`ENCODINGS`] is the one list; what none of them claims is plain.

mod awq;
mod bnb_4bit;
mod bnb_int8;
mod comfy;
mod fp8_block;
mod fp8_scaled;
mod ggml;
mod gptq;
mod int_packed;
mod int_quantized;
mod mlx;
mod mxfp4;
mod mxfp4_packed;
mod nvfp4;
mod plain;
mod unread;

use std::sync::Arc;

use super::model::Model;
use super::{Decode, Stored};
use crate::error::Result;

pub(super) use plain::{PLAIN, cast};

/// One way of storing weights.
pub struct Encoding {
    /// Its name in reports.
    pub name: &'static str,
    /// Whether a tensor is the codes of a weight stored this way; its companions are checked.
    pub(super) recognise: fn(&Model<'_>, &Stored) -> Result<Option<Recognised>>,
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
    /// Names of all its tensors.
    pub(super) parts: Vec<String>,
}

impl Recognised {
    fn new(shape: Vec<usize>, detail: String, codes: impl Decode + 'static) -> Self {
        let (name, codes, parts) = (String::new(), Arc::new(codes), Vec::new());
        Self { name, shape, detail, codes, parts }
    }
}

/// All encodings; the first that recognises a tensor has it.
pub static ENCODINGS: &[Encoding] = &[
    unread::ENCODING,
    ggml::ENCODING,
    bnb_4bit::ENCODING,
    bnb_int8::ENCODING,
    comfy::ENCODING,
    gptq::ENCODING,
    awq::ENCODING,
    mlx::ENCODING,
    mxfp4::ENCODING,
    mxfp4_packed::ENCODING,
    nvfp4::ENCODING,
    int_packed::ENCODING,
    int_quantized::ENCODING,
    fp8_block::ENCODING,
    fp8_scaled::ENCODING,
];

/// A tensor's module: its name without `.weight`.
fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// A stack of matrices: how many, rows, columns of each.
fn stack(shape: &[usize]) -> Option<(usize, usize, usize)> {
    match shape {
        [stack @ .., rows, columns] => Some((stack.iter().product(), *rows, *columns)),
        _ => None,
    }
}
