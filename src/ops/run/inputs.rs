//! The adapters of a recipe, with what holds for some of their modules only.

use std::path::Path;

use super::adapter_params::AdapterParams;
use super::fields::{Fields, Read, input, list, number, numbers, together, twice};
use super::module_rules::{Expression, by_module, expression};
use crate::adapter::block_weights::BlockWeights;
use crate::error::Place;
use crate::format::yaml::{Node, Value};
use crate::ops::shared::inputs::AdapterInput;

const KEYS: [&str; 6] = ["path", "weight", "parameters", "include", "exclude", "lbw"];

/// All adapters, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) adapters: Vec<AdapterInput>,
    /// kohya's block weights by adapter, and where the first are.
    pub(super) blocks: Vec<Option<Vec<f64>>>,
    pub(super) first_blocks: Option<Place>,
    /// Parameters of the method that an adapter has for itself.
    pub(super) params: Vec<AdapterParams>,
    /// Where each regular expression is.
    pub(super) rules: Vec<Expression>,
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
        let (params, weight) = match fields.get("parameters") {
            Some(node) => {
                AdapterParams::read(node, self.adapters.len(), &input.path, &mut self.rules)?
            }
            None => (AdapterParams::default(), None),
        };
        self.params.push(params);
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
