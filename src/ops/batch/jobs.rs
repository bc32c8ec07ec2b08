//! The file of a batch as its items: defaults added, patterns matched, `{name}` put in.

use std::collections::BTreeSet;
use std::path::Path;

use super::item::Item;
use super::verbs::{BatchVerb, by_name, unknown_default};
use crate::error::RecipeError;
use crate::format::glob::{is_pattern, matches};
use crate::format::yaml::{self, Key, Node, Value};
use crate::ops::run::fields::{Fields, Read, list, text, together, unexpected};

/// What stands for an item's input in its other values.
const NAME: &str = "{name}";
/// Endings of files that a pattern takes for adapters or checkpoints, whatever else lies beside them.
const WEIGHTS: [&str; 2] = ["safetensors", "gguf"];

/// A mapping's entries, keys with underscores.
type Entries = Vec<(Key, Node)>;

/// What people may look for under another name.
fn instead(key: &str) -> Option<&'static str> {
    match key {
        "jobs" | "steps" | "tasks" | "adapters" | "units" => {
            Some("what is done stands below `items`, a list")
        }
        "default" | "common" | "options" => Some("keys of all items stand below `defaults`"),
        _ => None,
    }
}

/// Reads the items of a batch; their paths are relative to `folder`.
///
/// # Errors
/// The first thing that is wrong with it, with its place.
pub(super) fn read(bytes: &[u8], folder: &Path) -> Result<Vec<Item>, RecipeError> {
    let root = yaml::parse(bytes)?;
    let fields = Fields::new(&root, "a batch", &["defaults", "items"], instead)?;
    let defaults = match fields.get("defaults") {
        Some(node) => entries("defaults", node)?,
        None => Entries::new(),
    };
    let (mut items, mut used) = (Vec::new(), BTreeSet::from(["verb".to_owned()]));
    for node in list("items", fields.need("items")?, "items")? {
        items.extend(expanded(node, &defaults, folder, &mut used)?);
    }
    match defaults.iter().find(|(key, _)| !used.contains(&key.text)) {
        Some((key, _)) => Err(unknown_default(key)),
        None => Ok(items),
    }
}

fn entries(owner: &str, node: &Node) -> Read<Entries> {
    let Value::Mapping(given) = &node.value else {
        return Err(unexpected(owner, node, "keys and their values"));
    };
    let with_underscores = |(key, node): &(Key, Node)| {
        let key = Key { text: key.text.replace('-', "_"), place: key.place };
        (key, node.clone())
    };
    Ok(given.iter().map(with_underscores).collect())
}

fn find<'a>(entries: &'a Entries, key: &str) -> Option<&'a Node> {
    entries.iter().find(|(found, _)| found.text == key).map(|(_, node)| node)
}

/// One item of the file: as many as its input has matches.
fn expanded(
    node: &Node,
    defaults: &Entries,
    folder: &Path,
    used: &mut BTreeSet<String>,
) -> Read<Vec<Item>> {
    let mut own = entries("an item", node)?;
    let verb = find(&own, "verb").or_else(|| find(defaults, "verb"));
    let Some(verb) = verb else {
        return Err(together(node.place, "an item needs `verb`, or `defaults` has it".to_owned()));
    };
    let verb = by_name(&text("verb", verb)?, verb.place)?;
    let mut keys = (verb.keys)();
    let others: Vec<_> =
        [verb.each, "verb"].into_iter().filter(|key| !keys.contains(key)).collect();
    keys.extend(others);
    // Says what is unknown or twice.
    Fields::new(node, "an item", &keys, |_| None)?;
    own.retain(|(key, _)| key.text != "verb");
    for (key, value) in defaults.iter().filter(|(key, _)| keys.contains(&key.text.as_str())) {
        let other = verb.beside.iter().find(|(beside, _)| *beside == key.text);
        if other.is_some_and(|(_, other)| find(&own, other).or(find(defaults, other)).is_none()) {
            continue;
        }
        used.insert(key.text.clone());
        if key.text != "verb" && find(&own, &key.text).is_none() {
            own.push((key.clone(), value.clone()));
        }
    }
    let place = node.place;
    let Some(each) = own.iter().position(|(key, _)| key.text == verb.each) else {
        let input = find(&own, "adapters").map(shown).unwrap_or_default();
        check_names(&own)?;
        let keys = Node { place, value: Value::Mapping(own) };
        return Ok(vec![Item { verb: verb.name.to_owned(), input, keys }]);
    };
    let (key, inputs) = own.remove(each);
    let mut items = Vec::new();
    for found in inputs_of(&inputs, verb, folder)? {
        let mut keys: Entries =
            own.iter().map(|(key, node)| (key.clone(), named(node, &found.name))).collect();
        match verb.joins {
            true => join(&mut keys, &key, found.node)?,
            false => keys.push((key.clone(), found.node)),
        }
        check_names(&keys)?;
        let keys = Node { place, value: Value::Mapping(keys) };
        items.push(Item { verb: verb.name.to_owned(), input: found.text, keys });
    }
    Ok(items)
}

