//! What an adapter's modules become in another convention: their names, and where the model's layout is
//! another one too, which rows of which modules lie in which.
//!
//! The layouts are those of `architecture/`. Which one an adapter has is told by
//! its own names, or by a base's; what no layout knows is [`Renamer`]'s.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rows::{alone, join, rows_of};

use super::Adapter;
use super::architecture::{ARCHITECTURES, Body, Cut, Rule, Seen, Side, Told, fill};
use super::convention::gguf_names::Architecture;
use super::convention::{Convention, Names};
use super::rename::Renamer;
use super::scope::{Scope, located, scope_of};
use crate::error::{ConvertError, Error, Locate, Result};
use crate::format::Checkpoint;

/// A module of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in the other convention.
    pub name: String,
    /// What it is made of.
    pub source: Source,
}

/// What a module of the result is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A module of the adapter, whole.
    Whole(usize),
    /// Rows of some.
    Rows {
        /// Which go where, in order of where.
        pieces: Vec<Piece>,
        /// Rows in all; those of no piece are zero.
        total: usize,
    },
}

/// Rows of a module that are rows of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The module, by its number in the adapter.
    pub module: usize,
    /// Its rows.
    pub from: Range<usize>,
    /// Where they lie.
    pub to: Range<usize>,
}

impl Source {
    /// The modules it is made of.
    pub fn modules(&self) -> Vec<usize> {
        match self {
            Self::Whole(module) => vec![*module],
            Self::Rows { pieces, .. } => {
                let mut modules: Vec<usize> = pieces.iter().map(|piece| piece.module).collect();
                modules.dedup();
                modules
            }
        }
    }
}

/// The modules of the adapter that belong to one part of the model.
struct Part {
    scope: Scope,
    modules: Vec<usize>,
    told: Option<Told>,
    /// The layout that most names are of.
    side: Side,
}

/// A module in the split layout, and where the published one has it.
struct Atom {
    split: String,
    published: String,
    cut: Cut,
    module: usize,
    /// Rows of the module.
    from: Range<usize>,
}

/// What a module is in its layout.
enum Fit {
    /// Its name in the wanted layout, where that is all that changes.
    Name(String),
    /// The split modules that it holds.
    Atoms(Vec<Atom>),
}

/// A module of the result, or the module of the adapter that has no place in it, by its number.
pub type Wanted = std::result::Result<Target, (usize, Error)>;

/// What is found, in order of the adapter's modules.
type Found = (usize, Wanted);

/// The result's modules and replacements.
#[derive(Debug)]
pub struct Layout {
    /// What the adapter's modules become.
    pub modules: Vec<Wanted>,
    /// What each of its replacements' modules is called.
    pub replacements: Vec<Result<String>>,
}

/// Whether a layout of the adapter's model is known.
pub fn is_known(adapter: &Adapter) -> bool {
    parts(adapter, None).iter().any(|part| part.told.is_some())
}

/// Which architectures the modules tell they are of, by the names of their files in `architecture/`.
pub fn architectures(adapter: &Adapter) -> BTreeSet<&'static str> {
    let told = |part: &Part| {
        let bodies = part.modules.iter().filter_map(|&at| body(adapter, at));
        let bodies: Vec<Body<'_>> = bodies.collect();
        let of =
            |known: &&&super::architecture::Architecture| (known.told)(&Seen(&bodies)).is_some();
        part.told.as_ref().and_then(|_| ARCHITECTURES.iter().find(of)).map(|known| known.name)
    };
    parts(adapter, None).iter().filter_map(told).collect()
}

