//! Parameters that PEFT adapts as they are (`target_parameters`): the experts of a layer, all in one
//! stack [E, …, …]. One pair of factors holds E of them, and becomes one module for each expert here
//! (peft `tuners/lora/layer.py`, `ParamWrapper`).
//!
//! A is E·r × in, one expert's rows under another's. B is out × r·E, all experts' first columns, then
//! all second ones. Keys do not name the parameter: each one wraps the module anew, the first
//! innermost, so that `experts.base_layer.lora_A` is of the first and `experts.lora_A` of the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalogue::is_stack_turned;
use super::convention::Part;
use super::family::{Parts, lora, lora::Product};
use super::module::{Kind, Module};
use super::scale::ScaleSources;
use super::sidecar::PeftConfig;
use super::slice::{Slice, Span, check_dtype, find};
pub use super::stack_names::Stack;
use super::stack_names::{ORDER, WRAPPED, holder};
use crate::error::{ErrorKind, ExpertsError, FamilyError, Locate, Result};
use crate::format::Checkpoint;

/// Stacks of experts whose sides are known, in the order in which their modules register them
/// (transformers `models/*`).
const KNOWN: [&str; 3] = ["gate_up_proj", "up_proj", "down_proj"];

/// Experts of one layer. The largest models have some hundred; a small file shall not claim more.
const MOST: usize = 8192;

/// Sizes of a base's experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExpertSizes {
    /// Inputs of an expert, and its outputs.
    pub hidden: usize,
    /// What lies between.
    pub inner: usize,
    /// Whether the base stores stacks inputs × outputs.
    pub turned: bool,
}

impl ExpertSizes {
    /// Those of the first experts in a base, if there are any.
    pub fn of(base: &Checkpoint) -> Option<Self> {
        base.names().find_map(|name| {
            let (stem, shape) =
                (name.strip_suffix(".weight").unwrap_or(name), &base.tensor(name)?.spec.shape);
            if let ([_, rows, columns], Some(_)) =
                (shape.as_slice(), stem.strip_suffix(".experts.down_proj"))
            {
                let turned = is_stack_turned(name, base);
                let (hidden, inner) = if turned { (*columns, *rows) } else { (*rows, *columns) };
                return Some(Self { hidden, inner, turned });
            }
            let is_expert =
                [".experts.0.down_proj", ".experts.0.w2"].iter().any(|end| stem.ends_with(end));
            match shape.as_slice() {
                [hidden, inner] if is_expert => {
                    Some(Self { hidden: *hidden, inner: *inner, turned: false })
                }
                _ => None,
            }
        })
    }

    /// Outputs and inputs of one expert's matrix.
    fn shape(self, parameter: &str) -> (usize, usize) {
        match parameter {
            "gate_up_proj" => (2 * self.inner, self.hidden),
            "down_proj" => (self.hidden, self.inner),
            _ => (self.inner, self.hidden),
        }
    }
}

/// The name under which a wrapped module's factors are kept apart from those of its other parameters:
/// the module's, and its nesting. None if the key is of no parameter.
pub(super) fn place(
    config: Option<&PeftConfig>,
    key: &str,
    module: &str,
    part: Part,
) -> Option<String> {
    let config = config.filter(|config| !config.target_parameters.is_empty())?;
    if !matches!(part, Part::Down | Part::Up) {
        return None;
    }
    let (path, _) = key.rsplit_once(".lora_")?;
    let mut nesting = String::new();
    let mut rest = path;
    while let Some(outer) = rest.strip_suffix(WRAPPED) {
        nesting.push_str(WRAPPED);
        rest = outer;
    }
    let wraps = !parameters(config, module, !nesting.is_empty()).is_empty();
    wraps.then(|| format!("{module}{nesting}"))
}

/// The parameters of a module that the config means, each once.
fn parameters(config: &PeftConfig, module: &str, nested: bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for target in &config.target_parameters {
        if let Some(parameter) = means(target, module, nested)
            && !found.iter().any(|known| known == parameter)
        {
            found.push(parameter.to_owned());
        }
    }
    found
}

