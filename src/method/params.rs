//! Parameters of methods: what there is, what a method takes, and what a user gave.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One parameter, as a method takes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    /// Its name, `--name` on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it can be.
    pub kind: ParamKind,
}

/// What a parameter can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// A number within limits, the lower one excluded if `above` is set.
    Number {
        /// Without one given.
        default: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// Whether the least itself is too little.
        above: bool,
        /// Whether there may be one for each adapter, in order.
        each: bool,
    },
    /// One of several words, the first if none is given.
    Word(&'static [&'static str]),
}

impl Param {
    const fn number(
        name: &'static str,
        about: &'static str,
        default: f64,
        limits: (f64, f64),
    ) -> Self {
        let kind = ParamKind::Number {
            default,
            least: limits.0,
            most: limits.1,
            above: false,
            each: false,
        };
        Self { name, about, kind }
    }

    /// The same parameter with a method's own default.
    #[must_use]
    pub(super) const fn or(mut self, value: f64) -> Self {
        if let ParamKind::Number { default, .. } = &mut self.kind {
            *default = value;
        }
        self
    }

    /// The default as text.
    pub fn default_text(&self) -> String {
        match self.kind {
            ParamKind::Number { default, .. } => default.to_string(),
            ParamKind::Word(words) => words.first().copied().unwrap_or_default().to_owned(),
        }
    }

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

/// Share of each delta's elements that is kept.
pub const DENSITY: Param = Param {
    name: "density",
    about: "share of each delta's elements that is kept; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.5, least: 0.0, most: 1.0, above: true, each: true },
};

/// Multiplies the combined delta.
pub const LAMBDA: Param = Param::number(
    "lambda",
    "multiplies the combined delta",
    1.0,
    (f64::NEG_INFINITY, f64::INFINITY),
);

/// Whose sign wins where deltas disagree.
pub const MAJORITY_SIGN: Param = Param {
    name: "majority-sign",
    about: "whose sign wins where deltas disagree: that of their sum, or the more frequent",
    kind: ParamKind::Word(&["total", "frequency"]),
};

/// What becomes of the elements that agree.
pub const REDUCE: Param = Param {
    name: "reduce",
    about: "what becomes of the elements that agree: their weighted mean, or their sum",
    kind: ParamKind::Word(&["mean", "sum"]),
};

/// Share of the largest elements that is dropped.
pub const GAMMA: Param = Param {
    name: "gamma",
    about: "share of each delta's largest elements that is dropped; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.01, least: 0.0, most: 1.0, above: false, each: true },
};

/// How far the chance of being kept varies around the density.
pub const EPSILON: Param = Param {
    name: "epsilon",
    about: "della: how far the chance to be kept varies with the magnitude, to either side of the density; ram: up to \
            what size an element counts as 0; one number, or one per adapter: 0.5,0.3",
    kind: ParamKind::Number { default: 0.1, least: 0.0, most: 0.5, above: false, each: true },
};

/// How much elements that one adapter alone changes are raised.
pub const OVERLAP_GAIN: Param = Param::number(
    "overlap-gain",
    "how much the elements that an adapter alone changes are raised, relative to its overlap with others; mergekit's r",
    0.1,
    (0.0, f64::INFINITY),
);

/// The most overlap that counts for that.
pub const OVERLAP_CAP: Param = Param::number(
    "overlap-cap",
    "the most overlap that counts for that; mergekit's alpha",
    0.2,
    (0.0, f64::INFINITY),
);

/// Where between two adapters.
pub const T: Param =
    Param::number("t", "where between the first adapter (0) and the second (1)", 0.5, (0.0, 1.0));

/// What an average over checkpoints keeps of the past.
pub const BETA: Param = Param::number(
    "beta",
    "share of the average so far that the next checkpoint leaves",
    0.95,
    (0.0, 1.0),
);

/// Share of the nuclear norm that truncation keeps.
pub const ETA: Param = Param {
    name: "eta",
    about: "share of each delta's nuclear norm that its truncation keeps",
    kind: ParamKind::Number { default: 0.4, least: 0.0, most: 1.0, above: true, each: false },
};

/// Share of the directions that are the sum's.
pub const COMMON: Param = Param::number(
    "common",
    "share of the directions that are the sum's; the others are the deltas' own",
    0.8,
    (0.0, 1.0),
);

/// Which side of the deltas counts.
pub const SIDE: Param = Param {
    name: "side",
    about: "what deltas share: the outputs that they write to, or the inputs that they read",
    kind: ParamKind::Word(&["out", "in"]),
};

/// How much the plain sum counts.
pub const RIDGE: Param = Param {
    name: "ridge",
    about: "pull towards the plain sum, as a share of the deltas' own",
    kind: ParamKind::Number {
        default: 0.01,
        least: 1e-9,
        most: f64::INFINITY,
        above: false,
        each: false,
    },
};

/// Chooses the random numbers.
pub const SEED: Param =
    Param::number("seed", "chooses the random numbers", 0.0, (0.0, 9_007_199_254_740_992.0));

/// Every parameter that some method takes.
pub const PARAMS: &[Param] = &[
    DENSITY,
    LAMBDA,
    MAJORITY_SIGN,
    REDUCE,
    GAMMA,
    EPSILON,
    OVERLAP_GAIN,
    OVERLAP_CAP,
    T,
    BETA,
    ETA,
    COMMON,
    SIDE,
    RIDGE,
    SEED,
];

/// What a user gave, by parameter, as text.
pub type Given = BTreeMap<String, String>;

/// A parameter that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadParam {
    /// The method has no use for it.
    #[error("`{method}` does not take --{name}; it takes {takes}")]
    NotTaken {
        /// The method.
        method: &'static str,
        /// The parameter.
        name: String,
        /// What it takes instead.
        takes: String,
    },
    /// Its value is not one.
    #[error("--{name} {found}: expected {expected}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        found: String,
        /// What it can be.
        expected: String,
    },
}

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

/// The parameter of a name, with its general default.
pub(crate) fn by_name(name: &str) -> Option<&'static Param> {
    PARAMS.iter().find(|param| param.name == name)
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
        if let Some(own) = adapter.and_then(|adapter| numbers.get_mut(adapter)) {
            *own = to;
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
        let own = match self.values.get(param.name) {
            Some(Value::Numbers(all)) => all.get(adapter).or(all.first()).copied(),
            _ => None,
        };
        own.unwrap_or(match param.kind {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(takes: &[Param], given: &[(&str, &str)]) -> Result<Settings, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let given = given.iter().map(own).collect();
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