/// Fails if an output has something in braces that stands for nothing.
fn check_names(keys: &Entries) -> Read<()> {
    let Some(node) = find(keys, "output") else { return Ok(()) };
    let text = text("output", node)?;
    let inside = text.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let Some((word, _)) = inside else { return Ok(()) };
    let reason = match word {
        "name" => "`{name}` is the name of the item's `adapter` (or `tuned`), and it has none",
        _ => "what stands in braces is no name here: `{name}` is the input's",
    };
    Err(together(node.place, format!("`output`: {reason}")))
}

/// Puts an item's own adapter before those that go with each.
fn join(keys: &mut Entries, key: &Key, adapter: Node) -> Read<()> {
    let place = adapter.place;
    let mut all = vec![adapter];
    if let Some(at) = keys.iter().position(|(key, _)| key.text == "adapters") {
        let (_, node) = keys.remove(at);
        all.extend(list("adapters", &node, "adapters")?.iter().cloned());
    }
    let key = Key { text: "adapters".to_owned(), place: key.place };
    keys.push((key, Node { place, value: Value::List(all) }));
    Ok(())
}

/// An input that an item is for.
struct Input {
    /// As the file has it, patterns matched.
    text: String,
    /// Its last word without its ending.
    name: String,
    /// What stands for it in the item.
    node: Node,
}

/// The inputs that a value means: a path or a pattern, or a list of them; of verbs that weigh adapters, with what else
/// is said of each.
fn inputs_of(node: &Node, verb: &BatchVerb, folder: &Path) -> Read<Vec<Input>> {
    let put =
        |value: &str| Node { place: node.place, value: Value::Scalar(value.to_owned(), false) };
    match &node.value {
        Value::List(nodes) if !nodes.is_empty() => {
            let all = nodes.iter().map(|node| inputs_of(node, verb, folder));
            Ok(all.collect::<Read<Vec<_>>>()?.into_iter().flatten().collect())
        }
        Value::Mapping(keys) if verb.joins => {
            let Some(path) = find(keys, "path") else {
                return Err(together(node.place, "an adapter needs `path`".to_owned()));
            };
            let with = |input: &Input| {
                let keys = keys.iter().map(|(key, node)| match key.text.as_str() {
                    "path" => (key.clone(), put(&input.text)),
                    _ => (key.clone(), node.clone()),
                });
                Node { place: node.place, value: Value::Mapping(keys.collect()) }
            };
            let found = inputs_of(path, verb, folder)?;
            Ok(found.into_iter().map(|input| Input { node: with(&input), ..input }).collect())
        }
        _ => {
            let texts = matched(&text(verb.each, node)?, node, folder)?;
            let input = |text: String| Input { name: name_of(&text), node: put(&text), text };
            Ok(texts.into_iter().map(input).collect())
        }
    }
}

/// The paths that a text means.
fn matched(text: &str, node: &Node, folder: &Path) -> Read<Vec<String>> {
    if !is_pattern(text) || folder.join(text).exists() {
        return Ok(vec![text.to_owned()]);
    }
    if text.contains("://") {
        let reason = format!("`{text}`: patterns are for paths; list the places in a store");
        return Err(together(node.place, reason));
    }
    let mut found =
        matches(folder, text).map_err(|error| together(node.place, error.to_string()))?;
    if text.ends_with('*') {
        found.retain(|path| {
            let path = folder.join(path);
            let ends = |ending: &&str| path.extension().is_some_and(|end| end == *ending);
            path.is_dir() || WEIGHTS.iter().any(|ending| ends(&ending))
        });
    }
    match found.is_empty() {
        true => Err(together(node.place, format!("nothing matches `{text}`"))),
        false => Ok(found),
    }
}

/// What `{name}` stands for: the last word of a path or a repository, without an ending of weights or a revision.
fn name_of(text: &str) -> String {
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = WEIGHTS.iter().find_map(|ending| last.strip_suffix(ending)?.strip_suffix('.'));
    let name = name.unwrap_or(last);
    name.split_once('@').map_or(name, |(name, _)| name).to_owned()
}

/// A value with the input's name put in.
fn named(node: &Node, name: &str) -> Node {
    let value = match &node.value {
        Value::Scalar(text, plain) => Value::Scalar(text.replace(NAME, name), *plain),
        Value::List(nodes) => Value::List(nodes.iter().map(|node| named(node, name)).collect()),
        Value::Mapping(keys) => Value::Mapping(
            keys.iter().map(|(key, node)| (key.clone(), named(node, name))).collect(),
        ),
    };
    Node { place: node.place, value }
}

/// Adapters that are given together, as one text.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Scalar(text, _) => text.clone(),
        Value::List(nodes) => nodes.iter().map(shown).collect::<Vec<_>>().join(" + "),
        Value::Mapping(keys) => find(keys, "path").map(shown).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn names_are_last_words() {
        let cases = [
            ("loras/a.b.safetensors", "a.b"),
            ("style", "style"),
            ("org/style@v1", "style"),
            ("s3://bucket/loras/style/", "style"),
            ("x.gguf", "x"),
        ];
        for (text, name) in cases {
            assert_eq!(name_of(text), name, "{text}");
        }
    }
}