/// Names and rows of the result. Its errors are of what has no name, or does not divide as its layout
/// does. `places` has the base's tensor of each module, where a whole one is known.
///
/// # Errors
/// If one file would have to hold the adapters of several models and cannot.
pub fn of(
    adapter: &Adapter,
    renamer: &Renamer<'_>,
    reference: Option<&Checkpoint>,
    places: &[Option<String>],
) -> Result<Layout> {
    let mut parts = parts(adapter, reference);
    for told in parts.iter_mut().filter_map(|part| part.told.as_mut()) {
        told.arrange(renamer.to.names == Names::Checkpoint);
    }
    let t5 = parts.iter().find_map(|part| part.told.as_ref()?.t5);
    let numbered = t5.is_some() || parts.iter().any(|p| matches!(p.scope, Scope::TextEncoder(2..)));
    let renamer = Renamer { t5, two_encoders: renamer.two_encoders || numbered, ..*renamer };
    if renamer.to.names == Names::Dotted {
        one_model(adapter, &parts)?;
    }
    let mut found: Vec<Found> = Vec::new();
    for part in &parts {
        found.extend(of_part(adapter, part, &renamer, places));
    }
    found.sort_by_key(|(at, _)| *at);
    let replaced = adapter.replacements.iter();
    let replacements = replaced.map(|one| replacement(adapter, &one.module, &parts, &renamer));
    Ok(Layout {
        replacements: replacements.collect(),
        modules: found.into_iter().map(|(_, target)| target).collect(),
    })
}

/// Experts' `gate_up_proj` as llama.cpp and mlx-lm have them: gates and ups in stacks of their own.
pub fn divide_experts(
    adapter: &Adapter,
    (architecture, to): (&Architecture, &Convention),
    layout: &mut Layout,
) {
    let halves = |at: usize| {
        let module = adapter.modules.get(at)?;
        let above = module.name.strip_suffix(".gate_up_proj")?;
        let total = module.outputs / 2;
        let half = |(number, own): (usize, &str)| {
            let own = format!("{above}.{own}");
            let name = match to.names {
                Names::Gguf => architecture.to_gguf(&own)?,
                _ => architecture.expert(&own)?,
            };
            let from = number * total..(number + 1) * total;
            let pieces = vec![Piece { module: at, from, to: 0..total }];
            Some(Ok(Target { name, source: Source::Rows { pieces, total } }))
        };
        let found: Vec<Wanted> =
            ["gate_proj", "up_proj"].into_iter().enumerate().filter_map(half).collect();
        (found.len() == 2 && module.outputs == 2 * total).then_some(found)
    };
    let divided = std::mem::take(&mut layout.modules).into_iter().flat_map(|target| {
        let parts = target.as_ref().err().and_then(|(at, _)| halves(*at));
        parts.unwrap_or_else(|| vec![target])
    });
    layout.modules = divided.collect();
}

/// The name of a replacement's module.
fn replacement(
    adapter: &Adapter,
    name: &str,
    parts: &[Part],
    renamer: &Renamer<'_>,
) -> Result<String> {
    let (scope, path) = place(adapter, name);
    let of_model = parts.iter().find(|part| part.scope == scope);
    let Some((part, told)) = of_model.and_then(|part| Some((part, part.told.as_ref()?))) else {
        return renamer.rename(name, None);
    };
    let body = Body { path, flat: !path.contains('.'), outputs: 0, inputs: 0 };
    let to = wanted(renamer, told, scope);
    let fits =
        |rule: &&Rule| rule.cut == Cut::Whole && body.capture(rule.side(part.side)).is_some();
    let rule = told.rules.iter().find(fits).ok_or_else(|| renamer.unknown())?;
    let found = body.capture(rule.side(part.side)).unwrap_or_default();
    let name = renamer.spell(scope, &fill(rule.side(to), &found), told);
    name.ok_or_else(|| renamer.unknown())
}

