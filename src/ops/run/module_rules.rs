//! What a recipe says of some modules only: regular expressions, and values by them.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::fields::{Fields, Read, list, number, numbers, regex, twice, unexpected};
use crate::error::Place;
use crate::format::yaml::{Node, Value};
use crate::ops::shared::rules::WeightRule;

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
