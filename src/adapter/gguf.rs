//! llama.cpp's adapters: a GGUF file as the tensors that every other adapter has, rows and names put
//! back into transformers' order.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::convention::gguf_names::{Architecture, Heads, row_order};
use super::convention::{self, Part};
use super::mlx::transposed;
use crate::error::{Error, ErrorKind, ExpertsError, Locate, Result};
use crate::format::access::Source;
use crate::format::gguf::{Gguf, read};
use crate::format::json::model_config;
use crate::format::{Checkpoint, Metadata, Tensor};

/// Pairs of the file's header (llama.cpp `convert_lora_to_gguf.py`).
pub const TYPE: (&str, &str) = ("general.type", "adapter");
/// See [`TYPE`].
pub const ADAPTER_TYPE: (&str, &str) = ("adapter.type", "lora");
/// See [`TYPE`].
pub const ARCHITECTURE: &str = "general.architecture";
/// The one alpha; 0 or absent means scale 1.
pub const ALPHA: &str = "adapter.lora.alpha";

/// Experts of one layer that are read.
pub(super) const MOST: usize = 8192;

impl Heads {
    /// What a model's config says of them.
    pub fn of_config(config: &Map<String, Value>) -> Option<Self> {
        // Those of the language model in a wrapper stand in its own part.
        let text = config.get("text_config").and_then(Value::as_object);
        let number = |field: &str| {
            let number = config.get(field).or_else(|| text?.get(field))?.as_u64()?;
            usize::try_from(number).ok().filter(|number| *number > 0)
        };
        let queries = number("num_attention_heads")?;
        Some(Self { queries, keys: number("num_key_value_heads").unwrap_or(queries) })
    }

    /// What the config beside a base says of them; none without one.
    ///
    /// # Errors
    /// If the config is there and cannot be read.
    pub fn of_base(base: &Path) -> Result<Option<Self>> {
        let above = base.parent().unwrap_or(Path::new(""));
        let config = model_config(if base.is_dir() { base } else { above })?;
        Ok(config.as_ref().and_then(Self::of_config))
    }
}

/// An adapter and the architecture it says it is for.
pub(super) struct Opened {
    pub(super) file: Checkpoint,
    pub(super) architecture: &'static Architecture,
    /// Modules whose rows could not be put back: nobody said how many heads there are.
    pub(super) reordered: Vec<String>,
}

/// Reads a file. `heads` are the base's, where they are known.
pub(super) fn open(path: &Path, source: Source, heads: Option<Heads>) -> Result<Opened> {
    let Gguf { mut metadata, tensors } = read(&source, check).in_file(path)?;
    let architecture = architecture(&metadata).in_file(path)?;
    let silent =
        metadata.get(ALPHA).is_some_and(|alpha| alpha.parse::<f64>().is_ok_and(|a| a == 0.0));
    if silent {
        metadata.shift_remove(ALPHA);
    }
    let mut reordered = Vec::new();
    let mut own: Vec<Tensor> = Vec::with_capacity(tensors.len());
    for tensor in tensors.into_iter().flat_map(apart) {
        let Some(key) = (convention::gguf().parse)(&tensor.0) else {
            own.push(tensor);
            continue;
        };
        let permuted = architecture.permuted && is_rotated(&key.module) && key.part == Part::Up;
        let tensor = match (key.part, permuted, heads) {
            (Part::EmbeddingDown, ..) => turned(tensor),
            (_, true, None) => {
                reordered.push(key.module);
                tensor
            }
            (_, true, Some(heads)) => {
                let heads = architecture.permuted_heads(&key.module, heads).unwrap_or(1);
                put_back(tensor, heads).in_file(path)?
            }
            _ => tensor,
        };
        own.push(tensor);
    }
    let file = Checkpoint::held(path, source, Some(metadata), own).in_file(path)?;
    Ok(Opened { file, architecture, reordered })
}

/// The matrices of a stack of experts, each with its number in its name; any other tensor as it is.
fn apart(tensor: Tensor) -> Vec<Tensor> {
    let (name, dtype, shape, bytes) = &tensor;
    let stack = name.rsplit_once(".weight.").filter(|(module, _)| module.ends_with("_exps"));
    let (Some((module, factor)), [experts @ 1..=MOST, rows, columns]) = (stack, shape.as_slice())
    else {
        return vec![tensor];
    };
    let size = bytes.len() / experts;
    let one = |(expert, bytes): (usize, &[u8])| {
        let name = format!("{module}.{expert}.weight.{factor}");
        (name, *dtype, vec![*rows, *columns], bytes.to_vec())
    };
    bytes.chunks_exact(size.max(1)).take(*experts).enumerate().map(one).collect()
}

/// The matrices of a stack under one name again, an expert's after another's.
///
/// # Errors
/// If their numbers are not 0, 1, 2, …, or they differ in shape or dtype.
pub(super) fn together(tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
    stacked(tensors, |name| {
        let (module, factor) = name.rsplit_once(".weight.")?;
        let (stack, expert) = module.rsplit_once('.')?;
        let expert = expert.parse::<usize>().ok().filter(|_| stack.ends_with("_exps"))?;
        Some((format!("{stack}.weight.{factor}"), expert))
    })
}

