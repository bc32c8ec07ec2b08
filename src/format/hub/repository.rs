//! A repository of the Hugging Face Hub by its name, and where the local cache holds it.
//!
//! The cache's layout is the one that `huggingface_hub` documents:
//! `models--org--name/{refs/<revision>, snapshots/<commit>/…, blobs}`. Nothing here opens a socket.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::format::access::read_bounded;

/// Prints a line about a download.
pub type Say = fn(&str);

/// Bytes of a file that names a commit, at most.
const COMMIT_BYTES: u64 = 256;

/// A repository of the Hub, a revision of it, and what lies below it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::format) struct Repository<'a> {
    pub(super) organisation: &'a str,
    pub(super) name: &'a str,
    pub(super) revision: Option<&'a str>,
    /// A folder or file in it; empty for the whole.
    pub(in crate::format) below: &'a str,
}

/// Where the cache may be, by the variables that `huggingface_hub` reads, in its order.
pub(in crate::format) fn roots() -> Vec<PathBuf> {
    roots_of(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

/// The token that `hf auth login` wrote.
#[cfg(feature = "hub")]
pub(super) fn stored_token() -> Option<String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = |name: &str, below: &str| Some(PathBuf::from(variable(name)?).join(below));
    let file = folder("HF_TOKEN_PATH", "")
        .or_else(|| folder("HF_HOME", "token"))
        .or_else(|| folder("XDG_CACHE_HOME", "huggingface/token"))
        .or_else(|| folder("HOME", ".cache/huggingface/token"))?;
    let text = String::from_utf8(read_bounded(&file, COMMIT_BYTES).ok()?).ok()?;
    Some(text.trim().to_owned()).filter(|token| !token.is_empty())
}

fn roots_of(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str, below: &str| Some(PathBuf::from(variable(name)?).join(below));
    folder("HF_HUB_CACHE", "")
        .or_else(|| folder("HUGGINGFACE_HUB_CACHE", ""))
        .or_else(|| folder("HF_HOME", "hub"))
        .or_else(|| folder("XDG_CACHE_HOME", "huggingface/hub"))
        .or_else(|| folder("HOME", ".cache/huggingface/hub"))
        .into_iter()
        .collect()
}

/// Whether a word can be an organisation or a repository: letters, digits, `-`, `_` and `.`, none of the last three
/// at an end, `--` and `..` nowhere (`huggingface_hub.utils.validate_repo_id`).
fn is_name(word: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'-' | b'_' | b'.');
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || inner(byte))
        && word.len() <= 96
        && !word.contains("--")
        && !word.contains("..")
        && word.bytes().next().is_some_and(|byte| !inner(byte) || byte == b'_')
        && word.bytes().last().is_some_and(|byte| !inner(byte) || byte == b'_')
}

/// Whether a path stays below where it starts.
pub(super) fn stays_below(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

impl<'a> Repository<'a> {
    /// Of `org/name[@revision][/below]`.
    pub(in crate::format) fn parse(text: &'a str) -> Option<Self> {
        let (organisation, rest) = text.trim_end_matches('/').split_once('/')?;
        let (repository, below) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = match repository.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (repository, None),
        };
        let is_revision = |text: &str| !text.is_empty() && stays_below(text);
        let is_right = is_name(organisation)
            && is_name(name)
            && revision.is_none_or(is_revision)
            && stays_below(below);
        is_right.then_some(Self { organisation, name, revision, below })
    }

    /// Its files in the first cache that holds the revision (`main` if none is named).
    pub(in crate::format) fn snapshot(&self, roots: &[PathBuf]) -> Option<PathBuf> {
        roots.iter().find_map(|root| {
            let folder = root.join(self.folder());
            let revision = self.revision.unwrap_or("main");
            let reference = folder.join("refs").join(revision);
            let commit = match read_bounded(&reference, COMMIT_BYTES) {
                Ok(bytes) => String::from_utf8(bytes).ok()?.trim().to_owned(),
                Err(_) => revision.to_owned(),
            };
            let found =
                folder.join("snapshots").join(Some(commit).filter(|text| stays_below(text))?);
            let found = if self.below.is_empty() { found } else { found.join(self.below) };
            found.exists().then_some(found)
        })
    }

    /// Its folder in a cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.organisation, self.name)
    }

    pub(in crate::format) fn fetch_command(&self) -> String {
        let Self { organisation, name, revision, .. } = self;
        let revision = revision.map(|text| format!(" --revision {text}")).unwrap_or_default();
        format!("hf download {organisation}/{name}{revision}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let found = Repository::parse("org/model-7B.v2@refs/pr/1/sub");
        assert_eq!(
            found.map(|found| (found.name, found.revision, found.below)),
            Some(("model-7B.v2", Some("refs"), "pr/1/sub"))
        );
        for text in [
            "org",
            "./org/name",
            "/org/name",
            "../name",
            "a/b/..",
            "a--b/c",
            "a/-b",
            "a/b@",
            "a b/c",
        ] {
            assert_eq!(Repository::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_cache() {
        let of = |set: &[(&str, &str)]| {
            roots_of(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        let all =
            [("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/d")];
        for (skipped, expected) in
            ["/a", "/b/hub", "/c/huggingface/hub", "/d/.cache/huggingface/hub"].iter().enumerate()
        {
            assert_eq!(of(&all[skipped..]), [PathBuf::from(expected)]);
        }
        assert!(of(&[]).is_empty());
    }
}