/// The parameter of a module that a target, the end of its path, may mean.
fn means<'a>(target: &'a str, module: &str, nested: bool) -> Option<&'a str> {
    let (above, parameter) = target.rsplit_once('.').unwrap_or(("", target));
    let is = match above {
        // Any module with such a parameter: experts, or what is wrapped more than once.
        "" => nested || module == "experts" || module.ends_with(".experts"),
        above => {
            module == above || module.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'))
        }
    };
    is.then_some(parameter)
}

/// Takes the places of parameters out of an adapter's modules: module → its places, innermost first.
pub(super) fn take<'a>(
    config: Option<&PeftConfig>,
    modules: &mut BTreeMap<&'a str, &'a Parts>,
) -> BTreeMap<&'a str, Vec<&'a Parts>> {
    let mut found: BTreeMap<&str, Vec<&Parts>> = BTreeMap::new();
    let Some(config) = config.filter(|config| !config.target_parameters.is_empty()) else {
        return found;
    };
    let nested: Vec<&str> =
        modules.keys().copied().filter(|name| name.ends_with(WRAPPED)).map(holder).collect();
    let factors = |parts: &Parts| parts.keys().any(|part| matches!(part, Part::Down | Part::Up));
    // Longer names are nested deeper.
    for (name, parts) in modules.iter().rev() {
        let module = holder(name);
        if factors(parts) && !parameters(config, module, nested.contains(&module)).is_empty() {
            found.entry(module).or_default().push(parts);
        }
    }
    modules.retain(|name, _| !found.contains_key(holder(name)));
    found
}

/// Parameters that the config names, and that no module of the file has.
pub(super) fn missing(
    config: Option<&PeftConfig>,
    found: &BTreeMap<&str, Vec<&Parts>>,
) -> Vec<String> {
    let all = config.map(|config| config.target_parameters.as_slice()).unwrap_or_default();
    let absent = |target: &&String| {
        !found.iter().any(|(module, places)| means(target, module, places.len() > 1).is_some())
    };
    all.iter().filter(absent).cloned().collect()
}

/// The factors of one parameter, as stored.
struct Pair<'a> {
    parameter: String,
    down: &'a str,
    up: &'a str,
    /// Columns of A and rows of B.
    sizes: (usize, usize),
    rank: usize,
    experts: usize,
}

/// All that a module's parameters are read from.
pub(super) struct StackSource<'a> {
    /// The module that holds them.
    pub(super) module: &'a str,
    /// Their factors, innermost first.
    pub(super) places: &'a [&'a Parts],
    pub(super) file: &'a Checkpoint,
    pub(super) config: &'a PeftConfig,
    pub(super) scales: &'a ScaleSources<'a>,
    /// The experts of the base that the adapter is for.
    pub(super) base: Option<ExpertSizes>,
}

/// What a module's parameters become.
#[derive(Default)]
pub(super) struct Expanded {
    /// A module for each expert of each parameter.
    pub(super) modules: Vec<Module>,
    /// The stacks that they were, by the parameter's name.
    pub(super) stacks: Vec<(String, Stack)>,
}

/// Takes a module's parameters apart by expert.
pub(super) fn expand(source: &StackSource<'_>) -> Result<Expanded> {
    let pairs = pairs(source)?;
    let Expanded { mut modules, mut stacks } = Expanded::default();
    for pair in &pairs {
        let label = format!("{}.{}", source.module, pair.parameter);
        let scale = source.scales.resolve(&label, pair.rank, None).in_tensor(&label)?;
        let known = KNOWN.contains(&pair.parameter.as_str());
        let stacked = known || pair.experts != 1;
        let crossed = match known {
            true => is_crossed(source, &pairs, pair)?,
            false => stacked && is_crossed_by_release(source, pair)?,
        };
        if stacked {
            stacks.push((label.clone(), Stack { experts: pair.experts, crossed }));
        }
        for expert in 0..pair.experts {
            let name = match pair.parameter.as_str() {
                "weight" if !stacked => source.module.to_owned(),
                parameter if stacked => format!("{}.{expert}.{parameter}", source.module),
                _ => label.clone(),
            };
            let (inputs, outputs) = if crossed { (pair.sizes.1, pair.sizes.0) } else { pair.sizes };
            modules.push(Module {
                name,
                family: lora::NAME,
                kind: Kind::Linear,
                rank: pair.rank,
                inputs,
                outputs,
                scale,
                form: Arc::new(pair.expert(expert, crossed)),
                bias: None,
                magnitude: None,
            });
        }
    }
    Ok(Expanded { modules, stacks })
}

