//! What a recipe says of one adapter's modules: which take part, and how strongly each.
//!
//! Rules are settled while a verb plans: `ModuleRules::check` sees to it that every rule decides
//! something and that every module that takes part has a weight, so that `ModuleRules::weight` cannot
//! fail afterwards.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::adapter::target::flatten;
use crate::error::{Locate, Result, RuleError};
use crate::format::pattern;

/// Parts of names that a number of a layer follows.
const STACKS: [&str; 8] = ["layers", "layer", "blocks", "block", "resblocks", "blk", "h", "stages"];

/// A module by its name in the adapter, and by that of the base's tensor it lands on, where there is one.
pub(crate) type Names<'a> = [&'a str; 2];

/// The rules of one adapter; the empty ones let every module in at the adapter's own weight.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModuleRules {
    /// Only modules that match.
    #[serde(with = "pattern::optional")]
    pub include: Option<Regex>,
    /// No modules that match.
    #[serde(with = "pattern::optional")]
    pub exclude: Option<Regex>,
    /// Factors for the adapter's weight; the first rule that matches decides, and some rule must.
    pub weights: Vec<WeightRule>,
    /// What gradients are spread over; known once the verb has seen all names.
    #[serde(skip)]
    layers: Layers,
}

/// A weight for some modules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRule {
    /// Which modules; all if `None`.
    #[serde(with = "pattern::optional")]
    pub filter: Option<Regex>,
    /// One factor; or several, which are spread over the layers and interpolated linearly between, as
    /// mergekit's gradients are (`evaluate_setting` in its `config.py`).
    pub values: Vec<f64>,
}

impl ModuleRules {
    /// The same, its gradients spread over these layers.
    pub(crate) fn over(&self, layers: &Layers) -> Self {
        Self { layers: layers.clone(), ..self.clone() }
    }

    /// Whether there are weights by module.
    pub(crate) fn weighs(&self) -> bool {
        !self.weights.is_empty()
    }

    /// The factor for a module's weight; 0 if it takes no part.
    pub(crate) fn weight(&self, names: Names<'_>) -> f64 {
        if !self.selects(names) {
            return 0.0;
        }
        match self.rule(names) {
            Some((_, rule)) => self.layers.value(&rule.values, names[1]).unwrap_or(1.0),
            None => 1.0,
        }
    }

    fn selects(&self, names: Names<'_>) -> bool {
        self.include.as_ref().is_none_or(|regex| matches(regex, names))
            && !self.exclude.as_ref().is_some_and(|regex| matches(regex, names))
    }

    fn rule(&self, names: Names<'_>) -> Option<(usize, &WeightRule)> {
        let mut rules = self.weights.iter().enumerate();
        rules.find(|(_, rule)| rule.filter.as_ref().is_none_or(|filter| matches(filter, names)))
    }

    /// Fails unless every rule decides something, and something decides every module's weight.
    ///
    /// # Errors
    /// [`RuleError`], of the first that does not.
    pub(crate) fn check(&self, modules: &[Names<'_>]) -> Result<()> {
        for (regex, of) in [(&self.include, "include"), (&self.exclude, "exclude")] {
            let Some(regex) = regex else { continue };
            if !modules.iter().any(|names| matches(regex, *names)) {
                return Err(RuleError::Unused { rule: regex.to_string(), of }.into());
            }
        }
        if self.weights.is_empty() {
            return Ok(());
        }
        let mut used = BTreeSet::new();
        for names in modules.iter().filter(|names| self.selects(**names)) {
            let (at, rule) = self.rule(*names).ok_or(RuleError::NoWeight).in_tensor(names[0])?;
            self.layers
                .value(&rule.values, names[1])
                .ok_or(RuleError::NoLayer { of: "weight" })
                .in_tensor(names[0])?;
            used.insert(at);
        }
        for (at, rule) in self.weights.iter().enumerate() {
            if let Some(filter) = rule.filter.as_ref().filter(|_| !used.contains(&at)) {
                let (rule, of) = (filter.to_string(), "weight");
                return Err(RuleError::Unused { rule, of }.into());
            }
        }
        Ok(())
    }
}

/// Whether a regular expression of an option or a rule is about a module, by any of its names.
pub(super) fn matches<'a>(regex: &Regex, names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|name| regex.is_match(name))
}

/// How many layers each stack of a model has, by the stack's flattened name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers(BTreeMap<String, usize>);

