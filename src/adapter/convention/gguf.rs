//! llama.cpp's adapters: `blk.0.attn_q.weight.lora_a` and `.lora_b` in a GGUF file (llama.cpp
//! `convert_lora_to_gguf.py`, `src/llama-adapter.cpp`). What the names mean in a model is
//! [`super::gguf_names`]'s.

use std::path::Path;

use super::definition::{Convention, Holds, Hooks, Names, ScalePlace};
use super::gguf_names::{Architecture, row_order};
use super::opened::{Opened, ReadOptions};
use super::shared::{MOST_EXPERTS, one_for_all, transposed};
use crate::adapter::key::{Key, MissingAlpha, Part};
use crate::adapter::new_adapter::{Container, Described, Output};
use crate::adapter::scale::GGUF_ALPHA;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::access::Source;
use crate::format::gguf::{Gguf, read};
use crate::format::{Checkpoint, Metadata, Tensor};

pub(super) static CONVENTION: Convention = Convention {
    name: "gguf",
    summary: "one GGUF file with llama.cpp's names, one alpha",
    missing_alpha: MissingAlpha::One,
    scale: ScalePlace::Uniform,
    names: Names::Gguf,
    output: Output::File("gguf"),
    holds: Holds { replacements: false, families: None },
    parse,
    format,
    recognises,
    hooks: Hooks {
        container: Container::Gguf,
        open_container: Some(open),
        stack_of: Some(stack_of),
        orient,
        describe,
        ..Hooks::PLAIN
    },
};

/// Pairs of the file's header (llama.cpp `convert_lora_to_gguf.py`).
const TYPE: (&str, &str) = ("general.type", "adapter");
/// See [`TYPE`].
const ADAPTER_TYPE: (&str, &str) = ("adapter.type", "lora");
/// See [`TYPE`].
pub(crate) const ARCHITECTURE: &str = "general.architecture";

/// The one tensor that is an embedding.
const EMBEDDING: &str = "token_embd";

fn parse(key: &str) -> Option<Key> {
    let (tensor, ending) = key.rsplit_once('.')?;
    let module = tensor.strip_suffix(".weight").filter(|module| !module.is_empty())?;
    let part = match (ending, module == EMBEDDING) {
        ("lora_a", false) => Part::Down,
        ("lora_b", false) => Part::Up,
        ("lora_a", true) => Part::EmbeddingDown,
        ("lora_b", true) => Part::EmbeddingUp,
        _ => return None,
    };
    Some(Key { module: module.to_owned(), part })
}

fn format(key: &Key) -> Option<String> {
    let ending = match (key.part, key.module == EMBEDDING) {
        (Part::Down, false) | (Part::EmbeddingDown, true) => "lora_a",
        (Part::Up, false) | (Part::EmbeddingUp, true) => "lora_b",
        _ => return None,
    };
    Some(format!("{}.weight.{ending}", key.module))
}

fn recognises(key: &str) -> bool {
    key.ends_with(".weight.lora_a")
}