impl Pair<'_> {
    fn expert(&self, expert: usize, crossed: bool) -> Product {
        let rank = self.rank;
        let whole = self.experts == 1;
        let rows = Span { first: expert * rank, step: 1, count: rank };
        let columns = Span { first: expert, step: self.experts, count: rank };
        let down =
            Slice { rows: (!whole).then_some(rows), turned: crossed, ..Slice::whole(self.down) };
        let up = Slice {
            columns: (!whole).then_some(columns),
            turned: crossed,
            ..Slice::whole(self.up)
        };
        // (B·A)ᵀ = Aᵀ·Bᵀ.
        let (up, down) = if crossed { (down, up) } else { (up, down) };
        Product { up, down, rank }
    }
}

fn pairs<'a>(source: &StackSource<'a>) -> Result<Vec<Pair<'a>>> {
    let mut names = parameters(source.config, source.module, source.places.len() > 1);
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    if names.len() != source.places.len() {
        return Err(ExpertsError::Count { found: source.places.len(), names }.into());
    }
    if names.len() > 1 && names.iter().any(|name| rank(name).is_none()) {
        return Err(ExpertsError::Order { names }.into());
    }
    names.sort_by_key(|name| rank(name));
    let pairs = names.into_iter().zip(source.places);
    pairs.map(|(parameter, parts)| pair(source, parameter, parts)).collect()
}

fn pair<'a>(source: &StackSource<'a>, parameter: String, parts: &'a Parts) -> Result<Pair<'a>> {
    let factors = |part: &&Part| matches!(part, Part::Down | Part::Up);
    if let Some((_, tensor)) = parts.iter().find(|(part, _)| !factors(part)) {
        return Err(FamilyError::StrayPart { family: lora::NAME }).in_tensor(tensor);
    }
    let factor = |part, present, missing| {
        let tensor = parts.get(&part).ok_or(ErrorKind::MissingFactor { present, missing })?;
        let view = find(source.file, tensor)?;
        check_dtype(view)?;
        match view.spec.shape.as_slice() {
            [rows, columns] if rows * columns > 0 => Ok((tensor.as_str(), *rows, *columns)),
            found => Err(ErrorKind::BadShape {
                expected: "a matrix with elements".to_owned(),
                found: found.to_vec(),
            })
            .in_tensor(tensor),
        }
    };
    let (down, rows, inputs) = factor(Part::Down, "B (up)", "A (down)")?;
    let (up, outputs, columns) = factor(Part::Up, "A (down)", "B (up)")?;
    let label = format!("{}.{parameter}", source.module);
    let rank = source.config.rank_of(&label).unwrap_or(rows).max(1);
    let experts = rows / rank;
    if rows != columns || experts * rank != rows || experts > MOST {
        return Err(ExpertsError::Rank { rows, columns, rank, most: MOST }.into());
    }
    Ok(Pair { parameter, down, up, sizes: (inputs, outputs), rank, experts })
}

/// Whether A's columns are the outputs. PEFT since 0.19 takes a stack for E × out × in, unless the
/// module says `is_transposed`; before, always for E × in × out (PEFT's pull request 3083). Models
/// follow the one or the other (gpt-oss and Llama 4 are E × in × out, and only newer releases of
/// transformers say so), so that shapes decide wherever they can.
fn is_crossed(source: &StackSource<'_>, pairs: &[Pair<'_>], pair: &Pair<'_>) -> Result<bool> {
    if let Some(base) = source.base {
        let (outputs, inputs) = base.shape(&pair.parameter);
        match (pair.sizes == (inputs, outputs), pair.sizes == (outputs, inputs)) {
            (plain, crossed) if plain != crossed => return Ok(crossed),
            _ => {}
        }
    }
    let named = |name: &str| pairs.iter().find(|pair| pair.parameter == name);
    if let (Some(both), Some(down)) = (named("gate_up_proj"), named("down_proj")) {
        // What goes in comes out again, and gate and up are twice what lies between.
        let fits = |(hidden, inner): (usize, usize), down: (usize, usize)| {
            hidden == down.1 && inner == 2 * down.0
        };
        let turn = |(a, b): (usize, usize)| (b, a);
        match (fits(both.sizes, down.sizes), fits(turn(both.sizes), turn(down.sizes))) {
            (plain, crossed) if plain != crossed => return Ok(crossed),
            _ => {}
        }
    }
    match (release(source.config), source.base) {
        (Release::New, _) | (_, Some(ExpertSizes { turned: true, .. })) => Ok(false),
        (Release::Old, Some(ExpertSizes { turned: false, .. })) => Ok(true),
        _ => Err(ExpertsError::Orientation.into()),
    }
}