impl Layers {
    /// The layers that these names are in.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut layers = BTreeMap::new();
        for (stack, number) in names.filter_map(layer) {
            let count = layers.entry(stack).or_insert(0);
            *count = number.saturating_add(1).max(*count);
        }
        Self(layers)
    }

    /// The value of a gradient in the layer that a name is in: the first one in the first layer, the last
    /// one in the last.
    pub(in crate::ops) fn value(&self, values: &[f64], name: &str) -> Option<f64> {
        if let [value] = values {
            return Some(*value);
        }
        let (stack, number) = layer(name)?;
        let last = self.0.get(&stack).map_or(0, |count| count.saturating_sub(1)).max(1);
        let at = number as f64 / last as f64 * values.len().saturating_sub(1) as f64;
        let (below, part) = (at.floor() as usize, at.fract());
        let first = values.get(below)?;
        let second = values.get(below + 1).unwrap_or(first);
        Some((1.0 - part) * first + part * second)
    }
}

/// The stack that a name is in, flattened, and the number of its layer: `model_layers` and 3 of
/// `model.layers.3.self_attn.q_proj`.
fn layer(name: &str) -> Option<(String, usize)> {
    let flat = flatten(name);
    let parts: Vec<&str> = flat.split('_').collect();
    let at = parts.windows(2).position(|pair| match pair {
        [stack, number] => STACKS.contains(stack) && number.parse::<usize>().is_ok(),
        _ => false,
    })?;
    Some((parts.get(..=at)?.join("_"), parts.get(at + 1)?.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_layers() {
        let is = |name: &str, stack: &str, number| {
            assert_eq!(layer(name), Some((stack.to_owned(), number)), "{name}");
        };
        is("model.layers.3.self_attn.q_proj.weight", "model_layers", 3);
        is("lora_unet_double_blocks_11_img_attn_qkv", "lora_unet_double_blocks", 11);
        is("transformer.h.0.attn.c_attn", "transformer_h", 0);
        is("encoder.block.2.layer.1.DenseReluDense.wi", "encoder_block", 2);
        assert_eq!(layer("lm_head.weight"), None);
        assert_eq!(layer("layers.x.q_proj"), None);
    }

    #[test]
    fn gradients_run_over_the_layers() {
        let names = ["m.layers.0.q", "m.layers.4.q", "lm_head"];
        let layers = Layers::of(names.into_iter());
        let at =
            |values: &[f64], layer: usize| layers.value(values, &format!("m.layers.{layer}.q"));
        assert_eq!(at(&[0.0, 1.0], 0), Some(0.0));
        assert_eq!(at(&[0.0, 1.0], 3), Some(0.75));
        assert_eq!(at(&[0.0, 1.0], 4), Some(1.0));
        assert_eq!(at(&[1.0, 0.0, 2.0], 1), Some(0.5));
        assert_eq!(at(&[1.0, 0.0, 2.0], 3), Some(1.0));
        assert_eq!(layers.value(&[1.0, 2.0], "lm_head"), None);
        assert_eq!(layers.value(&[1.5], "lm_head"), Some(1.5));
    }

    fn rules(weights: &[(&str, f64)]) -> ModuleRules {
        let rule = |(filter, value): &(&str, f64)| WeightRule {
            filter: Some(Regex::new(filter).unwrap()).filter(|_| !filter.is_empty()),
            values: vec![*value],
        };
        ModuleRules { weights: weights.iter().map(rule).collect(), ..ModuleRules::default() }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(&[("mlp", 0.5), ("layers.0", 2.0), ("", 1.0)]);
        assert_eq!(rules.weight(["layers.0.mlp", ""]), 0.5);
        assert_eq!(rules.weight(["layers.0.attn", ""]), 2.0);
        assert_eq!(rules.weight(["layers.1.attn", ""]), 1.0);
    }

    #[test]
    fn rules_that_decide_nothing_are_faults() {
        let modules = [["layers.0.mlp", ""], ["layers.0.attn", ""]];
        let says = |rules: ModuleRules| rules.check(&modules).err().map(|error| error.to_string());
        assert_eq!(says(rules(&[("mlp", 1.0), ("attn", 1.0)])), None);
        assert_eq!(says(rules(&[("mlp", 1.0), ("attn", 1.0), ("", 1.0)])), None);
        assert!(says(rules(&[("mlp", 1.0)])).unwrap().contains("`layers.0.attn`"));
        assert!(says(rules(&[("mlq", 1.0), ("", 1.0)])).unwrap().contains("`mlq`"));
        // Behind one that takes all, a rule has nothing left.
        assert!(says(rules(&[("layers", 1.0), ("mlp", 1.0)])).unwrap().contains("`mlp`"));
        let exclude = Some(Regex::new("lm_head").unwrap());
        assert!(says(ModuleRules { exclude, ..ModuleRules::default() }).is_some());
    }
}
