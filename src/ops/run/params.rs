//! A recipe's method and its parameters, checked by the method's own table as the command line's are.

use std::collections::BTreeMap;

use super::adapter_params::{AdapterParams, Entries, ParamValue, Written, entries, written};
use super::fields::{Fields, Read, list, text, together, twice};
use super::inputs::Inputs;
use super::module_rules::{are_rules, by_module};
use crate::error::{ErrorKind, Place, RecipeError, RecipeProblem, near};
use crate::format::yaml::Value;
use crate::method::params::{BadParam, Given, ParamKind, SEED};
use crate::method::{Compat, Method, Param, Settings};
use crate::ops::shared::method_name::{AUTO, named};
use crate::ops::shared::param_rules::ParamRule;
use crate::ops::shared::rules::WeightRule;

/// The method and its parameters.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) method: Option<String>,
    pub(super) params: Given,
    /// Those that are not the same for all modules; what holds for all adapters first.
    pub(super) rules: Vec<ParamRule>,
}

/// Reads what the top of a recipe says of the method, with what its adapters say of it.
pub(super) fn read(
    fields: &Fields<'_>,
    compat: Option<Compat>,
    inputs: &mut Inputs,
) -> Read<Choice> {
    let asked = fields.read("method", text)?;
    let method = match fields.get("method") {
        Some(node) => find(&text("method", node)?, compat, node.place)?,
        None => find("linear", compat, Place { line: 1, column: 1 })?,
    };
    let count = inputs.adapters.len();
    let mut single: BTreeMap<String, Written> = BTreeMap::new();
    let mut below = match fields.get("parameters") {
        Some(node) => entries(node)?,
        None => Entries::new(),
    };
    if let (Some(key), Some(node)) = (fields.key("seed"), fields.get("seed"))
        && let Some((second, _)) = below.insert("seed".to_owned(), (key, node))
    {
        return Err(twice(second, key));
    }
    let mut rules = Vec::new();
    for (name, (key, node)) in below {
        let param = taken(method, &name, key.place)?;
        let listed = matches!(node.value, Value::List(_));
        // A plain list of what each adapter may have for itself is one number an adapter.
        if are_rules(node) || (listed && varies(param) && !is_each(param)) {
            let by_module = by_module(&name, node, None, &mut inputs.rules)?;
            rules.push(by_rules(method, param, None, by_module, node.place)?);
            continue;
        }
        let text = match &node.value {
            Value::List(_) => {
                let each = list(&name, node, "numbers")?.iter().map(|node| written(&name, node));
                each.collect::<Read<Vec<_>>>()?.join(",")
            }
            _ => written(&name, node)?,
        };
        let value = Written { place: node.place, text };
        check(method, &name, &value, count)?;
        single.insert(name, value);
    }
    let mut params: Given = single.into_iter().map(|(name, value)| (name, value.text)).collect();
    for adapter in std::mem::take(&mut inputs.params) {
        add_adapter(method, adapter, count, &mut params, &mut rules)?;
    }
    Ok(Choice { method: asked, params, rules })
}

/// Whether it can be another for some modules: every number that random ones do not hang on.
fn varies(param: &Param) -> bool {
    matches!(param.kind, ParamKind::Number { .. }) && param.name != SEED.name
}

fn is_each(param: &Param) -> bool {
    matches!(param.kind, ParamKind::Number { each: true, .. })
}

/// Rules of a parameter, each value of them checked.
fn by_rules(
    method: &'static Method,
    param: &'static Param,
    adapter: Option<usize>,
    rules: Vec<(Place, WeightRule)>,
    place: Place,
) -> Read<ParamRule> {
    if !varies(param) {
        let reason = format!("`{}` is one for all modules", param.name);
        return Err(together(place, reason));
    }
    for (place, rule) in &rules {
        for value in &rule.values {
            let written = Written { place: *place, text: value.to_string() };
            check(method, param.name, &written, 1)?;
        }
    }
    let rules = rules.into_iter().map(|(_, rule)| rule).collect();
    Ok(ParamRule { param: *param, adapter, rules })
}

/// Puts an adapter's own values among those of all.
fn add_adapter(
    method: &'static Method,
    adapter: AdapterParams,
    count: usize,
    params: &mut Given,
    rules: &mut Vec<ParamRule>,
) -> Read<()> {
    for (name, value) in adapter.values {
        let place = value.place();
        let param = taken(method, &name, place)?;
        if !is_each(param) {
            let reason = format!(
                "`{name}` is one for all adapters; it stands below the recipe's own `parameters`"
            );
            return Err(together(place, reason));
        }
        let value = match value {
            ParamValue::ByModule(place, by_module) => {
                rules.push(by_rules(method, param, Some(adapter.adapter), by_module, place)?);
                continue;
            }
            ParamValue::One(value) => value,
        };
        check(method, &name, &value, count)?;
        // Its own number goes before rules for all.
        if rules.iter().any(|rule| rule.param.name == name && rule.adapter.is_none()) {
            let values = vec![number_of(&value)];
            let rule = WeightRule { filter: None, values };
            rules.push(ParamRule {
                param: *param,
                adapter: Some(adapter.adapter),
                rules: vec![rule],
            });
            continue;
        }
        let all = params.get(&name).cloned().unwrap_or_else(|| param.default_text());
        let mut all: Vec<String> = match all.split(',').map(str::to_owned).collect::<Vec<_>>() {
            several if several.len() == count => several,
            single => vec![single.concat(); count],
        };
        if let Some(slot) = all.get_mut(adapter.adapter) {
            slot.clone_from(&value.text);
        }
        params.insert(name, all.join(","));
    }
    Ok(())
}

/// What was checked to be a number.
fn number_of(value: &Written) -> f64 {
    value.text.parse().unwrap_or_default()
}

fn find(asked: &str, compat: Option<Compat>, place: Place) -> Read<&'static Method> {
    // What `auto` chooses takes what the plain sum takes.
    let asked = if asked == AUTO { "linear" } else { asked };
    let plain = named(asked, None).map_err(|error| match error.kind() {
        ErrorKind::UnknownMethod { name, near, all } => {
            let (name, near, all) = (name.clone(), near.clone(), all.clone());
            RecipeError { place, problem: RecipeProblem::UnknownMethod { name, all, near } }
        }
        other => together(place, other.to_string()),
    })?;
    // That a peer has no such method is for the verb to say, which knows what it makes of it.
    Ok(named(asked, compat).unwrap_or(plain))
}

fn taken(method: &'static Method, name: &str, place: Place) -> Read<&'static Param> {
    method.takes.iter().find(|param| param.name == name).ok_or_else(|| {
        let all: Vec<_> = method.takes.iter().map(|param| param.name).collect();
        let takes = if all.is_empty() { "no parameters".to_owned() } else { all.join(", ") };
        let near = near(name, all).map(str::to_owned);
        let problem =
            RecipeProblem::NotTaken { method: method.name, name: name.to_owned(), takes, near };
        RecipeError { place, problem }
    })
}

fn check(method: &'static Method, name: &str, value: &Written, adapters: usize) -> Read<()> {
    let param = Given::from([(name.to_owned(), value.text.clone())]);
    Settings::new(method.name, method.takes, &param, adapters).map(|_| ()).map_err(|error| {
        let problem = match error {
            BadParam::Value { name, found, expected } => {
                let found = format!("`{found}`");
                RecipeProblem::Expected { key: format!("`{name}`"), expected, found }
            }
            BadParam::NotTaken { method, name, takes } => {
                RecipeProblem::NotTaken { method, name, takes, near: None }
            }
        };
        RecipeError { place: value.place, problem }
    })
}
