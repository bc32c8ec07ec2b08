//! What adapters and files are called in reports.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::cut;

/// Characters of an adapter's name where several stand in a row.
const LONGEST: usize = 24;

/// Short names of several adapters, all different.
#[derive(Debug, Clone)]
pub(crate) struct Names(Vec<String>);

impl Names {
    /// The last parts of paths without the endings of files; with a number before them where two would be the same.
    pub(crate) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let short: Vec<String> = paths.map(last).map(|name| cut(&name, LONGEST)).collect();
        let different: BTreeSet<&String> = short.iter().collect();
        if different.len() == short.len() {
            return Self(short);
        }
        let numbered = short.iter().enumerate();
        Self(numbered.map(|(at, name)| format!("{}:{name}", at + 1)).collect())
    }

    /// The name of the adapter of this number.
    pub(crate) fn get(&self, at: usize) -> &str {
        self.0.get(at).map_or("", String::as_str)
    }

    /// `a`, `a and b`, `3 adapters`.
    pub(crate) fn together(&self) -> String {
        match self.0.as_slice() {
            [one] => one.clone(),
            [a, b] => format!("{a} and {b}"),
            many => format!("{} adapters", many.len()),
        }
    }
}

fn last(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let known = [".safetensors", ".gguf"];
    let stem = known.iter().find_map(|ending| name.strip_suffix(ending));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(&name).to_owned()
}

/// A path without the detours `a/..`, where they are no links and so lead where the shorter path does.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for part in path.components() {
        let plain = matches!(short.components().next_back(), Some(Component::Normal(_)));
        let is_link = || short.symlink_metadata().is_ok_and(|data| data.is_symlink());
        if part == Component::ParentDir && plain && !is_link() {
            short.pop();
        } else {
            short.push(part);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_different() {
        let names = |paths: &[&str]| Names::of(paths.iter().map(Path::new)).0;
        assert_eq!(names(&["x/ink.safetensors", "y/oil"]), ["ink", "oil"]);
        assert_eq!(names(&["x/a", "y/a"]), ["1:a", "2:a"]);
        assert_eq!(names(&[".."]), [".."]);
    }

    #[test]
    fn detours_are_left_out() {
        assert_eq!(tidy(Path::new("a/b/../../c")), Path::new("c"));
        assert_eq!(tidy(Path::new("../c")), Path::new("../c"));
        assert_eq!(tidy(Path::new("/a/../c")), Path::new("/c"));
    }
}
