//! Which of ggml's types a weight that changes has in a GGUF result.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, QuantError, Result};
use crate::format::{Dtype, ggml};
use crate::ops::shared::options::GGUF_TYPES;
use crate::weight::{Encode, Weight, ggml_writer};

/// ggml's numbers of the types that are written, by blocks of 256 and of 32 or 64 elements, the smallest first.
const LADDERS: [&[u32]; 2] =
    [&[34, 35, 10, 11, 23, 12, 13, 14, Q8_0], &[39, 40, 20, 2, 3, 6, 7, Q8_0]];
const Q8_0: u32 = 8;

/// All types that are written.
fn written() -> impl Iterator<Item = u32> {
    LADDERS.iter().flat_map(|ladder| ladder.iter().copied())
}

/// What is asked of the types of weights that change; all others keep their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Types {
    /// For each the smallest, from its own upwards, in which enough of its update survives.
    #[default]
    Auto,
    /// Its own.
    Keep,
    /// One for all of them.
    All(Type),
}

/// A type of ggml's that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Blocks, by ggml's number.
    Blocks(u32),
    /// Plain numbers.
    Plain(Dtype),
}

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let plain = |dtype| Ok(Self::All(Type::Plain(dtype)));
        match text {
            "auto" => Ok(Self::Auto),
            "keep" => Ok(Self::Keep),
            "f16" => plain(Dtype::F16),
            "bf16" => plain(Dtype::BF16),
            "f32" => plain(Dtype::F32),
            name => {
                let kind = written().find(|kind| ggml::name(*kind).eq_ignore_ascii_case(name));
                let unknown = || format!("`{name}` is none of {}", GGUF_TYPES.join(", "));
                Ok(Self::All(Type::Blocks(kind.ok_or_else(unknown)?)))
            }
        }
    }
}

impl TryFrom<String> for Types {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<Types> for String {
    fn from(types: Types) -> Self {
        match types {
            Types::Auto => "auto".to_owned(),
            Types::Keep => "keep".to_owned(),
            Types::All(found) => found.name().to_ascii_lowercase(),
        }
    }
}

impl Type {
    /// The type of this name of ggml's, if it is written.
    fn named(name: &str) -> Option<Self> {
        let blocks = written().find(|kind| ggml::name(*kind) == name).map(Self::Blocks);
        let plain = [Dtype::F32, Dtype::F16, Dtype::BF16];
        let plain = plain.into_iter().find(|dtype| dtype.to_string() == name).map(Self::Plain);
        blocks.or(plain)
    }

    /// ggml's name of it.
    pub fn name(self) -> String {
        match self {
            Self::Blocks(kind) => ggml::name(kind).to_owned(),
            Self::Plain(dtype) => dtype.to_string(),
        }
    }

    /// What writes a weight so; none for plain numbers.
    ///
    /// # Errors
    /// If rows of the weight are not whole blocks.
    pub(in crate::ops::merge) fn writer(self, weight: &Weight) -> Result<Option<Arc<dyn Encode>>> {
        let Self::Blocks(kind) = self else { return Ok(None) };
        let Some(stored) = weight.parts.first() else { return Ok(None) };
        let writer = match weight.writer() {
            Some(same) if weight.detail == ggml::name(kind) => Some(Arc::clone(same)),
            _ => ggml_writer(stored, kind, &weight.shape),
        };
        let encoding = || format!("{}, rows of {}", self.name(), weight.matrix().1);
        let unwritten = || stored.error(QuantError::Unwritten { encoding: encoding() });
        writer.map(Some).ok_or_else(unwritten)
    }
}

impl Types {
    /// The type of a weight that changes; `raised` has those of which too little survived in a smaller one.
    ///
    /// # Errors
    /// If its own is to be kept and is only read.
    pub(in crate::ops::merge) fn of(
        self,
        weight: &Weight,
        raised: &BTreeMap<String, Type>,
    ) -> Result<Type> {
        let own = Type::named(&weight.detail);
        match (self, own) {
            (Self::All(found), Some(Type::Plain(_))) if is_matrix(weight) => Ok(found),
            (_, Some(plain @ Type::Plain(_))) => Ok(plain),
            (Self::All(found), _) => Ok(found),
            (Self::Auto, own) => Ok(raised.get(&weight.name).copied().unwrap_or_else(|| {
                let whole = weight.matrix().1.is_multiple_of(32);
                let blocks = own.unwrap_or(Type::Blocks(Q8_0));
                if whole { blocks } else { Type::Plain(Dtype::BF16) }
            })),
            (Self::Keep, Some(own)) => Ok(own),
            (Self::Keep, None) => {
                let encoding = format!("{}, which is only read,", weight.detail);
                let error = QuantError::Unwritten { encoding };
                Err(match weight.parts.first() {
                    Some(stored) => stored.error(error),
                    None => error.into(),
                })
            }
        }
    }
}

/// Endings of matrices that llama.cpp leaves as they are (`llama-quant.cpp`, `tensor_allows_quantization`).
const UNQUANTISED: [&str; 4] =
    ["_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"];

/// Whether a weight is of those that llama.cpp quantises.
fn is_matrix(weight: &Weight) -> bool {
    let name = weight.name.as_str();
    weight.shape.len() > 1
        && name.ends_with(".weight")
        && !UNQUANTISED.iter().any(|ending| name.ends_with(ending))
}

/// The next larger type that rows of so many columns can have.
pub(in crate::ops::merge) fn above(found: Type, columns: usize) -> Option<Type> {
    let Type::Blocks(kind) = found else { return None };
    let ladder = LADDERS.iter().find(|ladder| ladder.contains(&kind))?;
    let fits = |kind: &&u32| {
        ggml::block(**kind).is_some_and(|(elements, _)| columns.is_multiple_of(elements))
    };
    let above = ladder.iter().skip_while(|found| **found != kind).skip(1).find(fits);
    Some(above.map_or(Type::Plain(Dtype::BF16), |next| Type::Blocks(*next)))
}

/// Fails if types are asked for and the result has none.
///
/// # Errors
/// [`ErrorKind::BadOption`].
pub(in crate::ops::merge) fn check(types: Option<Types>, is_gguf: bool) -> Result<()> {
    match types {
        Some(_) if !is_gguf => {
            let reason = "--types is for a result in GGUF: -o OUT.gguf, or a directory";
            Err(ErrorKind::BadOption(reason.to_owned()).into())
        }
        _ => Ok(()),
    }
}
