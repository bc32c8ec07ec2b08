//! A mapping's entries by key, and values of the kind that is expected of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use regex::Regex;

use crate::adapter::orientation::OrientationRule;
use crate::error::{Place, RecipeError, RecipeProblem, near};
use crate::format::location::{self, locate};
use crate::format::yaml::{Key, Node, Value};

/// What reading a recipe's text comes to.
pub(in crate::ops) type Read<T> = Result<T, RecipeError>;

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

/// What could be meant by a key that is none.
pub(in crate::ops) type Instead = fn(&str) -> Option<&'static str>;

/// A mapping whose keys are all known, each given once.
pub(in crate::ops) struct Fields<'a> {
    owner: &'static str,
    place: Place,
    entries: BTreeMap<String, (&'a Key, &'a Node)>,
}

impl<'a> Fields<'a> {
    /// Takes a mapping of `owner`, which has these keys; dashes and underscores are alike.
    pub(in crate::ops) fn new(
        node: &'a Node,
        owner: &'static str,
        keys: &[&'static str],
        instead: Instead,
    ) -> Read<Self> {
        let Value::Mapping(given) = &node.value else {
            return Err(unexpected(owner, node, "keys and their values"));
        };
        let mut entries: BTreeMap<String, (&Key, &Node)> = BTreeMap::new();
        for (key, value) in given {
            let name = key.text.replace('-', "_");
            if !keys.contains(&name.as_str()) {
                let near = || near(&name, keys.iter().copied());
                let near = || near().map(|near| format!("did you mean `{near}`?"));
                let problem = RecipeProblem::UnknownKey {
                    key: shorten(&key.text),
                    owner,
                    all: keys.join(", "),
                    instead: instead(&name).map(str::to_owned).or_else(near),
                };
                return Err(RecipeError { place: key.place, problem });
            }
            if let Some((first, _)) = entries.insert(name, (key, value)) {
                return Err(twice(key, first));
            }
        }
        Ok(Self { owner, place: node.place, entries })
    }

    /// A key's value, if it is there.
    pub(in crate::ops) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.get(key).map(|(_, node)| *node)
    }

    /// A key itself, if it is there.
    pub(in crate::ops) fn key(&self, key: &str) -> Option<&'a Key> {
        self.entries.get(key).map(|(key, _)| *key)
    }

    /// The value of a key that must be there.
    pub(in crate::ops) fn need(&self, key: &'static str) -> Read<&'a Node> {
        self.get(key).ok_or(RecipeError {
            place: self.place,
            problem: RecipeProblem::MissingKey { owner: self.owner, key },
        })
    }

    /// A key's value as `read` takes it, if it is there.
    pub(in crate::ops) fn read<T>(
        &self,
        key: &str,
        read: fn(&str, &Node) -> Read<T>,
    ) -> Read<Option<T>> {
        self.get(key).map(|node| read(key, node)).transpose()
    }

    /// As [`Fields::read`], of what else is written as a text.
    pub(in crate::ops) fn parse<T: FromStr<Err: ToString>>(&self, key: &str) -> Read<Option<T>> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let parsed = text(key, node)?.parse();
        parsed.map(Some).map_err(|error: T::Err| {
            together(node.place, format!("`{key}`: {}", error.to_string()))
        })
    }
}

/// A key that stands there a second time.
pub(in crate::ops) fn twice(key: &Key, first: &Key) -> RecipeError {
    let problem = RecipeProblem::DuplicateKey { key: shorten(&key.text), first: first.place.line };
    RecipeError { place: key.place, problem }
}

/// A value that cannot stand where it does.
pub(in crate::ops) fn unexpected(
    key: &str,
    node: &Node,
    expected: impl Into<String>,
) -> RecipeError {
    let found = match &node.value {
        Value::Scalar(text, true) if is_null(text) => "nothing".to_owned(),
        Value::Scalar(text, true) => format!("`{}`", shorten(text)),
        Value::Scalar(text, false) => format!("`{}` in quotes", shorten(text)),
        Value::List(nodes) if nodes.is_empty() => "an empty list".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Mapping(_) => "keys and their values".to_owned(),
    };
    // What has no key is named in words.
    let key = if key.contains(' ') { key.to_owned() } else { format!("`{key}`") };
    let problem = RecipeProblem::Expected { key, expected: expected.into(), found };
    RecipeError { place: node.place, problem }
}

