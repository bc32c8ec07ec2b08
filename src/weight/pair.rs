//! Two checkpoints of one model, tensor by tensor: a base and what was made of it.
//!
//! The two may have other roots (`model.layers…` and `layers…`, a pipeline's component directory, what
//! releases of transformers moved), other shards and dtypes, and one may store an output head that the other
//! ties to its embedding. Shapes and dtypes are for the verb to judge.

use std::collections::{BTreeMap, BTreeSet};

use super::root;
use super::tied::{self, Tied};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checkpoint, TensorView};

/// Two checkpoints with their tensors paired.
#[derive(Debug)]
pub(crate) struct Paired<'a> {
    pub(crate) base: &'a Checkpoint,
    pub(crate) tuned: &'a Checkpoint,
    /// Tensors of both, in the base's order.
    pub(crate) pairs: Vec<Pair>,
    /// The output head, where the base ties it to its embedding.
    pub(crate) head: Option<Head>,
    /// The base's tensors that the tuned checkpoint lacks.
    pub(crate) only_base: Vec<String>,
    /// The tuned checkpoint's tensors that the base lacks.
    pub(crate) only_tuned: Vec<String>,
}

/// One tensor of both checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The base's tensor.
    pub(crate) base: String,
    /// The tuned checkpoint's; its embedding for a head that only the base stores.
    pub(crate) tuned: String,
}

/// The output head of a base that ties it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// What the base would call it.
    pub(crate) name: String,
    /// The base's embedding, which is its head.
    pub(crate) embedding: String,
    /// The tuned checkpoint's head: a tensor of its own, or its embedding.
    pub(crate) tuned: String,
    /// Whether it is a tensor of its own whose bytes are not those of the tuned embedding.
    pub(crate) parted: bool,
}

impl<'a> Paired<'a> {
    /// Pairs all tensors.
    ///
    /// # Errors
    /// If a head cannot be read.
    pub(crate) fn new(base: &'a Checkpoint, tuned: &'a Checkpoint) -> Result<Self> {
        let names = Names::choose(base, tuned);
        let tuned_tie = tied::find(tuned)?;
        let (mut pairs, mut only_base, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        for name in base.names() {
            let found = names.of(name).or_else(|| tied_to(name, tuned_tie.as_ref(), tuned));
            match found {
                Some(found) => {
                    used.insert(found.clone());
                    pairs.push(Pair { base: name.to_owned(), tuned: found });
                }
                None => only_base.push(name.to_owned()),
            }
        }
        let head = tied::find(base)?.map(|tied| head(&names, base, tuned, tied)).transpose()?;
        let head = head.flatten();
        used.extend(head.as_ref().map(|head| head.tuned.clone()));
        let only_tuned = tuned.names().filter(|name| !used.contains(*name)).map(str::to_owned);
        let only_tuned = only_tuned.collect();
        Ok(Self { base, tuned, pairs, head, only_base, only_tuned })
    }

    /// Pairs tensors that only one of the checkpoints seemed to have, in the base's order.
    pub(crate) fn add(&mut self, found: &[Pair]) {
        let bases: BTreeSet<&str> = found.iter().map(|pair| pair.base.as_str()).collect();
        let tuned: BTreeSet<&str> = found.iter().map(|pair| pair.tuned.as_str()).collect();
        self.only_base.retain(|name| !bases.contains(name.as_str()));
        self.only_tuned.retain(|name| !tuned.contains(name.as_str()));
        let places = self.base.names().enumerate().map(|(at, name)| (name, at));
        let places: BTreeMap<&str, usize> = places.collect();
        self.pairs.extend(found.iter().cloned());
        self.pairs.sort_by_key(|pair| places.get(pair.base.as_str()).copied());
    }

    /// Both tensors of a pair.
    ///
    /// # Errors
    /// If it is none of these checkpoints.
    pub(crate) fn views(&self, pair: &Pair) -> Result<(TensorView<'a>, TensorView<'a>)> {
        views(self.base, self.tuned, pair)
    }
}

/// Both tensors of a pair.
///
/// # Errors
/// If it is none of these checkpoints.
pub(crate) fn views<'a>(
    base: &'a Checkpoint,
    tuned: &'a Checkpoint,
    pair: &Pair,
) -> Result<(TensorView<'a>, TensorView<'a>)> {
    let missing = |name: &str| Error::from(ErrorKind::NotFound).in_tensor(name);
    let first = base.tensor(&pair.base).ok_or_else(|| missing(&pair.base))?;
    let second = tuned.tensor(&pair.tuned).ok_or_else(|| missing(&pair.tuned))?;
    Ok((first, second))
}

/// How many of the base's tensors another checkpoint has.
pub(crate) fn shared(base: &Checkpoint, tuned: &Checkpoint) -> usize {
    Names::choose(base, tuned).shared(base)
}