/// As [`is_crossed`], of a parameter whose sides are not known: what is E × out × in for newer releases is
/// E × in × out for older ones, and where a base's sizes differ they say which it is.
fn is_crossed_by_release(source: &StackSource<'_>, pair: &Pair<'_>) -> Result<bool> {
    match release(source.config) {
        Release::New => Ok(false),
        Release::Old => Ok(true),
        Release::Unknown if pair.sizes.0 == pair.sizes.1 => Err(ExpertsError::Orientation.into()),
        Release::Unknown => Ok(false),
    }
}

/// On which side of the change a config was written.
enum Release {
    Old,
    New,
    Unknown,
}

fn release(config: &PeftConfig) -> Release {
    // The first releases with parameters did not write their version.
    let Some(version) = config.text("peft_version") else { return Release::Old };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    match (major, minor) {
        (Some(0), Some(minor)) if minor < 19 => match version.contains("dev") {
            true => Release::Unknown,
            false => Release::Old,
        },
        (Some(_), Some(_)) => Release::New,
        _ => Release::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::stack_names::{expert_of, place_of};
    use super::*;

    #[test]
    fn parameters_are_found_as_peft_finds_them() {
        let config = |targets: &str| {
            let text = format!(r#"{{"peft_type":"LORA","target_parameters":{targets}}}"#);
            PeftConfig::parse(text.as_bytes(), &[], false).expect("a config")
        };
        let experts = "model.layers.7.mlp.experts";
        for (targets, module, nested, found) in [
            (r#"["mlp.experts.down_proj"]"#, experts, false, vec!["down_proj"]),
            (r#"["7.mlp.experts.down_proj"]"#, "model.layers.17.mlp.experts", false, vec![]),
            (
                r#"["7.mlp.experts.down_proj","experts.down_proj"]"#,
                experts,
                false,
                vec!["down_proj"],
            ),
            (r#"["down_proj","gate_up_proj"]"#, experts, false, vec!["down_proj", "gate_up_proj"]),
            (r#"["down_proj"]"#, "model.layers.7.mlp", false, vec![]),
            (r#"["w"]"#, "model.x", true, vec!["w"]),
            (r#"["gate.weight"]"#, "model.layers.0.mlp.gate", false, vec!["weight"]),
        ] {
            assert_eq!(parameters(&config(targets), module, nested), found, "{targets}");
        }
        let key = "base_model.model.model.layers.7.mlp.experts.base_layer.base_layer.lora_A.weight";
        let config = config(r#"["experts.down_proj"]"#);
        let place = place(Some(&config), key, experts, Part::Down).expect("a place");
        assert_eq!(place, format!("{experts}.base_layer.base_layer"));
        assert_eq!(holder(&place), experts);
        let both = ["down_proj", "gate_up_proj"].map(|name| format!("{experts}.{name}"));
        let written = BTreeSet::from(both.clone());
        assert_eq!(
            both.map(|label| place_of(&label, &written)),
            [experts.to_owned(), format!("{experts}.base_layer"),]
        );
        assert_eq!(expert_of("a.experts.12.up_proj"), Some(("a.experts.up_proj".to_owned(), 12)));
        let of_module = expert_of("a.input_linear.3.weight");
        assert_eq!(of_module, Some(("a.input_linear.weight".to_owned(), 3)));
        assert_eq!(expert_of("a.experts.x.up_proj"), None);
    }
}
