//! Every name that a base's tensors answer to: their own, and those that other layouts of its
//! architecture have for them or for parts of them.

use std::collections::{BTreeMap, BTreeSet};

use super::architecture::{
    Cut, Evidence, ModuleShape, Rule, capture, fill, is_turned, rules_of_base,
};
use super::convention::gguf_names::row_order;
use super::gguf_base::{self, Named};
use super::module::Module;
use super::place::{Placement, RowSlice};
use super::scope::{flatten, root_of};
use super::slice::Span;
use crate::error::{ConvertError, ErrorKind, FamilyError, Locate, Result};
use crate::format::Checkpoint;

/// What a name of another layout means in the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spot {
    /// A tensor, or part of it.
    Cut(String, Cut),
    /// One matrix of a stack, or the given half of it.
    Stack(String, usize, Option<usize>),
    /// A tensor of a base in GGUF.
    Gguf(String, gguf_base::Part),
    /// Tensors that lie one under another there.
    Joined(Vec<String>),
}

/// Names of other layouts, and what they mean.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    spots: BTreeMap<String, Spot>,
}

/// Parts of a tensor of another layout, by where they stand in it, and the number of parts.
type Pieces = BTreeMap<String, (BTreeMap<usize, String>, usize)>;

impl Catalogue {
    /// Applies the rules of all architectures that the base is of, root by root. `stacks` are parameters of
    /// several matrices each, `holder.parameter`, of which an adapter has modules `holder.{e}.parameter`.
    pub(super) fn new<'a>(base: &Checkpoint, stacks: impl Iterator<Item = &'a str>) -> Self {
        let stacks: BTreeSet<String> = stacks.map(|label| numberless(label).to_owned()).collect();
        let stacks: Vec<Rule> = stacks.iter().filter_map(|ending| stack_rule(ending)).collect();
        let mut roots: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for name in base.names() {
            let root = root_of(name);
            let below = name.get(root.len()..).unwrap_or_default();
            roots.entry(root).or_default().push((stem(below), name));
        }
        let mut catalogue = Self::default();
        for (root, tensors) in &roots {
            let bodies: Vec<ModuleShape<'_>> = tensors
                .iter()
                .filter_map(|(stem, name)| ModuleShape::stored(base, name, stem))
                .collect();
            let mut rules = rules_of_base(&Evidence(&bodies));
            rules.extend(stacks.iter().cloned());
            let mut pieces = Pieces::new();
            for rule in &rules {
                for (stem, name) in tensors {
                    catalogue.apply(rule, root, (stem, name), base, &mut pieces);
                }
            }
            for (joined, (parts, of)) in pieces {
                if !parts.is_empty() && of != 0 {
                    let parts = parts.into_values().collect();
                    catalogue.add(base, joined, Spot::Joined(parts));
                }
            }
        }
        catalogue.add_gguf(base);
        catalogue
    }

    /// Adds transformers' names of a base in GGUF.
    fn add_gguf(&mut self, base: &Checkpoint) {
        let named = gguf_base::names(base);
        for tensor in base.names() {
            for Named { name, part } in named(tensor) {
                let spot = match part {
                    gguf_base::Part::Expert(expert) => Spot::Stack(tensor.to_owned(), expert, None),
                    _ => Spot::Gguf(tensor.to_owned(), part),
                };
                self.add(base, name, spot);
            }
        }
    }

    fn apply(
        &mut self,
        rule: &Rule,
        root: &str,
        (stem, name): (&str, &str),
        base: &Checkpoint,
        pieces: &mut Pieces,
    ) {
        let full = |path: &str| format!("{root}{path}.weight");
        if let Some(found) = capture(&rule.published, stem) {
            let half = match rule.cut {
                Cut::Stack => None,
                Cut::StackHalf(half) => Some(half),
                cut => {
                    let split = full(&fill(&rule.split, &found));
                    self.add(base, split, Spot::Cut(name.to_owned(), cut));
                    return;
                }
            };
            let shape = base.tensor(name).map(|view| view.spec.shape.as_slice());
            let Some([experts, _, _]) = shape else { return };
            for expert in 0..*experts {
                let split = rule.split.replace("{e}", &expert.to_string());
                let spot = Spot::Stack(name.to_owned(), expert, half);
                self.add(base, full(&fill(&split, &found)), spot);
            }
        } else if !matches!(rule.cut, Cut::Stack | Cut::StackHalf(_))
            && let Some(found) = capture(&rule.split, stem)
        {
            let published = full(&fill(&rule.published, &found));
            match rule.cut.order() {
                None => self.add(base, published, Spot::Cut(name.to_owned(), rule.cut)),
                Some((at, of)) => {
                    let (parts, count) = pieces.entry(published).or_default();
                    parts.insert(at, name.to_owned());
                    *count = (*count).max(of);
                }
            }
        }
    }

    /// The base's own names, and what was found first, stay.
    fn add(&mut self, base: &Checkpoint, name: String, spot: Spot) {
        let stored = name.strip_suffix(".weight").unwrap_or(&name);
        if base.tensor(&name).is_none() && base.tensor(stored).is_none() {
            self.spots.entry(name).or_insert(spot);
        }
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.spots.keys().map(String::as_str)
    }

    /// All names but those that are another one, of the same meaning, once dots are underscores:
    /// `img_attn.qkv` and `img_attn_qkv`.
    pub(super) fn names_apart(&self) -> impl Iterator<Item = &str> {
        let mut seen: BTreeMap<String, &Spot> = BTreeMap::new();
        self.spots.iter().filter_map(move |(name, spot)| {
            let flat = flatten(name);
            if matches!(spot, Spot::Cut(tensor, Cut::Whole) if flatten(tensor) == flat) {
                return None;
            }
            let known = *seen.entry(flat).or_insert(spot);
            (std::ptr::eq(known, spot) || known != spot).then_some(name.as_str())
        })
    }

    /// Where a module lies whose name was found to be this.
    ///
    /// # Errors
    /// If the module's sizes do not fit the part that the name stands for.
    pub(super) fn places(
        &self,
        name: &str,
        module: &Module,
        base: &Checkpoint,
    ) -> Result<Vec<Placement>> {
        match self.spots.get(name) {
            None => {
                let turned = is_turned(name).then_some(true);
                Ok(vec![Placement { turned, ..Placement::whole(name) }])
            }
            Some(Spot::Cut(tensor, cut)) => cut_places(tensor, *cut, module, base),
            Some(Spot::Gguf(tensor, part)) => Ok(vec![gguf_place(tensor, *part, base)?]),
            Some(Spot::Stack(tensor, expert, half)) => {
                stack_place(tensor, *expert, *half, base).map(|place| vec![place])
            }
            Some(Spot::Joined(tensors)) => {
                let sizes = tensors
                    .iter()
                    .map(|tensor| Ok(shape(base, tensor)?.first().copied().unwrap_or(0)));
                let sizes: Vec<usize> = sizes.collect::<Result<_>>()?;
                let (of, mut at) = (sizes.iter().sum(), 0);
                let places = tensors.iter().zip(sizes).map(|(tensor, size)| {
                    at += size;
                    let part = RowSlice { rows: at - size..at, of };
                    Placement { part: Some(part), ..Placement::whole(tensor) }
                });
                Ok(places.collect())
            }
        }
    }

    /// The tensor that a name stands for, if it is all of one.
    pub(super) fn whole(&self, name: &str) -> Option<String> {
        match self.spots.get(name) {
            None => Some(name.to_owned()),
            Some(Spot::Cut(tensor, Cut::Whole) | Spot::Gguf(tensor, gguf_base::Part::Straight)) => {
                Some(tensor.clone())
            }
            Some(_) => None,
        }
    }
}

