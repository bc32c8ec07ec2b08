//! Patterns of paths: `*` and `?` within a name, `**` for any folders.

use std::path::Path;

use super::natural::natural;
use crate::error::{Locate, Result};

/// Folders that `**` looks into below one another.
const DEEPEST: usize = 16;

/// Whether a text is a pattern, and no path.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// What matches a pattern below a folder, in natural order, as paths relative to it (whole ones of a whole pattern).
/// Hidden names match only what begins with a dot.
///
/// # Errors
/// If a folder that the pattern names cannot be listed.
pub fn matches(folder: &Path, pattern: &str) -> Result<Vec<String>> {
    let (start, names) = match pattern.strip_prefix('/') {
        Some(rest) => ("/", rest),
        None => ("", pattern),
    };
    let names: Vec<&str> = names.split('/').filter(|name| !name.is_empty()).collect();
    let mut found = Vec::new();
    walk(folder, start, &names, 0, &mut found)?;
    found.sort_by(|a, b| natural(a, b));
    found.dedup();
    Ok(found)
}

fn walk(
    folder: &Path,
    above: &str,
    names: &[&str],
    depth: usize,
    found: &mut Vec<String>,
) -> Result<()> {
    let Some((name, rest)) = names.split_first() else { return Ok(()) };
    let below = |name: &str| match above {
        "" | "/" => format!("{above}{name}"),
        _ => format!("{above}/{name}"),
    };
    let mut go_on = |path: String, rest: &[&str], depth: usize| match rest {
        [] => {
            found.push(path);
            Ok(())
        }
        _ => walk(folder, &path, rest, depth, found),
    };
    if !is_pattern(name) {
        let path = below(name);
        return if folder.join(&path).exists() { go_on(path, rest, depth) } else { Ok(()) };
    }
    let any = *name == "**";
    let here = folder.join(above);
    let here = if here.as_os_str().is_empty() { Path::new(".") } else { &here };
    for entry in std::fs::read_dir(here).in_file(here)? {
        let entry = entry.in_file(here)?;
        let (path, entry_name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if any && path.is_dir() && !entry_name.starts_with('.') && depth < DEEPEST {
            go_on(below(&entry_name), names, depth + 1)?;
        }
        if !any && fits(name, &entry_name) && (rest.is_empty() || path.is_dir()) {
            go_on(below(&entry_name), rest, depth)?;
        }
    }
    // `**` may stand for no folder at all.
    if any { walk(folder, above, rest, depth, found) } else { Ok(()) }
}

/// Whether a name fits a pattern of names.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut read, mut star) = (0, 0, None);
    while let Some(character) = name.get(read) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(expected) if *expected == '?' || expected == character => {
                at += 1;
                read += 1;
            }
            // The last star takes one more character, and the rest is tried again.
            _ => match &mut star {
                Some((place, from)) => {
                    *from += 1;
                    (at, read) = (*place + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|character| *character == '*'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        let fit = [
            ("*", "a"),
            ("a*c", "abc"),
            ("*.s*s", "x.safetensors"),
            ("?b*", "ab"),
            ("*a*b*", "xaab"),
        ];
        for (pattern, name) in fit {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*", ".a"), ("a*c", "ab"), ("?", "ab"), ("*ab", "aba"), ("a", "b")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(fits(".*", ".a"));
    }

    #[test]
    fn paths_match_below_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a10/x", "a9/x", "a9/deep/x", "b/y", ".hidden/x"] {
            std::fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let found = |pattern: &str| matches(folder.path(), pattern).unwrap();
        assert_eq!(found("a*"), ["a9", "a10"]);
        assert_eq!(found("*/x"), ["a9/x", "a10/x"]);
        assert_eq!(found("**/x"), ["a9/deep/x", "a9/x", "a10/x"]);
        assert_eq!(found("b/?"), ["b/y"]);
        assert_eq!(found("c/*"), Vec::<String>::new());
        let whole = format!("{}/b/*", folder.path().display());
        assert_eq!(found(&whole), [format!("{}/b/y", folder.path().display())]);
    }
}
