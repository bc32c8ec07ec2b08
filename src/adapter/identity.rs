//! What a file that was made of several adapters says that it is: not what any one of them said.
//!
//! Entries are those of kohya's scripts (`ss_*`) and of Stability's specification (`modelspec.*`), as
//! `library/sai_model_spec.py` of kohya's scripts writes them.

use serde_json::{Map, Value};

use super::training::{TAGS, is_of_base, is_training};
use crate::format::Metadata;

/// The entry with a file's title.
pub(crate) const TITLE: &str = "modelspec.title";
/// The entry with the words that call up what was trained.
pub(crate) const TRIGGER: &str = "modelspec.trigger_phrase";
/// The entry with the titles of what a file was merged from.
pub(crate) const MERGED_FROM: &str = "modelspec.merged_from";
/// The name that kohya's script gave the file; interfaces show it.
const OUTPUT_NAME: &str = "ss_output_name";

/// Entries that hold of a combination as all inputs have them, one after another.
const JOINED: [&str; 4] = [TRIGGER, "modelspec.author", "modelspec.license", "modelspec.tags"];

/// Entries that tell of one input as a whole.
const SINGLE: [&str; 6] = [
    "modelspec.description",
    "modelspec.usage_hint",
    "modelspec.thumbnail",
    "modelspec.date",
    "modelspec.hash_sha256",
    "modelspec.is_negative_embedding",
];

/// What the user calls the result.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    /// Its title.
    pub(crate) title: Option<&'a str>,
    /// The words that call up what was trained.
    pub(crate) trigger: Option<&'a str>,
}

/// The metadata of a combination of several inputs, each with its file's name, to be called `name`.
///
/// What describes the network is the first input's that has it. What tells of one input's training is left
/// out, where it is not of the base; tags are added up, trigger words, authors and licences joined.
pub(crate) fn combined(inputs: &[(&Metadata, String)], name: &str, given: Given<'_>) -> Metadata {
    let mut combined = Metadata::new();
    for (metadata, _) in inputs {
        for (key, value) in *metadata {
            let agreed = || inputs.iter().all(|(input, _)| input.get(key) == Some(value));
            let holds = match key.as_str() {
                TITLE | MERGED_FROM | OUTPUT_NAME | TAGS => false,
                key if JOINED.contains(&key) => false,
                key if SINGLE.contains(&key) => agreed(),
                key if is_of_base(key) => agreed(),
                key => !is_training(key),
            };
            if holds && !combined.contains_key(key) {
                combined.insert(key.clone(), value.clone());
            }
        }
    }
    for key in JOINED {
        insert(&mut combined, key, joined(inputs, key));
    }
    insert(&mut combined, TAGS, tags(inputs));
    // Files that say nothing of themselves are not made to.
    let speaks = |key: &String| key.starts_with("modelspec.") || key.starts_with("ss_");
    if inputs.iter().any(|(metadata, _)| metadata.keys().any(speaks)) {
        let title = given.title.unwrap_or(name).to_owned();
        combined.insert(OUTPUT_NAME.to_owned(), title.clone());
        combined.insert(TITLE.to_owned(), title);
        let titles = inputs.iter().map(|(metadata, name)| metadata.get(TITLE).unwrap_or(name));
        let titles = titles.map(String::as_str).collect::<Vec<_>>().join(", ");
        combined.insert(MERGED_FROM.to_owned(), titles);
    }
    call(&mut combined, given);
    combined
}

/// Puts in what the user calls the result.
pub(crate) fn call(metadata: &mut Metadata, given: Given<'_>) {
    for (key, value) in [(TITLE, given.title), (OUTPUT_NAME, given.title), (TRIGGER, given.trigger)]
    {
        insert(metadata, key, value.map(str::to_owned));
    }
}

fn insert(metadata: &mut Metadata, key: &str, value: Option<String>) {
    if let Some(value) = value {
        metadata.insert(key.to_owned(), value);
    }
}

