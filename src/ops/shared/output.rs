//! Where an output may stand: never in, around or on an input.

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Locate, Result};
use crate::format::checkpoint::is_pickle;
use crate::format::staging::check_target;

/// Fails if the output is called as a pickle, is, contains, or lies inside an input, or could not be started.
///
/// # Errors
/// [`ErrorKind::OutputInInput`], and those of [`check_target`].
pub fn check_output<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = &'a Path>,
    force: bool,
) -> Result<()> {
    let real = resolve_new(output);
    for input in inputs {
        let Ok(other) = input.canonicalize() else { continue };
        if real.starts_with(&other) || other.starts_with(&real) {
            return Err(ErrorKind::OutputInInput { input: input.to_path_buf() }).in_file(output);
        }
    }
    if is_pickle(output) {
        let reason = "pickles are not written; a name that ends in .safetensors gives one file, a name without an ending a directory";
        return Err(ErrorKind::BadOption(reason.to_owned())).in_file(output);
    }
    check_target(output, force)
}

/// The absolute path of something that may not exist yet: its nearest existing ancestor resolved.
pub(in crate::ops) fn resolve_new(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut current = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    loop {
        if let Ok(real) = current.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (current.file_name().map(ToOwned::to_owned), current.parent()) {
            (Some(name), Some(parent)) => {
                rest.push(name);
                current = parent.to_path_buf();
            }
            _ => return path.to_path_buf(),
        }
    }
}
