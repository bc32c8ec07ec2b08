//! What a program wants of an adapter beyond its convention: the base's own names, experts one by one or
//! in stacks, and every one of the projections that it joins when it loads them.

use std::collections::{BTreeMap, BTreeSet};

use super::base_facts::BaseFacts;
use super::goal::Goal;
use super::requirements::{Experts, Takes};
use crate::adapter::convention::{Names, Part};
use crate::adapter::layout::{Layout, Piece, Source, Target, Wanted};
use crate::adapter::place::Placement;
use crate::adapter::save::{NewAdapter, NewModule};
use crate::adapter::stacks::Stack;
use crate::adapter::{Adapter, target};
use crate::error::{ConvertError, Error, ErrorKind, Locate, Result};
use crate::format::{Checkpoint, Dtype};
use crate::weight::root::Root;
use crate::weight::{open_reference, tied};

/// The names of an expert's gate, up and down, and those that some checkpoints have.
const MATRICES: [[&str; 3]; 2] = [["gate_proj", "up_proj", "down_proj"], ["w1", "w3", "w2"]];

/// How the result has a layer's experts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Single,
    Stacks,
}

/// A program's wishes, and the base that they are about.
pub(super) struct Serve<'a> {
    adapter: &'a Adapter,
    takes: &'static Takes,
    reference: Option<Checkpoint>,
    class: Option<&'a str>,
    experts: Option<usize>,
    wraps: bool,
    dotted: bool,
}

