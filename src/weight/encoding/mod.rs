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

use super::decode::Recognised;
use super::model::Model;
use super::{Encode, Stored};
use crate::error::Result;

pub(super) use fp8_scaled::rows as float8_rows;
pub(crate) use ggml::writer as ggml_writer;
pub(super) use int_packed::eight_bit as eight_bit_packed;
pub(super) use mlx::eight_bit as eight_bit_mlx;
pub(super) use plain::{PLAIN, cast};

/// One way of storing weights.
pub struct Encoding {
    /// Its name in reports.
    pub name: &'static str,
    /// Whether a tensor is the codes of a weight stored this way; its companions are checked.
    pub(super) recognise: fn(&Model<'_>, &Stored) -> Result<Option<Recognised>>,
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

/// What writes a matrix, stored as numbers, of so many rows and columns.
type Writer = fn(&Stored, (usize, usize)) -> Option<Arc<dyn Encode>>;

/// A way of storing any matrix, by a name: an encoding with the settings that its package has by default.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What writes a matrix of these rows and columns so.
    pub(super) writer: Writer,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What trainers keep the base in while an adapter learns (QLoRA).
pub static TRAINED: [Setting; 5] =
    [bnb_4bit::NF4, bnb_4bit::NF4_NESTED, bnb_4bit::FP4, bnb_4bit::FP4_NESTED, bnb_int8::INT8];

/// Their names.
pub const TRAINED_NAMES: [&str; 5] = {
    let [a, b, c, d, e] = &TRAINED;
    [a.name, b.name, c.name, d.name, e.name]
};

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
