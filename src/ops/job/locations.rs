//! Places in stores, as a plan has them: what the user wrote, in place of what stands for it on this machine.
//!
//! A worker gives each place a path of its own before it reads the rest, which knows paths alone.

use std::path::Path;

use crate::error::Result;
use crate::format::location::{locate, output};
use crate::format::remote::written;

/// What the user wrote for these paths, of those that stand for a place in a store.
pub(in crate::ops) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let mut all: Vec<String> = paths.filter_map(written).collect();
    all.sort();
    all.dedup();
    // The longest first: one may lie below another.
    all.sort_by_key(|location| std::cmp::Reverse(location.len()));
    all
}

/// A JSON text whose strings begin with the paths that stand for these places here, of inputs and of outputs.
///
/// # Errors
/// What the store says of a place.
pub(in crate::ops) fn put_in(
    mut text: String,
    inputs: &[String],
    outputs: &[String],
) -> Result<String> {
    // An output first: it may lie below an input, and is no part of it.
    for location in outputs {
        text = replaced(&text, location, &output(Path::new(location))?);
    }
    for location in inputs {
        text = replaced(&text, location, &locate(Path::new(location))?);
    }
    Ok(text)
}

/// Strings of a JSON text that are a location, or begin with it and a slash, begin with a path.
fn replaced(text: &str, location: &str, local: &Path) -> String {
    let location = location.trim_end_matches('/');
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(location) {
        let (before, found) = rest.split_at(at);
        let after = found.get(location.len()..).unwrap_or_default();
        // A quote that is escaped begins no string: what users wrote, a recipe say, stays as it is.
        let begins = before.ends_with('"') && !before.ends_with("\\\"");
        let ends = after.starts_with(['"', '/']);
        done.push_str(before);
        match begins && ends {
            true => done.push_str(&local.display().to_string()),
            false => done.push_str(location),
        }
        rest = after;
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::{Path, replaced};

    #[test]
    fn only_whole_strings_are_places() {
        let text = r#"{"base": "s3://b/base", "file": "s3://b/base/x", "other": "s3://b/base2",
            "recipe": "base: s3://b/base", "quoted": "\"s3://b/base\""}"#;
        let expected = r#"{"base": "/m/base", "file": "/m/base/x", "other": "s3://b/base2",
            "recipe": "base: s3://b/base", "quoted": "\"s3://b/base\""}"#;
        assert_eq!(replaced(text, "s3://b/base/", Path::new("/m/base")), expected);
    }
}
