//! The checkpoint of one model under the names of another: which tensors, of which numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rows::Rows;
use crate::adapter::convention::ARCHITECTURE;
use crate::adapter::convention::gguf_names::{Architecture, Heads, row_order};
use crate::error::{Error, Locate, ModelError, Result};
use crate::format::{Checkpoint, TensorView, ggml};
use crate::weight::{Stored, Weight, Weights, decoded};

/// llama.cpp's names of the embeddings and of the head that a model with tied ones does not store.
const EMBEDDINGS: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// A checkpoint whose numbers are another's.
#[derive(Debug)]
pub(crate) struct Recast {
    /// With the names, shapes and files of the one, and the numbers of the other.
    pub(crate) checkpoint: Checkpoint,
    /// The weights of it.
    pub(crate) weights: Weights,
    /// Where the numbers are.
    pub(crate) source: Arc<Checkpoint>,
}

/// A tensor of transformers' in a GGUF file.
struct Place {
    /// llama.cpp's name.
    name: String,
    /// Which matrix of a stack it is.
    expert: Option<usize>,
    /// What llama.cpp adds to its numbers.
    shift: f32,
    /// Heads whose rows llama.cpp has in another order.
    heads: Option<usize>,
}

/// What converts the names of a model.
struct Names {
    architecture: &'static Architecture,
    heads: Option<Heads>,
}

impl Names {
    fn of(gguf: &Checkpoint) -> Result<Self> {
        let metadata = gguf.shards.first().and_then(|shard| shard.header.metadata.as_ref());
        let name = metadata.and_then(|metadata| metadata.get(ARCHITECTURE));
        let name = name.map_or("", String::as_str);
        let known = Architecture::by_name(name).filter(|found| found.is_whole());
        let reason = || {
            format!(
                "of its architecture `{name}` it is not known how all its tensors are converted"
            )
        };
        let architecture = known.ok_or_else(|| ModelError::NotConverted { reason: reason() });
        Ok(Self { architecture: architecture.in_file(&gguf.path)?, heads: Heads::of_gguf(gguf) })
    }

    /// Where llama.cpp has a tensor of transformers' name.
    fn place(&self, tensor: &str) -> Option<Place> {
        let (module, kind) = tensor.rsplit_once('.')?;
        if !matches!(kind, "weight" | "bias") {
            return None;
        }
        let (name, shift) = self.architecture.any_to_gguf(module)?;
        let heads = self.heads.and_then(|heads| self.architecture.permuted_heads(&name, heads));
        let stack = name.rsplit_once('.').and_then(|(stack, at)| {
            Some((stack, at.parse().ok()?))
                .filter(|(stack, _): &(_, usize)| stack.ends_with("_exps"))
        });
        Some(match stack {
            Some((stack, at)) => {
                Place { name: format!("{stack}.{kind}"), expert: Some(at), shift, heads: None }
            }
            None => Place { name: format!("{name}.{kind}"), expert: None, shift, heads },
        })
    }
}

/// Whether a tensor is made of the config alone, so that the other container has none.
fn is_made_of_config(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name.starts_with("rope_f")
}

fn without(checkpoint: &Checkpoint, tensor: &str, reason: String) -> Error {
    Error::from(ModelError::NotConverted { reason }).in_tensor(tensor).in_file(&checkpoint.path)
}

/// The shape of a tensor in elements, without ones, which ggml forgets in front.
fn shape(view: TensorView<'_>) -> Vec<usize> {
    let blocks = view.shard.header.blocks.get(&view.spec.name);
    blocks.map_or_else(|| view.spec.shape.clone(), |blocks| blocks.shape.clone())
}

fn without_ones(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|size| *size != 1).collect()
}

/// The rows that one tensor is of others, `shape` its own and `found` that of each of them.
fn rows(
    source: &Arc<Checkpoint>,
    tensors: Vec<(String, usize)>,
    shape: &[usize],
    (heads, to_transformers, shift): (Option<usize>, bool, f32),
) -> Option<Rows> {
    let (first, elements) = (*shape.first()?, shape.iter().product::<usize>());
    let order = match heads {
        None => None,
        Some(heads) => {
            let order = row_order(first, heads)?;
            let mut inverse = vec![0; order.len()];
            for (to, from) in order.iter().enumerate() {
                *inverse.get_mut(*from)? = to;
            }
            Some(if to_transformers { inverse } else { order })
        }
    };
    let count = if tensors.len() > 1 { elements / first / shape.last()? } else { first };
    let width = if tensors.len() > 1 { *shape.last()? } else { elements / first.max(1) };
    let source = Arc::clone(source);
    (width > 0).then_some(Rows { source, tensors, count, width, order, shift })
}

