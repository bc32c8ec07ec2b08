//! The adapters of a recipe, with what holds for some of their modules only.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::fields::{
    Fields, Read, input, list, number, numbers, regex, together, twice, unexpected,
};
use super::params::Own;
use crate::adapter::block_weights::BlockWeights;
use crate::error::Place;
use crate::format::yaml::{Node, Value};
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::rules::WeightRule;

const KEYS: [&str; 6] = ["path", "weight", "parameters", "include", "exclude", "lbw"];

/// All adapters, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) adapters: Vec<AdapterInput>,
    /// kohya's block weights by adapter, and where the first are.
    pub(super) blocks: Vec<Option<Vec<f64>>>,
    pub(super) first_blocks: Option<Place>,
    /// Parameters of the method that an adapter has for itself.
    pub(super) own: Vec<Own>,
    /// Where each regular expression is.
    pub(super) rules: Vec<Expression>,
}

/// A regular expression about modules of one adapter.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    /// Whose modules; all adapters' if `None`.
    pub(super) adapter: Option<PathBuf>,
    /// What it decides: `include`, `weight`, a parameter.
    pub(super) of: String,
    pub(super) text: String,
    pub(super) place: Place,
}

/// What people may look for under another name.
fn instead(key: &str) -> Option<&'static str> {
    match key {
        "model" | "adapter" | "lora" | "file" => {
            Some("an adapter's file or directory is its `path`")
        }
        "weights" | "strength" | "scale" | "ratio" | "multiplier" => {
            Some("how strongly it is merged is its `weight`")
        }
        "filter" | "rules" | "modules" | "layers" => {
            Some("weights by module are `weight: [{filter: …, value: …}, {value: 1}]`")
        }
        "module_weight" => {
            Some("factors by module for all adapters are the recipe's own `module_weight`")
        }
        "density" | "gamma" | "lambda" | "epsilon" => {
            Some("parameters of the method stand below `parameters`")
        }
        _ => None,
    }
}

/// Reads the list of adapters; their paths are relative to `folder`.
pub(super) fn read(node: &Node, folder: &Path) -> Read<Inputs> {
    let mut inputs = Inputs::default();
    for node in list("adapters", node, "adapters")? {
        if let Value::Scalar(..) = &node.value {
            let path = input("adapters", node, folder)?;
            inputs.adapters.push(AdapterInput::new(path, 1.0));
            inputs.blocks.push(None);
            continue;
        }
        inputs.read(node, folder)?;
    }
    Ok(inputs)
}

impl Inputs {
    fn read(&mut self, node: &Node, folder: &Path) -> Read<()> {
        let fields = Fields::new(node, "an adapter", &KEYS, instead)?;
        let path = input("path", fields.need("path")?, folder)?;
        let mut input = AdapterInput::new(path, 1.0);
        let (own, weight) = match fields.get("parameters") {
            Some(node) => Own::read(node, self.adapters.len(), &input.path, &mut self.rules)?,
            None => (Own::default(), None),
        };
        self.own.push(own);
        let weight = match (fields.key("weight"), weight) {
            (Some(first), Some((key, _))) => return Err(twice(key, first)),
            (None, weight) => weight.map(|(_, node)| node),
            (Some(_), None) => fields.get("weight"),
        };
        if let Some(node) = weight {
            self.weigh(&mut input, node)?;
        }
        for key in ["include", "exclude"] {
            let Some(node) = fields.get(key) else { continue };
            let regex = expression(Some(&input.path), (key, key), node, &mut self.rules)?;
            match key {
                "include" => input.rules.include = Some(regex),
                _ => input.rules.exclude = Some(regex),
            }
        }
        let blocks = fields.read("lbw", numbers)?;
        if let (Some(list), Some(node)) = (&blocks, fields.get("lbw")) {
            BlockWeights::new(list).map_err(|error| together(node.place, error.to_string()))?;
            self.first_blocks.get_or_insert(node.place);
        }
        self.blocks.push(blocks);
        self.adapters.push(input);
        Ok(())
    }

