//! Parameters of the method as they stand in a recipe, and those that an adapter has for itself.

use std::collections::BTreeMap;
use std::path::Path;

use super::fields::{Read, number, text, twice, unexpected};
use super::module_rules::{Expression, by_module};
use crate::error::Place;
use crate::format::yaml::{Key, Node, Value};
use crate::method::params::{PARAMS, ParamKind};
use crate::ops::shared::rules::WeightRule;

/// A parameter as it stands in a recipe.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) place: Place,
    pub(super) text: String,
}

/// What an adapter says of a parameter.
#[derive(Debug)]
pub(super) enum ParamValue {
    /// One number for all its modules.
    One(Written),
    /// Another number for some.
    ByModule(Place, Vec<(Place, WeightRule)>),
}

impl ParamValue {
    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::One(written) => written.place,
            Self::ByModule(place, _) => *place,
        }
    }
}

/// Parameters of one adapter.
#[derive(Debug, Default)]
pub(super) struct AdapterParams {
    pub(super) adapter: usize,
    pub(super) values: BTreeMap<String, ParamValue>,
}

/// What stands below a `parameters`, names as methods have them.
pub(super) type Entries<'a> = BTreeMap<String, (&'a Key, &'a Node)>;

impl AdapterParams {
    /// Parameters below an adapter; mergekit has its weight there too, which is given back.
    pub(super) fn read<'a>(
        node: &'a Node,
        adapter: usize,
        path: &Path,
        expressions: &mut Vec<Expression>,
    ) -> Read<(Self, Option<(&'a Key, &'a Node)>)> {
        let mut entries = entries(node)?;
        let weight = entries.remove("weight");
        let mut values = BTreeMap::new();
        for (name, (_, node)) in entries {
            let value = match &node.value {
                Value::List(_) => ParamValue::ByModule(
                    node.place,
                    by_module(&name, node, Some(path), expressions)?,
                ),
                _ => ParamValue::One(Written { place: node.place, text: written(&name, node)? }),
            };
            values.insert(name, value);
        }
        Ok((Self { adapter, values }, weight))
    }
}

/// The keys below a `parameters`, each once, with what they say.
pub(super) fn entries(node: &Node) -> Read<Entries<'_>> {
    let Value::Mapping(given) = &node.value else {
        return Err(unexpected("parameters", node, "keys and their values"));
    };
    let mut entries = Entries::new();
    for (key, node) in given {
        let entry = (key, node);
        if let Some((first, _)) = entries.insert(key.text.replace('_', "-"), entry) {
            return Err(twice(key, first));
        }
    }
    Ok(entries)
}

/// A parameter's value as the command line would have it.
pub(super) fn written(name: &str, node: &Node) -> Read<String> {
    let is_word =
        PARAMS.iter().any(|param| param.name == name && matches!(param.kind, ParamKind::Word(_)));
    if is_word {
        return text(name, node);
    }
    number(name, node)?;
    text(name, node)
}
