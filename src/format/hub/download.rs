//! A repository into the local cache, as `huggingface_hub` lays it out: blobs first, then the links to them, and last
//! the reference that makes them found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::blob::{self, cache_error};
use super::client::{Client, Listing};
use super::repository::{Repository, Say};
use crate::error::FetchError;

type Fetched<T> = std::result::Result<T, FetchError>;

/// Endings of weights that are not read, or of which a repository has several copies: they are named to be fetched.
const NOT_TAKEN: [&str; 10] =
    [".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".ot", ".tflite", ".gguf"];

/// Downloads what the cache lacks of a repository's revision, or of a folder or file of it.
///
/// # Errors
/// [`FetchError`]; what came of a file is kept as `….incomplete`, and nothing is found in the cache before all is there.
pub(in crate::format) fn download(
    repository: &Repository<'_>,
    root: &Path,
    say: Say,
) -> Fetched<()> {
    let client = Client::of_environment();
    let revision = repository.revision.unwrap_or("main");
    let listing = client.listing(repository, revision)?;
    let folder = root.join(repository.folder());
    let wanted = wanted(&listing, repository.below);
    for (at, file) in wanted.iter().enumerate() {
        let url = client.url(repository, &listing.commit, file);
        let announced = client.announced(&url)?;
        let (number, count, bytes) = (at + 1, wanted.len(), announced.bytes);
        let blob = folder.join("blobs").join(&announced.etag);
        if blob.symlink_metadata().is_err() {
            say(&format!("fetching {file} ({number} of {count}, {bytes} bytes)"));
            blob::download(&client, &url, &announced, &blob)?;
        }
        let link = folder.join("snapshots").join(&listing.commit).join(file);
        point(&link, file, &announced.etag).map_err(|error| cache_error(&link, &error))?;
    }
    if revision != listing.commit {
        let reference = folder.join("refs").join(revision);
        refer(&reference, &listing.commit).map_err(|error| cache_error(&reference, &error))?;
    }
    Ok(())
}

/// The files to take: those below a path that was named, else all but weights in forms that are not read.
fn wanted<'a>(listing: &'a Listing, below: &str) -> Vec<&'a str> {
    let files = listing.files.iter().map(String::as_str);
    if below.is_empty() {
        let taken = |file: &&str| {
            let lower = file.to_ascii_lowercase();
            !NOT_TAKEN.iter().any(|ending| lower.ends_with(ending))
                && !lower.starts_with("original/")
        };
        return files.filter(taken).collect();
    }
    let is_below = |file: &&str| Path::new(file).starts_with(below);
    files.filter(is_below).collect()
}

/// A link of the snapshot to a blob, by a path that holds wherever the cache is moved to.
fn point(link: &Path, file: &str, etag: &str) -> io::Result<()> {
    if link.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    // From the link's folder up through the commit and `snapshots` to the repository.
    let up: PathBuf = Path::new(file).components().map(|_| "..").chain([".."]).collect();
    let blob = up.join("blobs").join(etag);
    #[cfg(unix)]
    return std::os::unix::fs::symlink(blob, link);
    #[cfg(not(unix))]
    return fs::copy(link.with_file_name("").join(blob), link).map(|_| ());
}

/// Writes which commit a revision is, whole or not at all.
fn refer(reference: &Path, commit: &str) -> io::Result<()> {
    let folder = reference.parent().unwrap_or(reference);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, commit.as_bytes())?;
    file.persist(reference)?;
    Ok(())
}