/// What is wrong for a reason of its own.
pub(in crate::ops) fn together(place: Place, reason: String) -> RecipeError {
    RecipeError { place, problem: RecipeProblem::Together(reason) }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A text, in quotes or not.
pub(in crate::ops) fn text(key: &str, node: &Node) -> Read<String> {
    match &node.value {
        Value::Scalar(text, plain) if text.is_empty() || (*plain && is_null(text)) => {
            Err(unexpected(key, node, "a text"))
        }
        Value::Scalar(text, _) => Ok(text.clone()),
        _ => Err(unexpected(key, node, "a text")),
    }
}

/// An input: a path relative to the recipe's folder, or a repository that the local Hub cache holds.
pub(in crate::ops) fn input(key: &str, node: &Node, folder: &Path) -> Read<PathBuf> {
    let text = text(key, node)?;
    let path = folder.join(&text);
    if path.exists() {
        return Ok(path);
    }
    let found =
        locate(Path::new(&text)).map_err(|error| together(node.place, error.to_string()))?;
    Ok(if found == Path::new(&text) { path } else { found })
}

/// An output: a path relative to the recipe's folder, or a place in a store.
pub(in crate::ops) fn output(key: &str, node: &Node, folder: &Path) -> Read<PathBuf> {
    let text = text(key, node)?;
    if !text.contains("://") {
        return Ok(folder.join(text));
    }
    location::output(Path::new(&text)).map_err(|error| together(node.place, error.to_string()))
}

/// A finite number in decimal, without quotes.
pub(in crate::ops) fn number(key: &str, node: &Node) -> Read<f64> {
    let read = match &node.value {
        Value::Scalar(text, true) => decimal(text),
        _ => None,
    };
    read.ok_or_else(|| unexpected(key, node, "a number"))
}

/// YAML's own words for infinity and not-a-number are none of these.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse().ok().filter(|number: &f64| digits && number.is_finite())
}

/// A whole number, 0 or above.
pub(in crate::ops) fn count(key: &str, node: &Node) -> Read<usize> {
    match &node.value {
        Value::Scalar(text, true) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| unexpected(key, node, "a whole number"))
}

/// `true` or `false`.
pub(in crate::ops) fn flag(key: &str, node: &Node) -> Read<bool> {
    match &node.value {
        Value::Scalar(text, true) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| unexpected(key, node, "true or false"))
}

/// A list.
pub(in crate::ops) fn list<'a>(key: &str, node: &'a Node, of: &str) -> Read<&'a [Node]> {
    match &node.value {
        Value::List(nodes) if !nodes.is_empty() => Ok(nodes),
        _ => Err(unexpected(key, node, format!("a list of {of}"))),
    }
}

/// A list of numbers.
pub(in crate::ops) fn numbers(key: &str, node: &Node) -> Read<Vec<f64>> {
    list(key, node, "numbers")?.iter().map(|node| number(key, node)).collect()
}

/// A list of texts, or one.
pub(in crate::ops) fn texts(key: &str, node: &Node) -> Read<Vec<String>> {
    match &node.value {
        Value::List(nodes) => nodes.iter().map(|node| text(key, node)).collect(),
        _ => Ok(vec![text(key, node)?]),
    }
}

/// One rule of how weights lie in the base, or a list of them.
pub(in crate::ops) fn orientations(key: &str, node: &Node) -> Read<Vec<OrientationRule>> {
    let rule = |text: String| {
        let wrong = |reason| together(node.place, format!("`{key}`: {reason}"));
        text.parse().map_err(wrong)
    };
    texts(key, node)?.into_iter().map(rule).collect()
}

/// A regular expression.
pub(in crate::ops) fn regex(key: &str, node: &Node) -> Read<Regex> {
    let text = text(key, node)?;
    Regex::new(&text).map_err(|error| {
        // The first line repeats the expression, the last one says what is wrong with it.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        together(
            node.place,
            format!("`{key}`: `{}` is no regular expression: {reason}", shorten(&text)),
        )
    })
}

/// One of some words.
pub(in crate::ops) fn word<T: Copy>(key: &str, node: &Node, words: &[(&str, T)]) -> Read<T> {
    let text = text(key, node)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let plain = Node { place: node.place, value: Value::Scalar(text.clone(), true) };
        unexpected(key, &plain, all.join(", "))
    })
}