/// All different values, one after another.
fn joined(inputs: &[(&Metadata, String)], key: &str) -> Option<String> {
    let mut values: Vec<&str> = Vec::new();
    for (metadata, _) in inputs {
        let parts = metadata.get(key).into_iter().flat_map(|value| value.split(','));
        for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
            if !values.contains(&part) {
                values.push(part);
            }
        }
    }
    (!values.is_empty()).then(|| values.join(", "))
}

/// `{data set: {tag: count}}` of all inputs, counts of a data set and tag that several have added up;
/// nothing where an input's is no such table.
fn tags(inputs: &[(&Metadata, String)]) -> Option<String> {
    let mut sets: Map<String, Value> = Map::new();
    for (metadata, _) in inputs {
        let Some(text) = metadata.get(TAGS) else { continue };
        let table: Map<String, Value> = serde_json::from_str(text).ok()?;
        for (set, counts) in table {
            let sum =
                sets.entry(set).or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
            for (tag, count) in counts.as_object()? {
                let before = sum.get(tag).and_then(Value::as_u64).unwrap_or(0);
                sum.insert(tag.clone(), before.saturating_add(count.as_u64()?).into());
            }
        }
    }
    (!sets.is_empty()).then(|| Value::Object(sets).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> Metadata {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn of(a: &Metadata, b: &Metadata, given: Given<'_>) -> Metadata {
        combined(&[(a, "ink".to_owned()), (b, "oil".to_owned())], "mix", given)
    }

    #[test]
    fn a_combination_is_none_of_its_inputs() {
        let a = metadata(&[
            ("modelspec.title", "Ink"),
            ("modelspec.trigger_phrase", "ink style"),
            ("modelspec.architecture", "sdxl/lora"),
            ("modelspec.description", "of ink"),
            ("modelspec.author", "ann"),
            ("ss_output_name", "ink"),
            ("ss_steps", "2400"),
            ("ss_network_module", "networks.lora"),
            ("ss_sd_model_name", "sdxl.safetensors"),
            ("ss_tag_frequency", r#"{"1_a": {"ink": 3, "cat": 1}}"#),
        ]);
        let b = metadata(&[
            ("modelspec.trigger_phrase", "oil, ink style"),
            ("modelspec.author", "ann"),
            ("ss_steps", "2400"),
            ("ss_sd_model_name", "sdxl.safetensors"),
            ("ss_tag_frequency", r#"{"1_a": {"cat": 2}, "2_b": {"oil": 5}}"#),
        ]);
        let expected = metadata(&[
            ("modelspec.architecture", "sdxl/lora"),
            ("ss_network_module", "networks.lora"),
            ("ss_sd_model_name", "sdxl.safetensors"),
            ("modelspec.trigger_phrase", "ink style, oil"),
            ("modelspec.author", "ann"),
            ("ss_tag_frequency", r#"{"1_a":{"ink":3,"cat":3},"2_b":{"oil":5}}"#),
            ("ss_output_name", "mix"),
            ("modelspec.title", "mix"),
            ("modelspec.merged_from", "Ink, oil"),
        ]);
        assert_eq!(of(&a, &b, Given::default()), expected);
        let given = Given { title: Some("Both"), trigger: Some("inkoil") };
        let called = of(&a, &b, given);
        assert_eq!(called.get(TITLE).map(String::as_str), Some("Both"));
        assert_eq!(called.get(TRIGGER).map(String::as_str), Some("inkoil"));
    }

    #[test]
    fn files_that_say_nothing_stay_silent() {
        let plain = metadata(&[("format", "pt")]);
        assert_eq!(of(&plain, &plain, Given::default()), plain);
        let odd = metadata(&[("ss_tag_frequency", "[1]")]);
        assert!(!of(&odd, &plain, Given::default()).contains_key(TAGS));
    }
}