/// The end of a stack's name behind the last number: what all layers call it.
fn numberless(label: &str) -> &str {
    let mut parts = label.rmatch_indices('.');
    let number = |at: usize| {
        let part = label.get(..at).and_then(|above| above.rsplit('.').next()).unwrap_or_default();
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let behind = parts.find(|(at, _)| number(*at));
    behind.and_then(|(at, _)| label.get(at + 1..)).unwrap_or(label)
}

/// What a base answers to that stores `holder.parameter` as one tensor of several matrices.
fn stack_rule(ending: &str) -> Option<Rule> {
    let (holder, parameter) = ending.rsplit_once('.')?;
    let published = match parameter {
        "weight" => format!("{{*}}.{holder}"),
        _ => format!("{{*}}.{ending}"),
    };
    Some(Rule { split: format!("{{*}}.{holder}.{{e}}.{parameter}"), published, cut: Cut::Stack })
}

/// A tensor's name without its ending; other tensors of a layer keep theirs.
fn stem(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// A tensor's first dimension, and all.
fn shape<'a>(base: &'a Checkpoint, tensor: &str) -> Result<&'a [usize]> {
    let view = base.tensor(tensor).ok_or(ErrorKind::NotFound).in_tensor(tensor)?;
    let shape = view.spec.shape.as_slice();
    if shape.is_empty() {
        let (expected, found) = ("a matrix".to_owned(), Vec::new());
        return Err(ErrorKind::BadShape { expected, found }).in_tensor(tensor);
    }
    Ok(shape)
}

/// All of a tensor in GGUF, its rows in whatever order.
fn gguf_place(tensor: &str, part: gguf_base::Part, base: &Checkpoint) -> Result<Placement> {
    let whole = Placement { turned: Some(false), ..Placement::whole(tensor) };
    let gguf_base::Part::Reordered(heads) = part else { return Ok(whole) };
    let found = shape(base, tensor)?.to_vec();
    let heads = heads.ok_or(ConvertError::UnknownHeads)?;
    if row_order(found.first().copied().unwrap_or(0), heads).is_none() {
        let expected = format!("rows of {heads} heads of an even size");
        return Err(ErrorKind::BadShape { expected, found }).in_tensor(tensor);
    }
    Ok(Placement { heads: Some(heads), ..whole })
}