/// Sorts the modules by the part of a model they are of, and finds each part's layouts.
fn parts(adapter: &Adapter, reference: Option<&Checkpoint>) -> Vec<Part> {
    let mut modules: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
    for (at, module) in adapter.modules.iter().enumerate() {
        modules.entry(place(adapter, &module.name).0).or_default().push(at);
    }
    let part = |(scope, modules): (Scope, Vec<usize>)| {
        let bodies: Vec<Body<'_>> = modules.iter().filter_map(|&at| body(adapter, at)).collect();
        let fits = |told: &Told, side| {
            let one =
                |body: &&Body<'_>| told.all().any(|rule| body.capture(rule.side(side)).is_some());
            bodies.iter().filter(one).count()
        };
        let counts = |told: &Told| (fits(told, Side::Split), fits(told, Side::Published));
        let base = reference.and_then(|base| told_by_base(base, scope));
        let told = base.or_else(|| told(&Seen(&bodies)));
        // Whose model it is nobody says, all of its names have to.
        let told = told.filter(|told| {
            let (split, published) = counts(told);
            scope != Scope::Any || split.max(published) == bodies.len()
        });
        let side = told.as_ref().map(counts).map_or(Side::Split, |(split, published)| {
            if published > split { Side::Published } else { Side::Split }
        });
        Part { scope, modules, told, side }
    };
    modules.into_iter().map(part).collect()
}

fn told(seen: &Seen<'_>) -> Option<Told> {
    ARCHITECTURES.iter().find_map(|known| (known.told)(seen))
}

/// What a base says of the part of it.
fn told_by_base(base: &Checkpoint, scope: Scope) -> Option<Told> {
    let of = |wanted: Scope| -> Vec<Body<'_>> {
        let names = base.names().filter(|name| scope_of(name).0 == wanted);
        names
            .filter_map(|name| {
                let below = scope_of(name).1;
                Body::stored(base, name, below.strip_suffix(".weight").unwrap_or(below))
            })
            .collect()
    };
    let rooted = of(scope);
    let encoder = matches!(scope, Scope::TextEncoder(_));
    let encoder = encoder || scope == Scope::Connectors;
    let bodies = if rooted.is_empty() && !encoder { of(Scope::Any) } else { rooted };
    told(&Seen(&bodies))
}

/// The part of a model that a module is of, and its name there.
fn place<'a>(adapter: &Adapter, name: &'a str) -> (Scope, &'a str) {
    match adapter.convention.names {
        // Roots of language models may look like a component's.
        Names::Dotted | Names::Gguf => (Scope::Any, name),
        _ => located(name),
    }
}

fn body(adapter: &Adapter, at: usize) -> Option<Body<'_>> {
    let module = adapter.modules.get(at)?;
    let path = place(adapter, &module.name).1;
    // Of a bias alone only its own length is known.
    let length = module.bias.as_ref().map_or(0, |bias| bias.length);
    let outputs = if module.outputs == 0 { length } else { module.outputs };
    Some(Body { path, flat: !path.contains('.'), outputs, inputs: module.inputs })
}

/// PEFT and its like hold the adapter of one model.
fn one_model(adapter: &Adapter, parts: &[Part]) -> Result<()> {
    if parts.len() <= 1 {
        return Ok(());
    }
    let model = |part: &Part| match (part.scope, &part.told) {
        (Scope::TextEncoder(0 | 1), _) => "text_encoder".to_owned(),
        (Scope::TextEncoder(number), _) => format!("text_encoder_{number}"),
        (_, Some(told)) => told.component.to_owned(),
        _ => "another".to_owned(),
    };
    let mut models: Vec<String> = parts.iter().map(model).collect();
    models.sort();
    let models = models.join(", ");
    Err(Error::from(ConvertError::SeveralModels { models })).in_file(&adapter.path)
}

