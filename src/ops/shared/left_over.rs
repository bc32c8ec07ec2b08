//! What earlier runs towards an output have left when they were killed.

use std::path::{Path, PathBuf};

use crate::format::orphans::{Maker, left_over, maker};

/// What killed runs have left beside an output, in words.
pub(in crate::ops) fn warnings(output: &Path) -> Vec<String> {
    let warning = |left: PathBuf| {
        let folder = match left.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
            _ => ".".to_owned(),
        };
        match maker(&left) {
            Maker::Alive => None,
            Maker::Killed => Some(format!(
                "{} is left of a run that was killed; `lora-tool clean {folder}` gives its space back",
                left.display()
            )),
            Maker::Unknown => Some(format!(
                "{} is left of a run that was killed, if none is under way",
                left.display()
            )),
        }
    };
    left_over(output).into_iter().filter_map(warning).collect()
}
