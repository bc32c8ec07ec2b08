//! Parameters of a method that are not the same for all modules: what a recipe's rules and gradients say
//! of them, settled while a verb plans.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::inputs::AdapterInput;
use super::rules::{Layers, WeightRule, matches};
use crate::error::{Locate, Result, RuleError};
use crate::method::{self, Param, Settings};

/// One parameter by module.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamRule {
    /// The parameter.
    #[serde(serialize_with = "by_name", deserialize_with = "of_name")]
    pub param: Param,
    /// For which adapter; for all if `None`.
    pub adapter: Option<usize>,
    /// The first that matches decides. Where none does, what holds for all modules holds, as in mergekit
    /// (`evaluate_setting` in its `config.py`).
    pub rules: Vec<WeightRule>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn by_name<S: Serializer>(param: &Param, to: S) -> std::result::Result<S::Ok, S::Error> {
    param.name.serialize(to)
}

fn of_name<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Param, D::Error> {
    let name = String::deserialize(from)?;
    let unknown = || serde::de::Error::custom(format!("no method takes a parameter `{name}`"));
    method::params::by_name(&name).copied().ok_or_else(unknown)
}

/// One matrix that the method makes: by what names rules may call it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Its own name.
    pub(crate) name: String,
    /// Each adapter's modules in it.
    pub(crate) modules: Vec<(usize, String)>,
}

impl Site {
    /// The names that it has for a rule about an adapter, or about all; none if the adapter has no part.
    fn names(&self, adapter: Option<usize>) -> Vec<&str> {
        let asked = |(at, _): &&(usize, String)| adapter.is_none_or(|adapter| *at == adapter);
        let names: Vec<&str> = self.modules.iter().filter(asked).map(|(_, name)| &**name).collect();
        if names.is_empty() {
            return names;
        }
        [self.name.as_str()].into_iter().chain(names).collect()
    }
}

/// The settings of each site where rules make them others than `general`, for these inputs.
///
/// # Errors
/// [`RuleError`]: a rule that decides nothing, a gradient for what is in no layer.
pub(crate) fn settle(
    all: &[ParamRule],
    layers: &Layers,
    general: &Settings,
    inputs: &[AdapterInput],
    sites: &[Site],
) -> Result<Vec<Option<Settings>>> {
    let mut used = BTreeSet::new();
    let mut settled = Vec::with_capacity(sites.len());
    for site in sites {
        let mut settings = None;
        for (number, own) in all.iter().enumerate() {
            let names = site.names(own.adapter);
            let fits = |rule: &&WeightRule| {
                let filter = rule.filter.as_ref();
                filter.is_none_or(|filter| matches(filter, names.iter().copied()))
            };
            let found = own.rules.iter().position(|rule| !names.is_empty() && fits(&rule));
            let Some((at, rule)) = found.and_then(|at| Some((at, own.rules.get(at)?))) else {
                continue;
            };
            let value = names.iter().find_map(|name| layers.value(&rule.values, name));
            let value = value.ok_or(RuleError::NoLayer { of: own.param.name });
            let value = value.in_tensor(&site.name)?;
            let settings = settings.get_or_insert_with(|| general.clone());
            settings.set(&own.param, own.adapter, inputs.len(), value);
            used.insert((number, at));
        }
        settled.push(settings);
    }
    for (number, own) in all.iter().enumerate() {
        for (at, rule) in own.rules.iter().enumerate() {
            let Some(filter) = rule.filter.as_ref().filter(|_| !used.contains(&(number, at)))
            else {
                continue;
            };
            let unused = RuleError::Unused { rule: filter.to_string(), of: own.param.name };
            let path = own.adapter.and_then(|adapter| inputs.get(adapter)).map(|input| &input.path);
            return match path {
                Some(path) => Err(unused).in_file(path),
                None => Err(unused.into()),
            };
        }
    }
    Ok(settled)
}