fn of_part(
    adapter: &Adapter,
    part: &Part,
    renamer: &Renamer<'_>,
    places: &[Option<String>],
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut joined: BTreeMap<String, Vec<Atom>> = BTreeMap::new();
    for &at in &part.modules {
        let Some(module) = adapter.modules.get(at) else { continue };
        let renamed = || {
            let place = places.get(at).and_then(Option::as_deref);
            renamer.rename(&module.name, place)
        };
        let fit = part.told.as_ref().map(|told| fit(adapter, part, told, at, renamer));
        let spelled = |path: &str, told: &Told| {
            renamer.spell(part.scope, path, told).ok_or_else(|| renamer.unknown())
        };
        match (fit, part.told.as_ref()) {
            (Some(Ok(Some(Fit::Name(path)))), Some(told)) => {
                let target = spelled(&path, told)
                    .map(|name| Target { name, source: Source::Whole(at) })
                    .map_err(|error| (at, error));
                found.push((at, target));
            }
            (Some(Ok(Some(Fit::Atoms(atoms)))), Some(told)) => {
                if wanted(renamer, told, part.scope) == Side::Published {
                    for atom in atoms {
                        joined.entry(atom.published.clone()).or_default().push(atom);
                    }
                    continue;
                }
                found.extend(atoms.into_iter().map(|atom| {
                    let target = spelled(&atom.split, told).map_err(|error| (at, error));
                    (at, target.map(|name| Target { name, source: alone(atom) }))
                }));
            }
            (Some(Err(error)), _) => found.push((at, Err((at, error)))),
            _ => {
                let target = renamed().map_err(|error| (at, error));
                let source = Source::Whole(at);
                found.push((at, target.map(|name| Target { name, source })));
            }
        }
    }
    for (path, atoms) in joined {
        let at = atoms.first().map_or(0, |atom| atom.module);
        let Some(told) = &part.told else { continue };
        let source = join(adapter, atoms).ok_or_else(|| renamer.indivisible());
        let name = renamer.spell(part.scope, &path, told).ok_or_else(|| renamer.unknown());
        let target = source.and_then(|source| Ok(Target { name: name?, source }));
        found.push((at, target.map_err(|error| (at, error))));
    }
    found
}

/// Whose names the other convention wants.
fn wanted(renamer: &Renamer<'_>, told: &Told, scope: Scope) -> Side {
    let encoder = matches!(scope, Scope::TextEncoder(_)) || told.component == "text_encoder";
    match renamer.to.names {
        Names::Flattened => told.kohya,
        Names::Checkpoint if !encoder => Side::Published,
        _ => Side::Split,
    }
}

/// What a module is in its part's layout; nothing if no layout has it and none is needed.
fn fit(
    adapter: &Adapter,
    part: &Part,
    told: &Told,
    at: usize,
    renamer: &Renamer<'_>,
) -> Result<Option<Fit>> {
    let Some(body) = body(adapter, at) else { return Ok(None) };
    let to = wanted(renamer, told, part.scope);
    let other = if part.side == Side::Split { Side::Published } else { Side::Split };
    let matched = |side: Side| {
        let rule = told.rules.iter().find(|rule| body.capture(rule.side(side)).is_some())?;
        Some((side, rule, body.capture(rule.side(side))?))
    };
    let Some((side, rule, found)) = matched(part.side).or_else(|| matched(other)) else {
        return if part.side == to { Ok(None) } else { Err(renamer.unknown()) };
    };
    // XLabs has a name for some rows of a published tensor.
    let canonical = told.rules.iter().find(|other| other.split == rule.split).unwrap_or(rule);
    if side == to && canonical.published == rule.published {
        return Ok(Some(Fit::Name(fill(rule.side(side), &found))));
    }
    if rule.cut == Cut::Whole && (to == Side::Split || canonical.cut == Cut::Whole) {
        return Ok(Some(Fit::Name(fill(canonical.side(to), &found))));
    }
    let atom = |rule: &Rule, from| {
        let canonical = told.rules.iter().find(|other| other.split == rule.split).unwrap_or(rule);
        Atom {
            split: fill(&rule.split, &found),
            published: fill(&canonical.published, &found),
            cut: canonical.cut,
            module: at,
            from,
        }
    };
    let (rows, inputs) = (body.outputs, body.inputs);
    if side == Side::Split {
        return Ok(Some(Fit::Atoms(vec![atom(rule, 0..rows)])));
    }
    // One table may say again what another says.
    let mut split = BTreeSet::new();
    let fused = told.rules.iter().filter(|other| other.published == rule.published);
    let atoms = fused
        .filter(|rule| split.insert(rule.split.as_str()))
        .map(|rule| Some(atom(rule, rows_of(rule.cut, rows, inputs)?)));
    atoms
        .collect::<Option<Vec<_>>>()
        .map(|atoms| Some(Fit::Atoms(atoms)))
        .ok_or_else(|| renamer.indivisible())
}
