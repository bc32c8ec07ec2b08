//! Where an input lies or an output goes: a path, a place in an object store, or for inputs a repository of the Hub.
//!
//! A repository is looked up in the local cache. What the cache lacks is downloaded only where that was asked
//! for ([`fetch_missing`]), by a build with the feature `hub`; without either nothing here opens a socket.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use super::hub::Say;
use super::hub::{Repository, roots};
use super::remote::as_written;
#[cfg(not(feature = "cloud"))]
use crate::error::CloudError;
use crate::error::{FetchError, LocationError, Result};

/// Schemes of object stores, and of web servers.
const STORES: [&str; 5] = ["s3", "gs", "az", "http", "https"];

/// Set once, where downloads were asked for.
static FETCH: OnceLock<Say> = OnceLock::new();

/// From now on, what the local cache lacks of a repository is downloaded into it, with a line about each file.
pub fn fetch_missing(say: Say) {
    FETCH.get_or_init(|| say);
}

/// The local path that an input means.
///
/// What exists as a path is that path. `hf://org/name[@revision][/folder]` is the snapshot in the Hub's cache, and
/// so is `org/name[@revision]` where the cache holds it, or is to be fetched; where it does not, the path stays as it
/// is, for the error of whoever opens it.
///
/// # Errors
/// [`LocationError`]: a scheme that is not read, a name that no repository can have, or one that is not in the
/// cache and cannot be a path; what a download ends with.
pub fn locate(input: &Path) -> Result<PathBuf> {
    let Some(text) = input.to_str() else { return Ok(input.to_owned()) };
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_there = input.symlink_metadata().is_ok();
        let repository =
            Repository::parse(text).filter(|found| found.below.is_empty() && !is_there);
        let Some(repository) = repository else { return Ok(input.to_owned()) };
        if FETCH.get().is_some() {
            return fetched(text, &repository);
        }
        return Ok(repository.snapshot(&roots()).unwrap_or_else(|| input.to_owned()));
    };
    let location = || text.to_owned();
    match scheme {
        "hf" => {
            let bad_name = || LocationError::BadName { location: location() };
            let repository = Repository::parse(rest).ok_or_else(bad_name)?;
            if FETCH.get().is_some() {
                return fetched(text, &repository);
            }
            let roots = roots();
            repository.snapshot(&roots).ok_or_else(|| {
                let command = repository.fetch_command();
                LocationError::NotCached { location: location(), roots, command }.into()
            })
        }
        "file" => Ok(PathBuf::from(rest)),
        _ if STORES.contains(&scheme) => Ok(mirror(text)?),
        _ => {
            Err(LocationError::UnknownScheme { location: location(), scheme: scheme.to_owned() }
                .into())
        }
    }
}

/// What others would call an input: a repository of the Hub by its name, a place in a store by its URL, a path by itself.
pub(crate) fn called(path: &Path) -> String {
    let snapshots = path.parent().filter(|above| above.ends_with("snapshots"));
    let folder = snapshots.and_then(Path::parent).and_then(Path::file_name);
    let repository = folder.and_then(|name| name.to_str()?.strip_prefix("models--"));
    match repository {
        Some(name) => name.replacen("--", "/", 1),
        None => as_written(&path.to_string_lossy()).into_owned(),
    }
}

/// The snapshots of all repositories in the local caches, in the order of their names.
pub(crate) fn cached() -> Vec<PathBuf> {
    let entries = |folder: PathBuf| {
        let entries = folder.read_dir().into_iter().flatten().filter_map(std::result::Result::ok);
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let repositories = roots().into_iter().flat_map(entries);
    repositories.flat_map(|repository| entries(repository.join("snapshots"))).collect()
}

/// The command that puts a repository into the cache, if this may be the name of one.
pub fn fetch_command(path: &Path) -> Option<String> {
    let repository = Repository::parse(path.to_str()?)?;
    repository.below.is_empty().then(|| repository.fetch_command())
}

/// A repository, after what the cache lacks of it was downloaded.
///
/// A snapshot in the cache may be a part of one, so the server is asked even then; where it does not answer, what the
/// cache holds has to do.
fn fetched(location: &str, repository: &Repository<'_>) -> Result<PathBuf> {
    let (location, roots) = (location.to_owned(), roots());
    let (Some(say), Some(root)) = (FETCH.get(), roots.first()) else {
        let command = repository.fetch_command();
        return Err(LocationError::NotCached { location, roots, command }.into());
    };
    match (download(repository, root, *say), repository.snapshot(&roots)) {
        (Ok(()), Some(snapshot)) => Ok(snapshot),
        (Ok(()), None) => Err(LocationError::NothingBelow { location }.into()),
        (Err(problem @ FetchError::Unreachable { .. }), Some(snapshot)) => {
            say(&format!("{location}: taken from the cache as it is; {problem}"));
            Ok(snapshot)
        }
        (Err(problem), _) => Err(LocationError::Fetch { location, problem }.into()),
    }
}

#[cfg(feature = "hub")]
use super::hub::download;

/// What a build without the feature says.
#[cfg(not(feature = "hub"))]
fn download(
    repository: &Repository<'_>,
    _root: &Path,
    _say: Say,
) -> std::result::Result<(), FetchError> {
    Err(FetchError::NotBuilt { command: repository.fetch_command() })
}

/// The local path that an output means: itself, or one whose file or directory goes to a store when it is complete.
///
/// # Errors
/// [`LocationError`] for a scheme that is not written; [`CloudError`](crate::error::CloudError) for a place that cannot be one.
pub fn output(output: &Path) -> Result<PathBuf> {
    let Some((scheme, rest)) = output.to_str().and_then(|text| text.split_once("://")) else {
        return Ok(output.to_owned());
    };
    let text = output.to_string_lossy();
    match scheme {
        "file" => Ok(PathBuf::from(rest)),
        _ if STORES.contains(&scheme) => Ok(to_store(&text)?),
        _ => {
            let (location, scheme) = (text.into_owned(), scheme.to_owned());
            Err(LocationError::UnknownScheme { location, scheme }.into())
        }
    }
}

#[cfg(feature = "cloud")]
use super::cloud::{mirror, output as to_store};

/// What a build without the feature says.
#[cfg(not(feature = "cloud"))]
fn mirror(location: &str) -> std::result::Result<PathBuf, CloudError> {
    Err(CloudError::NotBuilt { location: location.to_owned() })
}

#[cfg(not(feature = "cloud"))]
use mirror as to_store;
