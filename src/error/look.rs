//! Hints that take a look at the file an error is about.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::{ErrorKind, near};

/// What to do about an error of this kind with this file, where a look at it tells.
pub(super) fn hint(kind: &ErrorKind, file: &Path) -> Option<String> {
    match kind {
        ErrorKind::NotFound => missing(file),
        ErrorKind::TruncatedHeader { .. }
        | ErrorKind::HeaderTooLarge { .. }
        | ErrorKind::BadHeader { .. } => no_safetensors(file).map(str::to_owned),
        ErrorKind::NoAdapter { .. } if file.join("config.json").is_file() => Some(
            "this looks like a model: the base comes first, then the adapters (merge BASE ADAPTER...)"
                .to_owned(),
        ),
        ErrorKind::NoCheckpoint { .. } if file.join("adapter_config.json").is_file() => Some(
            "this is an adapter: the base comes first, then the adapters (merge BASE ADAPTER...)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// A path that is not there: a sibling with nearly its name, or the name of something on the Hub.
fn missing(path: &Path) -> Option<String> {
    // The first part that does not exist is the one that was mistyped.
    let wrong = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !part.exists())
        .last()?;
    let parent = wrong.parent()?;
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let name = wrong.file_name()?.to_string_lossy();
    if let Some(other) = near(&name, names.iter().map(String::as_str)) {
        let rest = path.strip_prefix(wrong).ok().filter(|rest| !rest.as_os_str().is_empty());
        let meant = rest.map_or(parent.join(other), |rest| parent.join(other).join(rest));
        return Some(format!("did you mean `{}`?", meant.display()));
    }
    let relative = path.is_relative() && path.components().count() == 2 && wrong != path;
    relative.then(|| {
        let name = path.display();
        format!("if this is a name on the Hugging Face Hub, fetch it first: hf download {name} --local-dir DIR")
    })
}

/// What a file is that is no safetensors file, by how it begins.
fn no_safetensors(path: &Path) -> Option<&'static str> {
    const STARTS: [(&[u8], &str); 7] = [
        (
            b"version https://git-lfs",
            "this is a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository",
        ),
        (b"PK\x03\x04", "this is a zip archive, as torch.save writes it; save it as .safetensors"),
        (b"\x80\x02", "this is a pickle, whatever its name; save it as .safetensors"),
        (b"GGUF", "this is a GGUF file"),
        (b"<!", "this is an HTML page: the download met a login or an error"),
        (b"<html", "this is an HTML page: the download met a login or an error"),
        (b"{", "this is JSON; name the directory it lies in, or the .safetensors file"),
    ];
    let mut start = Vec::new();
    File::open(path).ok()?.take(32).read_to_end(&mut start).ok()?;
    let known = STARTS.iter().find(|(bytes, _)| start.starts_with(bytes));
    known.map(|(_, hint)| *hint)
}
