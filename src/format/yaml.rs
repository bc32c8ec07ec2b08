//! YAML as a tree whose every part knows its place. Scalars stay text: what a number is, is for those to
//! say who expect one.
//!
//! What a hostile text could cost is bounded: its length, its depth, and what its aliases unfold to.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde::{Deserialize, Serialize};

use crate::error::{Place, RecipeError, RecipeProblem};

/// Bytes that a text may have.
const LONGEST: usize = 1 << 20;
/// Mappings and lists inside one another.
const DEEPEST: usize = 16;
/// What all nodes may cost, copies made by aliases included; see [`cost`].
const DEAREST: usize = 4 << 20;

/// A part of a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A text, and whether it stands without quotes.
    Scalar(String, bool),
    /// Nodes in order.
    List(Vec<Node>),
    /// Nodes by key, in order; keys may repeat.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// Where it is.
    pub place: Place,
    /// The key.
    pub text: String,
}

/// Reads one document.
///
/// # Errors
/// Bytes that are no YAML, and YAML beyond plain values, lists, mappings and aliases, or too much of it.
pub fn parse(bytes: &[u8]) -> Result<Node, RecipeError> {
    let start = Place { line: 1, column: 1 };
    if bytes.len() > LONGEST {
        return Err(beyond(start, "it is longer than 1 MiB, which no recipe is"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| problem(start, RecipeProblem::Syntax("it is not UTF-8".to_owned())))?;
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let reason = error.kind().to_string();
            problem(place(error.marker()), RecipeProblem::Syntax(reason))
        })?;
        builder.take(event, &span)?;
    }
    builder.root.ok_or_else(|| beyond(start, "it is empty"))
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

fn problem(place: Place, problem: RecipeProblem) -> RecipeError {
    RecipeError { place, problem }
}

fn beyond(place: Place, what: &'static str) -> RecipeError {
    problem(place, RecipeProblem::Beyond(what))
}

/// A list or mapping that has not ended yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, in a mapping.
    key: Option<Key>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    documents: usize,
    cost: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), RecipeError> {
        let place = place(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(beyond(place, "a recipe is one document, and here begins another"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.is_some(), place)?;
                let plain = style == ScalarStyle::Plain;
                let node = Node { place, value: Value::Scalar(text.into_owned(), plain) };
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), place)?;
                self.begin(Node { place, value: Value::List(Vec::new()) }, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.is_some(), place)?;
                self.begin(Node { place, value: Value::Mapping(Vec::new()) }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.put(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(beyond(place, "an alias cannot stand inside what it is for"));
                };
                let copy = Node { place, ..node.clone() };
                self.put(copy, 0)
            }
            _ => Ok(()),
        }
    }

    fn check_tag(&self, tagged: bool, place: Place) -> Result<(), RecipeError> {
        if tagged {
            return Err(beyond(place, "tags (`!…`) mean nothing in a recipe"));
        }
        Ok(())
    }

    fn begin(&mut self, node: Node, anchor: usize) -> Result<(), RecipeError> {
        if self.open.len() == DEEPEST {
            return Err(beyond(node.place, "it is nested deeper than any recipe is"));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a whole node where it belongs: into what is open, or as the document itself.
    fn put(&mut self, node: Node, anchor: usize) -> Result<(), RecipeError> {
        // Counted again when the list around it is whole, at most once a level.
        self.cost = self.cost.saturating_add(cost(&node));
        if self.cost > DEAREST {
            return Err(beyond(node.place, "its aliases unfold to more than any recipe says"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(Open { node: around, key, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut around.value, key.take()) {
            (Value::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Value::Mapping(_), None) => match node.value {
                Value::Scalar(text, _) => *key = Some(Key { place: node.place, text }),
                _ => return Err(beyond(node.place, "a key is a word")),
            },
            (Value::List(nodes), _) => nodes.push(node),
            (Value::Scalar(..), _) => {}
        }
        Ok(())
    }
}

/// The bytes of all texts of a node, and some for each.
fn cost(node: &Node) -> usize {
    const EACH: usize = 16;
    let inside = match &node.value {
        Value::Scalar(text, _) => text.len(),
        Value::List(nodes) => nodes.iter().map(cost).sum(),
        Value::Mapping(entries) => {
            entries.iter().map(|(key, node)| EACH + key.text.len() + cost(node)).sum()
        }
    };
    EACH + inside
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn says(text: &str) -> String {
        let error = parse(text.as_bytes()).expect_err(text);
        format!("{}: {error}", error.place)
    }

    #[test]
    fn places_are_those_of_the_text() {
        let node = parse(b"a: 1\nbc:\n  - x\n  - {d: \"y\"}\n").unwrap();
        let Value::Mapping(entries) = &node.value else { panic!("{node:?}") };
        let (key, list) = &entries[1];
        assert_eq!((key.text.as_str(), key.place), ("bc", Place { line: 2, column: 1 }));
        let Value::List(nodes) = &list.value else { panic!("{list:?}") };
        assert_eq!(nodes[0].place, Place { line: 3, column: 5 });
        let Value::Mapping(inner) = &nodes[1].value else { panic!("{nodes:?}") };
        assert_eq!(inner[0].1.place, Place { line: 4, column: 9 });
        assert!(matches!(&inner[0].1.value, Value::Scalar(text, false) if text == "y"));
    }

    #[test]
    fn aliases_are_what_they_stand_for() {
        let node = parse(b"a: &x [1, 2]\nb: *x\n").unwrap();
        let Value::Mapping(entries) = &node.value else { panic!("{node:?}") };
        assert!(matches!(&entries[1].1.value, Value::List(nodes) if nodes.len() == 2));
        assert_eq!(entries[1].1.place, Place { line: 2, column: 4 });
    }

    #[test]
    fn what_no_recipe_needs_is_refused() {
        assert_eq!(says(""), "1:1: it is empty");
        assert!(says("a: [1").contains("not YAML"));
        assert!(says("a: 1\n---\nb: 2\n").starts_with("2:1: a recipe is one document"));
        assert!(says("a: !!python/name:os.system x").contains("tags"));
        assert!(says("a: &x [*x]").contains("inside what it is for"));
        assert!(says("? [a]\n: b\n").contains("a key is a word"));
        assert!(says(&format!("{}{}", "[".repeat(40), "]".repeat(40))).contains("deeper"));
        assert!(says(&"- ".repeat(100_000)).contains("deeper"));
        assert!(says(&" ".repeat((1 << 20) + 1)).contains("longer"));
        assert!(parse(b"a: \xff").unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(bomb, "a{level}: &a{level} [{below}]").expect("a String takes it");
        }
        assert!(says(&bomb).contains("unfold"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1000));
        assert!(says(&long).contains("unfold"));
    }
}
