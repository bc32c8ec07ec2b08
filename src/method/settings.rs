//! The settings of a method: what a user gave of its parameters, read and checked, the defaults beside it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::params::{BadParam, Given, Param, ParamKind, by_name};

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Numbers(Vec<f64>),
    Word(&'static str),
}

/// The values of all parameters of a method, checked, defaults filled in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
    /// Those that a user gave.
    given: BTreeSet<&'static str>,
}

/// [`Settings`] as they are written down.
#[derive(Serialize, Deserialize)]
struct Written {
    values: BTreeMap<String, WrittenValue>,
    given: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenValue {
    Numbers(Vec<f64>),
    Word(String),
}

impl From<Settings> for Written {
    fn from(settings: Settings) -> Self {
        let value = |value| match value {
            Value::Numbers(numbers) => WrittenValue::Numbers(numbers),
            Value::Word(word) => WrittenValue::Word(word.to_owned()),
        };
        let values = settings.values.into_iter();
        Self {
            values: values.map(|(name, found)| (name.to_owned(), value(found))).collect(),
            given: settings.given.into_iter().map(str::to_owned).collect(),
        }
    }
}

impl TryFrom<Written> for Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let param = |name: &str| {
            let param = by_name(name);
            param.ok_or_else(|| format!("no method takes a parameter `{name}`"))
        };
        let value = |(name, value): (String, WrittenValue)| {
            let param = param(&name)?;
            let value = match (value, param.kind) {
                (WrittenValue::Numbers(numbers), ParamKind::Number { .. }) => {
                    Value::Numbers(numbers)
                }
                (WrittenValue::Word(word), ParamKind::Word(words)) => {
                    let found = words.iter().find(|known| **known == word);
                    Value::Word(found.ok_or_else(|| format!("--{name} is never `{word}`"))?)
                }
                _ => return Err(format!("--{name} has a value of another kind")),
            };
            Ok((param.name, value))
        };
        let given = written.given.iter().map(|name| Ok(param(name)?.name));
        Ok(Self {
            values: written.values.into_iter().map(value).collect::<Result<_, String>>()?,
            given: given.collect::<Result<_, String>>()?,
        })
    }
}

impl Settings {
    /// What a method of that name, that takes `takes`, makes of what was given for so many adapters.
    ///
    /// # Errors
    /// A parameter that the method does not take, or a value that is not one of its.
    pub fn new(
        method: &'static str,
        takes: &[Param],
        given: &Given,
        adapters: usize,
    ) -> Result<Self, BadParam> {
        if let Some(name) = given.keys().find(|name| takes.iter().all(|param| param.name != *name))
        {
            let all: Vec<_> = takes.iter().map(|param| format!("--{}", param.name)).collect();
            let takes = if all.is_empty() { "no parameters".to_owned() } else { all.join(", ") };
            return Err(BadParam::NotTaken { method, name: name.clone(), takes });
        }
        let value = |param: &Param| match given.get(param.name) {
            Some(text) => Ok((param.name, param.read(text, adapters)?)),
            None => Ok((param.name, param.default_value())),
        };
        let values = takes.iter().map(value).collect::<Result<_, _>>()?;
        let names = takes.iter().map(|param| param.name);
        Ok(Self { values, given: names.filter(|name| given.contains_key(*name)).collect() })
    }

    /// Puts another number in place, of one of so many adapters or of all.
    pub(crate) fn set(&mut self, param: &Param, adapter: Option<usize>, adapters: usize, to: f64) {
        let mut numbers: Vec<f64> = match adapter {
            Some(_) => (0..adapters).map(|at| self.number_of(param, at)).collect(),
            None => vec![to],
        };
        if let Some(number) = adapter.and_then(|adapter| numbers.get_mut(adapter)) {
            *number = to;
        }
        self.values.insert(param.name, Value::Numbers(numbers));
    }

    /// Whether it was given, and is no default.
    pub fn is_given(&self, param: &Param) -> bool {
        self.given.contains(param.name)
    }

    /// A number; the parameter's own default if the method does not take it.
    pub fn number(&self, param: &Param) -> f64 {
        self.number_of(param, 0)
    }