/// Reads a file: rows and names in transformers' order, where the base's heads are known.
fn open(path: &Path, source: Source, options: &ReadOptions<'_>) -> Result<Opened> {
    let Gguf { mut metadata, tensors } = read(&source, check).in_file(path)?;
    let architecture = architecture(&metadata).in_file(path)?;
    let silent =
        metadata.get(GGUF_ALPHA).is_some_and(|alpha| alpha.parse::<f64>().is_ok_and(|a| a == 0.0));
    if silent {
        metadata.shift_remove(GGUF_ALPHA);
    }
    let mut reordered = Vec::new();
    let mut ordered: Vec<Tensor> = Vec::with_capacity(tensors.len());
    for tensor in tensors.into_iter().flat_map(apart) {
        let Some(key) = parse(&tensor.0) else {
            ordered.push(tensor);
            continue;
        };
        let permuted = architecture.permuted && is_rotated(&key.module) && key.part == Part::Up;
        let tensor = match (key.part, permuted, options.heads) {
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
        ordered.push(tensor);
    }
    let file = Checkpoint::held(path, source, Some(metadata), ordered).in_file(path)?;
    Ok(Opened { architecture: Some((architecture, reordered)), ..Opened::new(file) })
}

/// The matrices of a stack of experts, each with its number in its name; any other tensor as it is.
fn apart(tensor: Tensor) -> Vec<Tensor> {
    let (name, dtype, shape, bytes) = &tensor;
    let stack = name.rsplit_once(".weight.").filter(|(module, _)| module.ends_with("_exps"));
    let (Some((module, factor)), [experts @ 1..=MOST_EXPERTS, rows, columns]) =
        (stack, shape.as_slice())
    else {
        return vec![tensor];
    };
    let size = bytes.len() / experts;
    let matrix = |(expert, bytes): (usize, &[u8])| {
        let name = format!("{module}.{expert}.weight.{factor}");
        (name, *dtype, vec![*rows, *columns], bytes.to_vec())
    };
    bytes.chunks_exact(size.max(1)).take(*experts).enumerate().map(matrix).collect()
}

/// The stack of a module of one expert, and its number: `blk.0.ffn_up_exps.3` is the fourth of
/// `blk.0.ffn_up_exps`.
fn stack_of(module: &str) -> Option<(String, usize)> {
    let (stack, expert) = module.rsplit_once('.')?;
    let expert = expert.parse().ok().filter(|_| stack.ends_with("_exps"))?;
    Some((stack.to_owned(), expert))
}

/// An embedding's A is stored entries × rank.
fn orient(part: Part, tensor: Tensor) -> Tensor {
    if part == Part::EmbeddingDown { turned(tensor) } else { tensor }
}

/// llama.cpp's pairs; `general.architecture` is the caller's.
fn describe(modules: &[Described<'_>], metadata: &mut Metadata) -> Result<()> {
    let alpha = match one_for_all(modules.iter().map(|module| module.alpha), "alpha") {
        Ok(alpha) => alpha,
        // No alpha means scale 1, whatever the ranks.
        Err(_) if modules.iter().all(|module| module.scale == 1.0) => 0.0,
        Err(error) => return Err(error),
    };
    metadata.retain(|key, _| key.starts_with("general."));
    for (key, value) in [TYPE, ADAPTER_TYPE] {
        metadata.insert(key.to_owned(), value.to_owned());
    }
    metadata.insert(GGUF_ALPHA.to_owned(), alpha.to_string());
    Ok(())
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
    let mut ordered = vec![0; bytes.len()];
    for (theirs, ours) in order.into_iter().enumerate() {
        let from = bytes.get(theirs * size..(theirs + 1) * size);
        if let (Some(to), Some(from)) = (ordered.get_mut(ours * size..(ours + 1) * size), from) {
            to.copy_from_slice(from);
        }
    }
    Ok((name, dtype, shape, ordered))
}

/// Rows as transformers has them, in llama.cpp's order; `None` if they do not divide.
pub(crate) fn reordered(bytes: &[u8], rows: usize, heads: usize) -> Option<Vec<u8>> {
    let order = row_order(rows, heads)?;
    let size = bytes.len() / rows.max(1);
    let rows = order.into_iter().map(|row| bytes.get(row * size..(row + 1) * size));
    Some(rows.collect::<Option<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_undoes_format(
            module in "blk\\.[0-9]{1,2}\\.[a-z_]{1,12}|output|token_embd",
            index in 0usize..4,
        ) {
            let parts = [Part::Down, Part::Up, Part::EmbeddingDown, Part::EmbeddingUp];
            let key = Key { module, part: parts[index] };
            if let Some(text) = format(&key) {
                prop_assert_eq!(parse(&text), Some(key));
            }
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,40}|([a-z_.]|lora_a|weight|\\.){0,12}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn stacks_come_apart() {
        let tensor = |name: &str, shape: &[usize], bytes: &[u8]| {
            (name.to_owned(), crate::format::Dtype::U8, shape.to_vec(), bytes.to_vec())
        };
        let stack = tensor("blk.0.ffn_up_exps.weight.lora_a", &[3, 1, 2], &[1, 2, 3, 4, 5, 6]);
        let parts = apart(stack);
        let last = tensor("blk.0.ffn_up_exps.2.weight.lora_a", &[1, 2], &[5, 6]);
        assert_eq!((parts.len(), &parts[2]), (3, &last));
        let single = tensor("blk.0.attn_q.weight.lora_a", &[1, 2], &[7, 8]);
        assert_eq!(apart(single.clone()), std::slice::from_ref(&single));
    }

    #[test]
    fn rows_come_back() {
        let bytes: Vec<u8> = (0..16).collect();
        let theirs = reordered(&bytes, 8, 2).expect("divides");
        assert_ne!(theirs, bytes);
        let tensor = ("a".to_owned(), crate::format::Dtype::U8, vec![8, 2], theirs);
        assert_eq!(put_back(tensor, 2).expect("divides").3, bytes);
        assert_eq!(reordered(&bytes, 8, 3), None);
    }
}
