//! The adapters of a recipe, with what holds for some of their modules only.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::fields::{Fields, Read, list, number, numbers, regex, text, together, twice};
use super::params::Own;
use crate::adapter::block_weights::BlockWeights;
use crate::error::Place;
use crate::format::yaml::{Node, Value};
use crate::ops::merge::AdapterInput;
use crate::ops::rules::WeightRule;

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
    pub(super) adapter: PathBuf,
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
            let path = folder.join(text("adapters", node)?);
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
        let path = folder.join(text("path", fields.need("path")?)?);
        let mut input = AdapterInput::new(path, 1.0);
        let (own, weight) = match fields.get("parameters") {
            Some(node) => Own::read(node, self.adapters.len())?,
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
            let regex = self.regex(&input.path, key, node)?;
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

    /// A number, a gradient over the layers, or rules with either.
    fn weigh(&mut self, input: &mut AdapterInput, node: &Node) -> Read<()> {
        let Value::List(nodes) = &node.value else {
            input.weight = number("weight", node)?;
            return Ok(());
        };
        let is_rule = |node: &Node| matches!(node.value, Value::Mapping(_));
        let weights = match nodes.iter().any(is_rule) {
            true => nodes.iter().map(|node| self.rule(&input.path, node)).collect::<Read<_>>()?,
            false => vec![WeightRule { filter: None, values: numbers("weight", node)? }],
        };
        input.rules.weights = weights;
        Ok(())
    }

    fn rule(&mut self, adapter: &Path, node: &Node) -> Read<WeightRule> {
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
            Some(node) => Some(self.regex(adapter, "filter", node)?),
            None => None,
        };
        Ok(WeightRule { filter, values })
    }

    fn regex(&mut self, adapter: &Path, key: &str, node: &Node) -> Read<Regex> {
        let regex = regex(key, node)?;
        let (adapter, text) = (adapter.to_path_buf(), regex.to_string());
        self.rules.push(Expression { adapter, text, place: node.place });
        Ok(regex)
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