    /// The number for one adapter.
    pub fn number_of(&self, param: &Param, adapter: usize) -> f64 {
        let given = match self.values.get(param.name) {
            Some(Value::Numbers(all)) => all.get(adapter).or(all.first()).copied(),
            _ => None,
        };
        given.unwrap_or(match param.kind {
            ParamKind::Number { default, .. } => default,
            ParamKind::Word(_) => 0.0,
        })
    }

    /// A word; the parameter's first if the method does not take it.
    pub fn word(&self, param: &Param) -> &'static str {
        match (self.values.get(param.name), param.kind) {
            (Some(Value::Word(word)), _) => word,
            (_, ParamKind::Word(words)) => words.first().copied().unwrap_or_default(),
            _ => "",
        }
    }
}

impl Param {
    fn default_value(&self) -> Value {
        match self.kind {
            ParamKind::Number { default, .. } => Value::Numbers(vec![default]),
            ParamKind::Word(words) => Value::Word(words.first().copied().unwrap_or_default()),
        }
    }

    /// Reads what a user gave.
    fn read(&self, text: &str, adapters: usize) -> Result<Value, BadParam> {
        let wrong = |expected: String| BadParam::Value {
            name: self.name,
            found: text.to_owned(),
            expected,
        };
        match self.kind {
            ParamKind::Word(words) => {
                let word = words.iter().find(|word| **word == text);
                word.map(|word| Value::Word(word)).ok_or_else(|| wrong(words.join(" or ")))
            }
            ParamKind::Number { least, most, above, each, .. } => {
                let most_numbers = if each { adapters } else { 1 };
                let from = if above { "above" } else { "from" };
                let expected = || match most.is_finite() {
                    true => format!("a number {from} {least} to {most}"),
                    false if least.is_finite() => format!("a number {from} {least}"),
                    false => "a number".to_owned(),
                };
                let numbers = text.split(',').map(|part| part.trim().parse::<f64>());
                let numbers: Vec<f64> =
                    numbers.collect::<Result<_, _>>().map_err(|_| wrong(expected()))?;
                let fits = |number: &f64| {
                    number.is_finite()
                        && *number <= most
                        && *number >= least
                        && (!above || *number > least)
                };
                if !numbers.iter().all(fits) {
                    return Err(wrong(expected()));
                }
                if numbers.len() != 1 && numbers.len() != most_numbers {
                    let one_each =
                        format!("one number, or one for each of the {adapters} adapters");
                    return Err(wrong(if each { one_each } else { "one number".to_owned() }));
                }
                Ok(Value::Numbers(numbers))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::{DENSITY, LAMBDA, MAJORITY_SIGN};
    use super::*;

    fn settings(takes: &[Param], given: &[(&str, &str)]) -> Result<Settings, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let given = given.iter().map(owned).collect();
        Settings::new("ties", takes, &given, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn values_and_defaults() {
        let takes = [DENSITY.or(0.2), MAJORITY_SIGN];
        let plain = settings(&takes, &[]).unwrap_or_default();
        assert_eq!((plain.number(&DENSITY), plain.word(&MAJORITY_SIGN)), (0.2, "total"));
        let given = [("density", "0.5, 0.4"), ("majority-sign", "frequency")];
        let given = settings(&takes, &given).unwrap_or_default();
        assert_eq!((given.number_of(&DENSITY, 1), given.word(&MAJORITY_SIGN)), (0.4, "frequency"));
        assert_eq!(given.number(&LAMBDA), 1.0);
    }

    #[test]
    fn what_cannot_be() {
        let wrong = |given: &[(&str, &str)]| settings(&[DENSITY, LAMBDA], given).err();
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(
            wrong(&[("gamma", "1")]),
            is("`ties` does not take --gamma; it takes --density, --lambda")
        );
        assert_eq!(wrong(&[("density", "0")]), is("--density 0: expected a number above 0 to 1"));
        assert_eq!(
            wrong(&[("density", "1,1,1")]),
            is("--density 1,1,1: expected one number, or one for each of the 2 adapters")
        );
        assert_eq!(wrong(&[("lambda", "1,1")]), is("--lambda 1,1: expected one number"));
        assert_eq!(wrong(&[("lambda", "NaN")]), is("--lambda NaN: expected a number"));
    }
}