impl<'a> Serve<'a> {
    /// Nothing, if no program is meant.
    pub(super) fn new(
        adapter: &'a Adapter,
        goal: Goal<'_>,
        base: &'a BaseFacts,
    ) -> Result<Option<Self>> {
        let Some(takes) = goal.program else { return Ok(None) };
        let opened = goal.reference.map(|path| open_reference(path, goal.access));
        let reference = match opened {
            // A config alone says the class.
            Some(Err(error)) if matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) => None,
            opened => opened.transpose()?,
        };
        let (class, experts) = (base.class.as_deref(), base.expert_count);
        let dotted = goal.target.names == Names::Dotted;
        let wraps = base.wraps;
        Ok(Some(Self { adapter, takes, reference, class, experts, wraps, dotted }))
    }

    /// Gives modules the names, the program's place for a wrapped language model, and where the base has projections fused or divided otherwise also the
    /// rows, of the base's tensors.
    ///
    /// # Errors
    /// Modules whose update has another shape than the base's weight.
    pub(super) fn names(&self, layout: &mut Layout) -> Result<()> {
        self.base_names(layout)?;
        if let Some(root) = self.takes.wrapped.filter(|_| self.wraps && self.dotted) {
            for target in layout.modules.iter_mut().flatten() {
                let moves = !self.takes.base_names || Root::is_bare(&target.name);
                let moved = root.of(&target.name).filter(|_| moves);
                target.name = moved.unwrap_or_else(|| target.name.clone());
            }
        }
        Ok(())
    }

    fn base_names(&self, layout: &mut Layout) -> Result<()> {
        let Some(base) = self.reference.as_ref().filter(|_| self.takes.base_names && self.dotted)
        else {
            return Ok(());
        };
        let found = match target::find(
            self.adapter,
            base,
            tied::find(base)?.map(|tied| tied.head).as_deref(),
        ) {
            Ok(found) => found,
            // Servers have the plain names of a quantised base.
            Err(error) if matches!(error.kind(), ErrorKind::Quantised { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for (name, place) in layout.replacements.iter_mut().zip(&found.replacements) {
            if let Some(tensor) = place {
                let stem = tensor.strip_suffix(".bias").unwrap_or_else(|| stem(tensor));
                *name = Ok(stem.to_owned());
            }
        }
        let found = found.modules;
        let mut joined: BTreeMap<String, (usize, Vec<Piece>)> = BTreeMap::new();
        let mut modules: Vec<Wanted> = Vec::new();
        for wanted in std::mem::take(&mut layout.modules) {
            let Ok(Target { source: Source::Whole(at), .. }) = &wanted else {
                modules.push(wanted);
                continue;
            };
            let at = *at;
            let Some(module) = self.adapter.modules.get(at) else { continue };
            // A stack that stays one is a parameter of transformers' own, whatever checkpoints call it.
            let stacked = !self.adapter.stacks.is_empty() && expert_of(&module.name).is_some();
            if stacked && self.wish().is_none() {
                modules.push(wanted);
                continue;
            }
            let places = found.get(at).map(Vec::as_slice).unwrap_or_default();
            for place in places {
                check_shape(base, place, module).in_file(&self.adapter.path)?;
            }
            match places {
                [] => modules.push(Err((at, absent(self.adapter)))),
                [place] if place.is_whole() => modules.push(Ok(Target {
                    name: stem(&place.tensor).to_owned(),
                    source: Source::Whole(at),
                })),
                [place] if is_rows(place) => {
                    let rows = place.rows.clone().unwrap_or_default();
                    let total = base
                        .tensor(&place.tensor)
                        .map_or(0, |view| view.spec.shape.first().copied().unwrap_or(0));
                    let piece = Piece { module: at, from: 0..rows.len(), to: rows };
                    let name = stem(&place.tensor).to_owned();
                    joined.entry(name).or_insert((total, Vec::new())).1.push(piece);
                }
                parts if parts.iter().all(is_part) => {
                    modules.extend(parts.iter().filter_map(|place| {
                        let rows = place.part.as_ref()?.rows.clone();
                        let total = rows.len();
                        let pieces = vec![Piece { module: at, from: rows, to: 0..total }];
                        let name = stem(&place.tensor).to_owned();
                        Some(Ok(Target { name, source: Source::Rows { pieces, total } }))
                    }));
                }
                _ => modules.push(wanted),
            }
        }
        modules.extend(joined.into_iter().map(|(name, (total, mut pieces))| {
            pieces.sort_by_key(|piece| piece.to.start);
            Ok(Target { name, source: Source::Rows { pieces, total } })
        }));
        layout.modules = modules;
        Ok(())
    }

    /// Whether experts go one by one, or in stacks; `None` where they stay as they are.
    fn wish(&self) -> Option<Wish> {
        match (self.takes.experts, self.class) {
            _ if !self.dotted => None,
            (Experts::AsTheyAre, _) | (Experts::ByClass(_), None) => None,
            (Experts::ByClass(is_stacked), Some(class)) if is_stacked(class) => Some(Wish::Stacks),
            (Experts::Single | Experts::ByClass(_), _) => Some(Wish::Single),
        }
    }

    /// Divides stacks into experts, or puts experts together; the stacks of the result.
    ///
    /// # Errors
    /// If the base has an expert's gate and up between one another's rows.
    pub(super) fn experts(&self, layout: &mut Layout) -> Result<BTreeMap<String, Stack>> {
        let single = self.adapter.stacks.is_empty();
        let any = self.adapter.modules.iter().any(|module| expert_of(&module.name).is_some());
        let interleaved = self.class.is_some_and(|class| class.starts_with("GptOss"));
        match self.wish() {
            Some(Wish::Single) if !single && interleaved => Err(interleaves()),
            Some(Wish::Stacks) if single && any && interleaved => Err(interleaves()),
            Some(Wish::Single) if !single => {
                self.divide(layout);
                Ok(BTreeMap::new())
            }
            Some(Wish::Stacks) if single && any => Ok(self.stack(layout)),
            _ => Ok(self.adapter.stacks.clone()),
        }
    }

    /// An expert's gate and up, which a stack has one under the other, by themselves.
    fn divide(&self, layout: &mut Layout) {
        let halves = |wanted: Wanted| -> Vec<Wanted> {
            let Ok(Target { name, source: Source::Whole(at) }) = &wanted else {
                return vec![wanted];
            };
            let above = name.strip_suffix(".gate_up_proj").filter(|_| expert_of(name).is_some());
            let outputs = self.adapter.modules.get(*at).map_or(0, |module| module.outputs);
            let Some(above) = above.filter(|_| outputs % 2 == 0) else { return vec![wanted] };
            let total = outputs / 2;
            let half = |(number, own): (usize, &str)| {
                let from = number * total..(number + 1) * total;
                let pieces = vec![Piece { module: *at, from, to: 0..total }];
                let source = Source::Rows { pieces, total };
                Ok(Target { name: format!("{above}.{own}"), source })
            };
            ["gate_proj", "up_proj"].into_iter().enumerate().map(half).collect()
        };
        layout.modules = std::mem::take(&mut layout.modules).into_iter().flat_map(halves).collect();
    }

    /// An expert's gate and up one under the other, and the stacks that they make.
    fn stack(&self, layout: &mut Layout) -> BTreeMap<String, Stack> {
        let mut pairs: BTreeMap<(String, usize), [Option<usize>; 2]> = BTreeMap::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut modules = Vec::new();
        for wanted in std::mem::take(&mut layout.modules) {
            let expert = wanted.as_ref().ok().and_then(|target| {
                let Source::Whole(at) = target.source else { return None };
                let (holder, number, matrix) = expert_of(&target.name)?;
                let place = MATRICES
                    .iter()
                    .find_map(|names| names.iter().position(|name| *name == matrix))?;
                Some((holder.to_owned(), number, place, at))
            });
            let Some((holder, number, place, at)) = expert else {
                modules.push(wanted);
                continue;
            };
            let count = counts.entry(holder.clone()).or_default();
            *count = (*count).max(number + 1);
            match place {
                2 => {
                    let name = format!("{holder}.{number}.down_proj");
                    modules.push(Ok(Target { name, source: Source::Whole(at) }));
                }
                place => {
                    let pair = pairs.entry((holder, number)).or_default();
                    if let Some(own) = pair.get_mut(place) {
                        *own = Some(at);
                    }
                }
            }
        }
        for ((holder, number), pair) in pairs {
            let outputs = |at: usize| self.adapter.modules.get(at).map_or(0, |one| one.outputs);
            let half = pair.iter().flatten().map(|at| outputs(*at)).max().unwrap_or(0);
            let piece = |(place, at): (usize, Option<usize>)| {
                let to = place * half..(place + 1) * half;
                Some(Piece { module: at?, from: 0..half, to })
            };
            let pieces: Vec<Piece> = pair.into_iter().enumerate().filter_map(piece).collect();
            let name = format!("{holder}.{number}.gate_up_proj");
            let source = Source::Rows { pieces, total: 2 * half };
            modules.push(Ok(Target { name, source }));
        }
        layout.modules = modules;
        let stacks = counts.into_iter().flat_map(|(holder, count)| {
            let experts = self.experts.unwrap_or(count);
            ["gate_up_proj", "down_proj"]
                .map(|name| (format!("{holder}.{name}"), Stack { experts, crossed: false }))
        });
        stacks.collect()
    }

    /// Adds zeros for what a program does not do without, and says the targets as it reads them.
    ///
    /// # Errors
    /// If only a base could tell how large the zeros are.
    pub(super) fn complete(&self, new: &mut NewAdapter) -> Result<()> {
        if !self.dotted {
            return Ok(());
        }
        let mut added = Vec::new();
        for names in self.takes.complete {
            added.extend(self.siblings(&new.modules, names)?);
        }
        if self.wish() == Some(Wish::Single) {
            added.extend(self.missing_experts(&new.modules));
        }
        new.modules.extend(added);
        if self.takes.leaf_targets {
            // An expert's matrices are targets by the first of their names, whatever they are called.
            let last = |module: &NewModule| {
                let last = module.name.rsplit('.').next().unwrap_or_default();
                let first = |names: &[&'static str; 3]| {
                    MATRICES.first()?.get(names.iter().position(|name| *name == last)?).copied()
                };
                let expert = expert_of(&module.name).and_then(|_| MATRICES.iter().find_map(first));
                expert.unwrap_or(last).to_owned()
            };
            let leaves: BTreeSet<String> = new.modules.iter().map(last).collect();
            new.target_modules = Some(leaves.into_iter().collect());
        }
        Ok(())
    }

    /// Zeros for those projections of a layer that have none, where others have.
    fn siblings(&self, modules: &[NewModule], names: &[&str]) -> Result<Vec<NewModule>> {
        let mut layers: BTreeMap<&str, BTreeMap<&str, &NewModule>> = BTreeMap::new();
        for module in modules {
            if let Some((above, last)) = module.name.rsplit_once('.')
                && names.contains(&last)
                && expert_of(&module.name).is_none()
            {
                layers.entry(above).or_default().insert(last, module);
            }
        }
        let mut added = Vec::new();
        for (above, own) in layers {
            let Some(model) = own.values().next() else { continue };
            for name in names.iter().filter(|name| !own.contains_key(**name)) {
                let Some(base) = &self.reference else {
                    let reason = format!(
                        "how large {above}.{name} is, which the program does not do without (--reference BASE)"
                    );
                    return Err(ConvertError::Reference { reason }.into());
                };
                let tensor = format!("{above}.{name}.weight");
                let shape = base.tensor(&tensor).map(|view| view.spec.shape.as_slice());
                // A model without the projection needs none.
                let Some([outputs, inputs]) = shape else { continue };
                added.push(zeros(format!("{above}.{name}"), model, (*outputs, *inputs)));
            }
        }
        Ok(added)
    }

    /// Zeros for those matrices of a layer's experts that have none, where others have.
    fn missing_experts(&self, modules: &[NewModule]) -> Vec<NewModule> {
        let mut layers: BTreeMap<&str, BTreeMap<(usize, &str), &NewModule>> = BTreeMap::new();
        for module in modules {
            if let Some((holder, number, matrix)) = expert_of(&module.name) {
                layers.entry(holder).or_default().insert((number, matrix), module);
            }
        }
        let mut added = Vec::new();
        for (holder, own) in layers {
            let last = own.keys().map(|(number, _)| number + 1).max().unwrap_or(0);
            let count = self.experts.unwrap_or(last).max(last);
            let used = |names: &&[&str; 3]| own.keys().any(|(_, matrix)| names.contains(matrix));
            let Some(names) = MATRICES.iter().find(used) else { continue };
            // gate and up are inner × hidden, down is hidden × inner.
            let sizes = own.iter().find_map(|((_, matrix), module)| {
                let place = names.iter().position(|name| name == matrix)?;
                let (outputs, inputs) = size(module)?;
                Some((if place == 2 { (inputs, outputs) } else { (outputs, inputs) }, *module))
            });
            let Some(((inner, hidden), model)) = sizes else { continue };
            for number in 0..count {
                for (place, name) in names.iter().enumerate() {
                    if !own.contains_key(&(number, *name)) {
                        let shape = if place == 2 { (hidden, inner) } else { (inner, hidden) };
                        added.push(zeros(format!("{holder}.{number}.{name}"), model, shape));
                    }
                }
            }
        }
        added
    }
}

/// The expert of a name such as `…mlp.experts.3.gate_proj`.
fn expert_of(name: &str) -> Option<(&str, usize, &str)> {
    let (above, matrix) = name.rsplit_once('.')?;
    let (holder, number) = above.rsplit_once('.')?;
    Some((holder, number.parse().ok().filter(|_| holder.ends_with("experts"))?, matrix))
}

fn interleaves() -> Error {
    let reason = "gpt-oss has gate and up of an expert row by row between one another, which no matrices \
        of their own say; give a program that reads its stacks (vllm)";
    ErrorKind::BadOption(reason.to_owned()).into()
}

fn stem(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn absent(adapter: &Adapter) -> Error {
    let reason = "the reference has no weight of this name";
    ConvertError::Name { to: adapter.convention.name, reason }.into()
}

fn is_rows(place: &Placement) -> bool {
    let plain = place.expert.is_none() && place.columns.is_none() && place.part.is_none();
    plain && place.rows.is_some() && place.turned != Some(true)
}

fn is_part(place: &Placement) -> bool {
    let plain = place.expert.is_none() && place.columns.is_none() && place.rows.is_none();
    plain && place.part.is_some() && place.turned != Some(true)
}

fn check_shape(
    base: &Checkpoint,
    place: &Placement,
    module: &crate::adapter::module::Module,
) -> Result<()> {
    let Some(view) = base.tensor(&place.tensor) else { return Ok(()) };
    let shape = place.shape(&view.spec.shape);
    let rows = shape.first().copied().unwrap_or(0);
    let columns: usize = shape.iter().skip(1).product();
    let own = (module.outputs, module.inputs);
    if shape.len() < 2
        || own.0 == 0
        || own.1 == 0
        || own == (rows, columns)
        || own == (columns, rows)
    {
        return Ok(());
    }
    let (delta, base_tensor) = (module.shape(), place.tensor.clone());
    let found = view.spec.shape.clone();
    Err(ErrorKind::ShapeMismatch { delta, base_tensor, found }).in_tensor(&module.name)
}

/// Outputs and inputs of a module's factors.
fn size(module: &NewModule) -> Option<(usize, usize)> {
    let of = |part: Part, axis: usize| {
        let tensor = module.tensors.iter().find(|tensor| tensor.0 == part)?;
        tensor.2.get(axis).copied()
    };
    Some((of(Part::Up, 0)?, of(Part::Down, 1)?))
}

/// A module of zeros, like another in all but its name and size.
fn zeros(name: String, model: &NewModule, (outputs, inputs): (usize, usize)) -> NewModule {
    let dtype = model.tensors.first().map_or(Dtype::F32, |tensor| tensor.1);
    let rank = model.rank;
    let bytes = |count: usize| vec![0; count * dtype.bitsize() / 8];
    let tensors = vec![
        (Part::Down, dtype, vec![rank, inputs], bytes(rank * inputs)),
        (Part::Up, dtype, vec![outputs, rank], bytes(outputs * rank)),
    ];
    NewModule { name, rank, scale: model.scale, alpha: model.alpha, tensors }
}
