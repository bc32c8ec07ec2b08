//! What a training script leaves in a header: kohya's `ss_*` entries, told briefly, and told apart
//! from what a file needs (`library/train_util.py`, `SS_METADATA_MINIMUM_KEYS`).

use serde_json::{Map, Value};

use crate::format::json;

/// Entries that describe the network, which kohya keeps even with `--no_metadata`.
const KEPT: [&str; 6] = [
    "ss_v2",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_network_args",
];

/// The table of what images were tagged with.
pub(crate) const TAGS: &str = "ss_tag_frequency";

/// Entries that tell of the base that was trained on, and of nothing else.
const OF_BASE: [&str; 7] = [
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_vae_name",
    "ss_vae_hash",
    "ss_new_vae_hash",
    "ss_clip_skip",
];

/// Whether an entry of the training tells of the base alone.
pub(crate) fn is_of_base(key: &str) -> bool {
    OF_BASE.contains(&key)
}

/// Entries of other trainers that tell of the training.
const OTHERS: [&str; 3] = ["training_info", "ss_output_name", "software"];

/// Whether an entry tells of the training (data sets, tags, settings) and not of the network.
pub fn is_training(key: &str) -> bool {
    !KEPT.contains(&key) && (key.starts_with("ss_") || OTHERS.contains(&key))
}

/// The longest value that is shown whole.
const LONGEST: usize = 200;

/// An entry's value for reading: tables of tags and data sets counted, long texts cut.
pub fn summary(key: &str, value: &str) -> String {
    if value.chars().count() <= LONGEST {
        return value.to_owned();
    }
    let document = json::tree(value.as_bytes()).ok();
    let described = document.and_then(|document| match (key, document) {
        (TAGS, Value::Object(sets)) => Some(tags(&sets)),
        ("ss_dataset_dirs" | "ss_reg_dataset_dirs", Value::Object(sets)) => Some(images(&sets)),
        (_, Value::Object(fields)) => Some(format!("{} entries", fields.len())),
        (_, Value::Array(items)) => Some(format!("{} items", items.len())),
        _ => None,
    });
    let length = value.chars().count();
    match described {
        Some(described) => format!("{described} ({length} characters)"),
        None => {
            let start: String = value.chars().take(LONGEST).collect();
            format!("{start}… ({length} characters)")
        }
    }
}

/// `{data set: {tag: count}}`: how many, and the commonest.
fn tags(sets: &Map<String, Value>) -> String {
    const SHOWN: usize = 8;
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for (tag, count) in sets.values().filter_map(Value::as_object).flatten() {
        counts.push((tag, count.as_u64().unwrap_or(0)));
    }
    counts.sort_by(|a, b| a.0.cmp(b.0));
    counts.dedup_by(|next, first| {
        let same = next.0 == first.0;
        if same {
            first.1 = first.1.saturating_add(next.1);
        }
        same
    });
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let total = counts.len();
    let common = counts.iter().take(SHOWN).map(|(tag, count)| format!("{} {count}", tag.trim()));
    let more = if total > SHOWN { ", …" } else { "" };
    let common = common.collect::<Vec<_>>().join(", ");
    format!("{} data sets, {total} tags: {common}{more}", sets.len())
}

/// `{directory: {"n_repeats": …, "img_count": …}}`.
fn images(sets: &Map<String, Value>) -> String {
    let counts = sets.values().filter_map(|set| set.get("img_count")?.as_u64());
    format!("{} directories, {} images", sets.len(), counts.fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_and_texts_cut() {
        let tags: Map<_, _> =
            (0..100).map(|i| (format!("tag {i:02}"), Value::from(i + 1))).collect();
        let table = serde_json::json!({"a": tags, "b": {"tag 07": 1000}}).to_string();
        let text = summary("ss_tag_frequency", &table);
        assert!(text.starts_with("2 data sets, 100 tags: tag 07 1008, tag 99 100, "), "{text}");
        let long = "x".repeat(300);
        assert_eq!(summary("note", &long), format!("{}… (300 characters)", "x".repeat(200)));
        assert_eq!(summary("ss_tag_frequency", "{}"), "{}");
        assert!(summary("ss_tag_frequency", &"[".repeat(300)).contains("300 characters"));
    }

    #[test]
    fn what_the_network_needs_is_no_training_data() {
        assert!(is_training("ss_dataset_dirs") && is_training("training_info"));
        assert!(!is_training("ss_network_dim") && !is_training("sshs_model_hash"));
        assert!(!is_training("modelspec.title") && !is_training("format"));
    }
}