    fn weigh(&mut self, input: &mut AdapterInput, node: &Node) -> Read<()> {
        match &node.value {
            Value::List(_) => {
                let rules = by_module("weight", node, Some(&input.path), &mut self.rules)?;
                input.rules.weights = rules.into_iter().map(|(_, rule)| rule).collect();
            }
            _ => input.weight = number("weight", node)?,
        }
        Ok(())
    }

    /// kohya's block weights for every adapter, 1 throughout for those without; none if there are none.
    pub(super) fn all_blocks(&self) -> Vec<Vec<f64>> {
        if self.first_blocks.is_none() {
            return Vec::new();
        }
        let full = || vec![1.0; 26];
        self.blocks.iter().map(|list| list.clone().unwrap_or_else(full)).collect()
    }
}

/// Whether a value is a list of rules.
pub(super) fn are_rules(node: &Node) -> bool {
    let is_rule = |node: &Node| matches!(node.value, Value::Mapping(_));
    matches!(&node.value, Value::List(nodes) if nodes.iter().any(is_rule))
}

/// What is not the same for all modules: a gradient over the layers, or rules with numbers or gradients;
/// each with the place of its values.
pub(super) fn by_module(
    of: &str,
    node: &Node,
    adapter: Option<&Path>,
    expressions: &mut Vec<Expression>,
) -> Read<Vec<(Place, WeightRule)>> {
    if !are_rules(node) {
        return Ok(vec![(node.place, WeightRule { filter: None, values: numbers(of, node)? })]);
    }
    let nodes = list(of, node, "rules")?.iter();
    nodes.map(|node| rule(of, node, adapter, expressions)).collect()
}

fn rule(
    of: &str,
    node: &Node,
    adapter: Option<&Path>,
    expressions: &mut Vec<Expression>,
) -> Read<(Place, WeightRule)> {
    let none = |_: &str| None;
    let fields = Fields::new(node, "a rule", &["filter", "value"], none)?;
    let value = fields.need("value")?;
    let values = match &value.value {
        Value::List(_) => numbers("value", value)?,
        _ => vec![number("value", value)?],
    };
    let filter = match fields.get("filter") {
        // mergekit's word for all.
        Some(node) if matches!(&node.value, Value::Scalar(text, _) if text == "*") => None,
        Some(node) => Some(expression(adapter, (of, "filter"), node, expressions)?),
        None => None,
    };
    Ok((value.place, WeightRule { filter, values }))
}

/// What modules' weights are multiplied by, by regular expression, in order; each noted with its place.
pub(super) fn module_weights(
    node: Option<&Node>,
    expressions: &mut Vec<Expression>,
) -> Read<Vec<(Regex, f64)>> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let key = "module_weight";
    let Value::Mapping(entries) = &node.value else {
        return Err(unexpected(key, node, "numbers by regular expression, {mlp: 0.5}"));
    };
    let mut weights: Vec<(Regex, f64)> = Vec::new();
    for (at, (name, node)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries.iter().take(at).find(|(key, _)| key.text == name.text) {
            return Err(twice(name, first));
        }
        let text = Node { place: name.place, value: Value::Scalar(name.text.clone(), false) };
        let regex = expression(None, ("module-weight", key), &text, expressions)?;
        weights.push((regex, number(&name.text, node)?));
    }
    Ok(weights)
}

/// A regular expression that decides `of`, noted with its place.
pub(super) fn expression(
    adapter: Option<&Path>,
    (of, key): (&str, &str),
    node: &Node,
    expressions: &mut Vec<Expression>,
) -> Read<Regex> {
    let regex = regex(key, node)?;
    let (adapter, of) = (adapter.map(Path::to_path_buf), of.to_owned());
    expressions.push(Expression { adapter, of, text: regex.to_string(), place: node.place });
    Ok(regex)
}