fn cut_places(
    tensor: &str,
    cut: Cut,
    module: &Module,
    base: &Checkpoint,
) -> Result<Vec<Placement>> {
    let whole = Placement::whole(tensor);
    let found = shape(base, tensor)?;
    let total = found.first().copied().unwrap_or(0);
    let outputs = module.outputs;
    let mismatch = || ErrorKind::ShapeMismatch {
        delta: module.shape(),
        base_tensor: tensor.to_owned(),
        found: found.to_vec(),
    };
    if let Cut::Whole | Cut::Stack | Cut::StackHalf(_) = cut {
        return Ok(vec![whole]);
    }
    let three = matches!(cut, Cut::First | Cut::Middle | Cut::Last | Cut::Linear(_));
    let known = match cut {
        Cut::Linear(_) => values(tensor, total, base).map(|values| (total - values) / 2),
        _ => queries(tensor, total, base).filter(|_| three),
    };
    if three && known.is_none() && outputs == 0 {
        return Err(FamilyError::Part { family: module.family }.into());
    }
    // Where no layer behind it tells, the module itself does.
    let queries = known.or(match cut {
        Cut::First | Cut::Linear(0 | 1) => Some(outputs),
        Cut::Linear(_) => total.checked_sub(outputs).map(|keys| keys / 2),
        _ => total.checked_sub(2 * outputs),
    });
    let rows = cut.rows(total, queries, 0).ok_or_else(mismatch)?;
    if three && outputs != 0 && rows.len() != outputs {
        return Err(mismatch().into());
    }
    if cut == Cut::Swapped {
        let half = total / 2;
        let place = |rows: std::ops::Range<usize>, part| Placement {
            rows: Some(rows),
            part: Some(RowSlice { rows: part, of: total }),
            ..whole.clone()
        };
        return Ok(vec![place(0..half, half..total), place(half..total, 0..half)]);
    }
    Ok(vec![Placement { rows: Some(rows), ..whole }])
}

/// How many rows of fused attention are the queries': as many as the layer after it has inputs, where
/// the base has that layer.
fn queries(tensor: &str, total: usize, base: &Checkpoint) -> Option<usize> {
    const AFTER: [(&str, &str); 2] = [("qkv_proj", "o_proj"), ("attention.qkv", "attention.out")];
    let after = |(fused, output): &(&str, &str)| {
        Some(format!("{}{output}.weight", stem(tensor).strip_suffix(fused)?))
    };
    let view = AFTER.iter().find_map(after).and_then(|name| base.tensor(&name))?;
    let queries = *view.spec.shape.get(1)?;
    (queries < total && (total - queries).is_multiple_of(2)).then_some(queries)
}

/// How many rows of fused linear attention are the values': as many as the layer after it has inputs, where
/// the base has that layer. The rest is queries and keys, alike.
fn values(tensor: &str, total: usize, base: &Checkpoint) -> Option<usize> {
    let above = stem(tensor).strip_suffix("in_proj_qkv")?;
    let values = *base.tensor(&format!("{above}out_proj.weight"))?.spec.shape.get(1)?;
    (values < total && (total - values).is_multiple_of(2)).then_some(values)
}

/// A stack's matrix is outputs × inputs, unless its sibling shows that it is the other way round.
fn stack_place(
    tensor: &str,
    expert: usize,
    half: Option<usize>,
    base: &Checkpoint,
) -> Result<Placement> {
    let found = shape(base, tensor)?;
    let turned = is_stack_turned(tensor, base);
    let mut place =
        Placement { expert: Some(expert), turned: Some(turned), ..Placement::whole(tensor) };
    if let (Some(half), [_, rows, columns]) = (half, found) {
        // gpt-oss has biases, and gate and up in turns.
        let in_turns = base.tensor(&format!("{tensor}_bias")).is_some();
        let count = if turned { columns / 2 } else { rows / 2 };
        match (turned, in_turns) {
            (true, true) => place.columns = Some(Span { first: half, step: 2, count }),
            (true, false) => place.columns = Some(Span { first: half * count, step: 1, count }),
            (false, _) => place.rows = Some(half * count..(half + 1) * count),
        }
    }
    Ok(place)
}

/// Whether a stack is inputs × outputs, as its sibling shows.
pub(super) fn is_stack_turned(tensor: &str, base: &Checkpoint) -> bool {
    let bare = stem(tensor);
    let sibling = match bare.strip_suffix("gate_up_proj") {
        Some(above) => format!("{above}down_proj"),
        None => format!("{}gate_up_proj", bare.strip_suffix("down_proj").unwrap_or(bare)),
    };
    let three = |name: &str| base.tensor(name).map(|view| view.spec.shape.clone());
    let (shape, sibling_shape) =
        (three(tensor), three(&sibling).or_else(|| three(&format!("{sibling}.weight"))));
    let (Some(shape), Some(sibling_shape)) = (shape, sibling_shape) else { return false };
    let (up, down) = if bare.ends_with("gate_up_proj") {
        (shape, sibling_shape)
    } else {
        (sibling_shape, shape)
    };
    matches!((up.as_slice(), down.as_slice()), ([_, a, b], [_, c, d]) if a == d && *b == 2 * c)
}