/// The embedding behind a head that the tuned checkpoint does not store.
fn tied_to(name: &str, tied: Option<&Tied>, tuned: &Checkpoint) -> Option<String> {
    let tied = tied.filter(|tied| root::plain(&tied.head) == root::plain(name))?;
    tuned.tensor(&tied.embedding).map(|_| tied.embedding.clone())
}

/// The tuned side of a pair that the base ties.
fn head(
    names: &Names<'_>,
    base: &Checkpoint,
    tuned: &Checkpoint,
    tied: Tied,
) -> Result<Option<Head>> {
    let Some(embedding) = names.of(&tied.embedding) else { return Ok(None) };
    let Tied { head: name, embedding: base_embedding } = tied;
    let Some(head) = names.of(&name).or_else(|| head_of(&name, tuned)) else {
        let (tuned, parted) = (embedding, false);
        return Ok(Some(Head { name, embedding: base_embedding, tuned, parted }));
    };
    let pair = |tuned: &str| Pair { base: base_embedding.clone(), tuned: tuned.to_owned() };
    let (_, stored) = views(base, tuned, &pair(&head))?;
    let (_, shared) = views(base, tuned, &pair(&embedding))?;
    let parted = !stored.same_bytes(shared)?;
    Ok(Some(Head { name, embedding: base_embedding, tuned: head, parted }))
}

/// A head that does not stand below the root of the other tensors.
fn head_of(name: &str, tuned: &Checkpoint) -> Option<String> {
    let plain = root::plain(name);
    let mut found = tuned.names().filter(|candidate| root::plain(candidate) == plain);
    found.next().filter(|_| found.next().is_none()).map(str::to_owned)
}

/// How a tuned checkpoint calls the base's tensors.
enum Names<'a> {
    /// Below another root, or just the same: what its names have before those of the base, and the reverse;
    /// one of them is empty.
    Root { tuned: &'a Checkpoint, roots: (String, String) },
    /// Below other wrappers: its names by what is below their wrappers.
    Wrapped(BTreeMap<String, &'a str>),
}

impl<'a> Names<'a> {
    /// Takes what most names agree with.
    fn choose(base: &'a Checkpoint, tuned: &'a Checkpoint) -> Self {
        let plain = Self::Root { tuned, roots: (String::new(), String::new()) };
        let mut most = plain.shared(base);
        let mut best = plain;
        if most == base.len() {
            return best;
        }
        // Sorted, so that the same names win where several agree with as many.
        let roots = roots(base, tuned).into_iter().map(|roots| Self::Root { tuned, roots });
        for names in roots.chain(wrapped(base, tuned)) {
            let shared = names.shared(base);
            if shared > most {
                (best, most) = (names, shared);
            }
        }
        best
    }

    /// The tuned checkpoint's name of a base tensor.
    fn of(&self, name: &str) -> Option<String> {
        match self {
            Self::Root { tuned, roots } => {
                let renamed = format!("{}{}", roots.0, name.strip_prefix(roots.1.as_str())?);
                tuned.tensor(&renamed).map(|_| renamed)
            }
            Self::Wrapped(names) => names.get(&root::plain(name)).map(|tuned| (*tuned).to_owned()),
        }
    }

    /// How many of the base's tensors have a name.
    fn shared(&self, base: &Checkpoint) -> usize {
        base.names().filter(|name| self.of(name).is_some()).count()
    }
}

/// Roots that one checkpoint may have above all names of the other.
fn roots(base: &Checkpoint, tuned: &Checkpoint) -> BTreeSet<(String, String)> {
    // Roots are the same for all tensors, so a few tell them.
    fn some(checkpoint: &Checkpoint) -> impl Iterator<Item = &str> {
        let step = (checkpoint.len() / 8).max(1);
        checkpoint.names().step_by(step)
    }
    let mut roots = BTreeSet::new();
    for name in some(base) {
        let above = tuned.names().filter_map(|candidate| root_above(candidate, name));
        roots.extend(above.map(|root| (root.to_owned(), String::new())));
    }
    for name in some(tuned) {
        let above = base.names().filter_map(|candidate| root_above(candidate, name));
        roots.extend(above.map(|root| (String::new(), root.to_owned())));
    }
    roots
}

/// `model.` of `model.layers.0.weight` for `layers.0.weight`.
fn root_above<'n>(name: &'n str, below: &str) -> Option<&'n str> {
    let root = name.strip_suffix(below)?;
    root.ends_with(['.', '/']).then_some(root)
}

/// The tuned checkpoint's names by what is below their wrappers; nothing if that is not unique in both.
fn wrapped<'a>(base: &Checkpoint, tuned: &'a Checkpoint) -> Option<Names<'a>> {
    let names: BTreeMap<String, &str> =
        tuned.names().map(|name| (root::plain(name), name)).collect();
    let of_base: BTreeSet<String> = base.names().map(root::plain).collect();
    let unique = names.len() == tuned.len() && of_base.len() == base.len();
    unique.then_some(Names::Wrapped(names))
}