/// A GGUF model (its weights decoded) under the names and in the files of the checkpoint of transformers' `reference`,
/// of which only headers are read.
///
/// # Errors
/// [`ModelError::NotConverted`]: if a tensor of either has no counterpart, or one of another shape.
pub(crate) fn as_transformers(gguf: Checkpoint, reference: Checkpoint) -> Result<Recast> {
    let names = Names::of(&gguf)?;
    let source = Arc::new(gguf);
    let (mut weights, mut used) = (Weights::default(), BTreeSet::new());
    for name in reference.names().filter(|name| !is_made_of_config(name)) {
        let view = reference.tensor(name);
        let place = names.place(name);
        let (Some(view), Some(mut place)) = (view, place) else {
            return Err(without(&reference, name, "llama.cpp has no name for it".to_owned()));
        };
        if place.name == HEAD && source.tensor(HEAD).is_none() {
            EMBEDDINGS.clone_into(&mut place.name);
        }
        let Some(theirs) = source.tensor(&place.name) else {
            let reason = format!("{} has no `{}`", source.path.display(), place.name);
            return Err(without(&reference, name, reason));
        };
        let (expected, mut found) = (shape(view), shape(theirs));
        let stack = place.expert.map(|at| (at, found.remove(0)));
        let first = stack.map_or(0, |(at, _)| at * found.first().copied().unwrap_or(0));
        let fits = without_ones(&expected) == without_ones(&found);
        let rows = rows(
            &source,
            vec![(place.name.clone(), first)],
            &expected,
            (place.heads, true, -place.shift),
        );
        let Some(rows) = rows.filter(|_| fits && stack.is_none_or(|(at, count)| at < count)) else {
            let reason = format!("it is {expected:?}, and `{}` {found:?}", place.name);
            return Err(without(&reference, name, reason));
        };
        used.insert(place.name);
        let stored = Stored::new(name, view);
        weights.replace(Weight::elsewhere(stored, expected, "F32".to_owned(), Arc::new(rows)));
    }
    let unused = source.names().find(|name| !used.contains(*name) && !is_made_of_config(name));
    if let Some(name) = unused {
        let reason = format!("{} has no tensor for it", reference.path.display());
        return Err(without(&source, name, reason));
    }
    Ok(Recast { checkpoint: decoded(reference, &weights)?, weights, source })
}

/// A checkpoint of transformers' (its weights decoded) under the names and in the files of the GGUF model `sibling`, of
/// which only headers are read, and what follows from the config alone.
///
/// # Errors
/// As [`as_transformers`].
pub(crate) fn as_gguf(base: Checkpoint, sibling: Checkpoint) -> Result<Recast> {
    let names = Names::of(&sibling)?;
    let source = Arc::new(base);
    let mut places: BTreeMap<String, Vec<(Place, String)>> = BTreeMap::new();
    for name in source.names().filter(|name| !is_made_of_config(name)) {
        let Some(place) = names.place(name) else {
            return Err(without(&source, name, "llama.cpp has no name for it".to_owned()));
        };
        if sibling.tensor(&place.name).is_some() {
            places.entry(place.name.clone()).or_default().push((place, name.to_owned()));
        } else if place.name != HEAD || !is_tied(&source, &names, name)? {
            let reason = format!("{} has no `{}`", sibling.path.display(), place.name);
            return Err(without(&source, name, reason));
        }
    }
    let mut weights = Weights::default();
    for name in sibling.names().filter(|name| !is_made_of_config(name)) {
        let Some(view) = sibling.tensor(name) else { continue };
        let tied = || places.get(EMBEDDINGS).filter(|_| name == HEAD);
        let Some(found) = places.get(name).or_else(tied) else {
            let reason = format!("{} has no tensor for it", source.path.display());
            return Err(without(&sibling, name, reason));
        };
        let expected = shape(view);
        let mut found: Vec<_> = found.iter().collect();
        found.sort_by_key(|(place, _)| place.expert);
        let is_stack = found.first().is_some_and(|(place, _)| place.expert.is_some());
        let matrix = expected.get(usize::from(is_stack)..).unwrap_or_default();
        let all = !is_stack
            || found
                .iter()
                .map(|(place, _)| place.expert)
                .eq((0..*expected.first().unwrap_or(&0)).map(Some));
        let fits = found.iter().all(|(_, name)| {
            source
                .tensor(name)
                .is_some_and(|view| without_ones(&shape(view)) == without_ones(matrix))
        });
        let tensors = found.iter().map(|(_, name)| (name.clone(), 0)).collect();
        let how = found
            .first()
            .map_or((None, false, 0.0), |(place, _)| (place.heads, false, place.shift));
        let Some(rows) = rows(&source, tensors, &expected, how).filter(|_| fits && all) else {
            let reason =
                format!("it is {expected:?}, which those of {} do not make", source.path.display());
            return Err(without(&sibling, name, reason));
        };
        let blocks = view.shard.header.blocks.get(&view.spec.name);
        let detail = blocks.map_or_else(
            || view.spec.dtype.to_string(),
            |blocks| ggml::name(blocks.kind).to_owned(),
        );
        weights.replace(Weight::elsewhere(
            Stored::new(name, view),
            expected,
            detail,
            Arc::new(rows),
        ));
    }
    Ok(Recast { checkpoint: decoded(sibling, &weights)?, weights, source })
}

/// Whether a head holds the very numbers of the embeddings.
fn is_tied(base: &Checkpoint, names: &Names, head: &str) -> Result<bool> {
    let embeddings =
        base.names().find(|name| names.place(name).is_some_and(|place| place.name == EMBEDDINGS));
    match embeddings.and_then(|name| base.tensor(name)).zip(base.tensor(head)) {
        Some((embeddings, head)) => embeddings.same_bytes(head),
        None => Ok(false),
    }
}