/// As [`together`], for any names: `place` has a matrix' stack and its number in it.
pub(super) fn stacked(
    tensors: Vec<Tensor>,
    place: impl Fn(&str) -> Option<(String, usize)>,
) -> Result<Vec<Tensor>> {
    let mut stacks: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    let mut all = Vec::new();
    for tensor in tensors {
        match place(&tensor.0) {
            Some((stack, expert)) => {
                stacks.entry(stack).or_default().insert(expert, tensor);
            }
            None => all.push(tensor),
        }
    }
    for (name, experts) in stacks {
        let count = experts.len();
        let Some((_, dtype, shape, _)) = experts.values().next().cloned() else { continue };
        let even = |(at, (expert, tensor)): (usize, (&usize, &Tensor))| {
            at == *expert && tensor.1 == dtype && tensor.2 == shape
        };
        if !experts.iter().enumerate().all(even) {
            let what = "number, rank or dtype";
            return Err(ExpertsError::Uneven { what }).in_tensor(&name);
        }
        let bytes = experts.into_values().flat_map(|(.., bytes)| bytes).collect();
        all.push((name, dtype, [vec![count], shape].concat(), bytes));
    }
    Ok(all)
}

fn is_rotated(module: &str) -> bool {
    module.ends_with(".attn_q") || module.ends_with(".attn_k")
}

fn check(metadata: &Metadata) -> Result<()> {
    for (key, expected) in [TYPE, ADAPTER_TYPE] {
        let found = metadata.get(key).map_or("nothing", String::as_str);
        if found != expected {
            let reason = format!("`{key}` is {found}, not {expected}: it is no LoRA adapter");
            return Err(ErrorKind::NoAdapter { reason }.into());
        }
    }
    Ok(())
}

fn architecture(metadata: &Metadata) -> Result<&'static Architecture> {
    let name = metadata.get(ARCHITECTURE).map_or("", String::as_str);
    Architecture::by_name(name).ok_or_else(|| {
        let reason = format!("architecture `{name}` has no table of names in this version");
        Error::from(ErrorKind::NoAdapter { reason })
    })
}

fn turned((name, dtype, shape, bytes): Tensor) -> Tensor {
    match shape.as_slice() {
        [rows, columns] => {
            let bytes = transposed(&bytes, *rows, *columns);
            (name, dtype, vec![*columns, *rows], bytes)
        }
        _ => (name, dtype, shape, bytes),
    }
}

/// Rows as llama.cpp has them, in transformers' order.
fn put_back((name, dtype, shape, bytes): Tensor, heads: usize) -> Result<Tensor> {
    let rows = shape.first().copied().unwrap_or(0);
    let order = row_order(rows, heads).ok_or_else(|| {
        let expected = format!("rows of {heads} heads of an even size");
        Error::from(ErrorKind::BadShape { expected, found: shape.clone() }).in_tensor(&name)
    })?;
    let size = bytes.len() / rows.max(1);
    let mut own = vec![0; bytes.len()];
    for (theirs, ours) in order.into_iter().enumerate() {
        let from = bytes.get(theirs * size..(theirs + 1) * size);
        if let (Some(to), Some(from)) = (own.get_mut(ours * size..(ours + 1) * size), from) {
            to.copy_from_slice(from);
        }
    }
    Ok((name, dtype, shape, own))
}

/// Rows as transformers has them, in llama.cpp's order; `None` if they do not divide.
pub fn reordered(bytes: &[u8], rows: usize, heads: usize) -> Option<Vec<u8>> {
    let order = row_order(rows, heads)?;
    let size = bytes.len() / rows.max(1);
    let rows = order.into_iter().map(|row| bytes.get(row * size..(row + 1) * size));
    Some(rows.collect::<Option<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Dtype;

    #[test]
    fn stacks_come_apart_and_together() {
        let one = |name: &str, shape: &[usize], bytes: &[u8]| {
            (name.to_owned(), Dtype::U8, shape.to_vec(), bytes.to_vec())
        };
        let name = "blk.0.ffn_up_exps.weight.lora_a";
        let stack = one(name, &[3, 1, 2], &[1, 2, 3, 4, 5, 6]);
        let parts = apart(stack.clone());
        let last = one("blk.0.ffn_up_exps.2.weight.lora_a", &[1, 2], &[5, 6]);
        assert_eq!((parts.len(), &parts[2]), (3, &last));
        let other = one("blk.0.attn_q.weight.lora_a", &[1, 2], &[7, 8]);
        assert_eq!(apart(other.clone()), std::slice::from_ref(&other));
        let all = [vec![other.clone()], parts.clone()].concat();
        assert_eq!(together(all).expect("even"), [other, stack]);
        assert!(together(parts[1..].to_vec()).is_err());
        let uneven = one("blk.0.ffn_up_exps.2.weight.lora_a", &[2, 2], &[5, 6, 7, 8]);
        assert!(together([&parts[..2], &[uneven]].concat()).is_err());
    }

    #[test]
    fn rows_come_back() {
        let bytes: Vec<u8> = (0..16).collect();
        let theirs = reordered(&bytes, 8, 2).expect("divides");
        assert_ne!(theirs, bytes);
        let tensor = ("a".to_owned(), Dtype::U8, vec![8, 2], theirs);
        assert_eq!(put_back(tensor, 2).expect("divides").3, bytes);
        assert_eq!(reordered(&bytes, 8, 3), None);
    }
}
