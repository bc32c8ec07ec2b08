//! Hints that take a look at the file an error is about.

use std::fs;
use std::path::Path;

use super::{ErrorKind, near};

/// What to do about an error of this kind with this file, where a look at it tells.
pub(super) fn hint(kind: &ErrorKind, file: &Path) -> Option<String> {
    match kind {
        ErrorKind::NotFound => missing(file),
        ErrorKind::NoAdapter { .. } if file.join("config.json").is_file() => Some(
            "this looks like a model: the base comes first, then the adapters (merge BASE ADAPTER...)"
                .to_owned(),
        ),
        // vLLM reads these from 0.14 to 0.31 (`lora_model.py`), and nothing else does.
        ErrorKind::NoAdapter { .. } if file.join("adapter_model.tensors").is_file() => Some(
            "adapter_model.tensors is tensorizer's: only vLLM before 0.32 reads it; save the adapter as adapter_model.safetensors"
                .to_owned(),
        ),
        ErrorKind::NoCheckpoint { .. } if file.join("adapter_config.json").is_file() => Some(
            "this is an adapter: the base comes first, then the adapters (merge BASE ADAPTER...)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What is to be said of links that lead to one another.
pub(super) const LINK_LOOP: &str =
    "its links lead in a circle, so there is no file at their end; `ls -l` shows where each leads";

/// Whether a path could not be followed because its links lead in a circle.
pub(super) fn is_link_loop(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    {
        rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// A path that is not there: a sibling with nearly its name, or the name of something on the Hub.
fn missing(path: &Path) -> Option<String> {
    // The first part that does not exist is the one that was mistyped.
    let wrong = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !part.exists())
        .last()?;
    if let Ok(target) = fs::read_link(wrong) {
        if fs::metadata(wrong).is_err_and(|error| is_link_loop(&error)) {
            return Some(LINK_LOOP.to_owned());
        }
        return Some(format!("it is a link to {}, which is not there", target.display()));
    }
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
    if let Some((before, after)) = path.to_str().and_then(|text| text.rsplit_once(':'))
        && Path::new(before).exists()
    {
        return Some(format!("after the last colon a weight is meant, and `{after}` is no number"));
    }
    let is_weights = path.extension().is_some_and(|end| end == "safetensors");
    let may_be_repository =
        !is_weights && path.is_relative() && path.components().count() == 2 && wrong != path;
    may_be_repository.then(|| {
        let name = path.display().to_string();
        let command = match name.split_once('@') {
            Some((name, revision)) => format!("hf download {name} --revision {revision}"),
            None => format!("hf download {name}"),
        };
        format!("if this is a name on the Hugging Face Hub, its cache here does not hold it; fetch it first: {command}")
    })
}

/// What a file is that is no safetensors file, where its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// How it begins.
    start: &'static [u8],
    /// What it is.
    pub(super) what: &'static str,
    /// What to do about it.
    pub(super) hint: &'static str,
}

impl FileKind {
    /// Bytes that are enough to tell.
    pub const START: u64 = 64;

    /// The kind of a file that begins so.
    pub fn of(start: &[u8]) -> Option<Self> {
        const HTML: &str = "the download met a login or an error: fetch the file again";
        const JSON: &str = "name the directory it lies in, or the .safetensors file";
        const KINDS: [FileKind; 10] = [
            FileKind {
                start: b"version https://git-lfs",
                what: "a pointer of Git LFS",
                hint: "run `git lfs pull` in its repository to get the file itself",
            },
            FileKind {
                start: b"PK\x03\x04",
                what: "a zip archive, as torch.save writes it",
                hint: "save it as .safetensors where it is trusted",
            },
            FileKind {
                start: b"\x80\x02",
                what: "a pickle, whatever its name",
                hint: "save it as .safetensors where it is trusted",
            },
            FileKind {
                start: b"GGUF",
                what: "a GGUF file",
                hint: "a GGUF adapter is read where an adapter is asked for; name a .safetensors file here",
            },
            FileKind { start: b"<!doctype", what: "an HTML page", hint: HTML },
            FileKind { start: b"<html", what: "an HTML page", hint: HTML },
            FileKind { start: b"<?xml", what: "an XML document", hint: HTML },
            FileKind { start: b"{", what: "JSON", hint: JSON },
            FileKind { start: b"[", what: "JSON", hint: JSON },
            FileKind {
                start: b"\x1f\x8b",
                what: "a gzip archive",
                hint: "unpack it first (gunzip, tar xzf)",
            },
        ];
        let text = start.trim_ascii_start();
        let begins = |kind: &&FileKind| {
            let known = kind.start;
            [start, text].iter().any(|start| {
                start.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known))
            })
        };
        KINDS.iter().find(begins).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_that_went_wrong_are_known() {
        let what = |start: &[u8]| FileKind::of(start).map(|kind| kind.what);
        assert_eq!(what(b"<!DOCTYPE html><html>"), Some("an HTML page"));
        assert_eq!(what(b"\n  <html lang=en>"), Some("an HTML page"));
        assert_eq!(
            what(b"version https://git-lfs.github.com/spec/v1"),
            Some("a pointer of Git LFS")
        );
        assert_eq!(what(b"{\"error\": 1}"), Some("JSON"));
        assert_eq!(what(b"GGUF\x03"), Some("a GGUF file"));
        assert_eq!(what(b"\x40\0\0\0\0\0\0\0{"), None);
        assert_eq!(what(b""), None);
    }
}
