//! One file of the Hub: downloaded into its blob, from where an earlier try ended, and put in place when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::client::{Announced, Client, TRIES, is_final, pause};
use crate::error::FetchError;

type Fetched<T> = std::result::Result<T, FetchError>;

/// Bytes asked for at once: a request that fails is repeated for so much at most.
const PIECE: u64 = 64 << 20;

/// Downloads a file to `blob`, unless it is there.
///
/// What has come lies in `BLOB.incomplete` until it is whole and has the announced hash.
pub(super) fn download(
    client: &Client,
    url: &str,
    announced: &Announced,
    blob: &Path,
) -> Fetched<()> {
    let incomplete = PathBuf::from(format!("{}.incomplete", blob.display()));
    let in_cache = |error: io::Error| cache_error(&incomplete, &error);
    let mut file = open(&incomplete).map_err(in_cache)?;
    // Another process that downloads the same file is waited for.
    file.lock().map_err(in_cache)?;
    if blob.symlink_metadata().is_ok() {
        return Ok(());
    }
    fill(client, url, announced.bytes, &mut file, &incomplete)?;
    let found = hash(&mut file, announced).map_err(in_cache)?;
    if !found.eq_ignore_ascii_case(&announced.etag) {
        fs::remove_file(&incomplete).map_err(in_cache)?;
        let (url, expected) = (url.to_owned(), announced.etag.clone());
        return Err(FetchError::WrongHash { url, bytes: announced.bytes, expected, found });
    }
    file.sync_all().map_err(in_cache)?;
    fs::rename(&incomplete, blob).map_err(in_cache)
}

/// What the cache could not do.
pub(super) fn cache_error(file: &Path, error: &io::Error) -> FetchError {
    FetchError::Cache { file: file.display().to_string(), reason: error.to_string() }
}

fn open(incomplete: &Path) -> io::Result<File> {
    if let Some(folder) = incomplete.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(incomplete)
}

/// Asks for what is missing, piece by piece, until nothing is.
fn fill(client: &Client, url: &str, bytes: u64, file: &mut File, incomplete: &Path) -> Fetched<()> {
    let in_cache = |error: io::Error| cache_error(incomplete, &error);
    let mut here = file.metadata().map_err(in_cache)?.len();
    if here > bytes {
        file.set_len(0).map_err(in_cache)?;
        here = 0;
    }
    let mut failed = 0;
    let mut last = None;
    while here < bytes {
        if failed > 0 {
            sleep(pause(failed));
        }
        let before = here;
        match piece(client, url, (&mut here, bytes), file) {
            Ok(()) => {}
            Err(Piece::Fetch(error)) if is_final(&error) => return Err(error),
            Err(Piece::Fetch(error)) => last = Some(error),
            Err(Piece::Cache(error)) => return Err(in_cache(error)),
        }
        failed = if here > before { 0 } else { failed + 1 };
        if failed == TRIES {
            let cut = FetchError::Cut { url: url.to_owned(), expected: bytes, found: here };
            return Err(last.unwrap_or(cut));
        }
    }
    Ok(())
}

/// What ended a piece.
enum Piece {
    Fetch(FetchError),
    Cache(io::Error),
}

/// Appends a piece to the file, and as much of one as comes.
fn piece(
    client: &Client,
    url: &str,
    (here, bytes): (&mut u64, u64),
    file: &mut File,
) -> Result<(), Piece> {
    let to = bytes.min(*here + PIECE);
    let (first, reader) = client.bytes(url, *here, to).map_err(Piece::Fetch)?;
    if first == 0 && *here > 0 {
        // The server sends whole files only.
        *here = 0;
        file.set_len(0).map_err(Piece::Cache)?;
    }
    file.seek(SeekFrom::Start(*here)).map_err(Piece::Cache)?;
    let mut reader = reader.take(bytes - *here);
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) => {
                let reason = error.to_string();
                return Err(Piece::Fetch(FetchError::Unreachable { url: url.to_owned(), reason }));
            }
        };
        file.write_all(&buffer[..count]).map_err(Piece::Cache)?;
        *here += count as u64;
    }
}

/// The hash that the file's ETag is: SHA-256, or what git makes of a file.
fn hash(file: &mut File, announced: &Announced) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    if announced.etag.len() == 64 {
        let mut hash = Sha256::new();
        io::copy(file, &mut hash)?;
        return Ok(format!("{:x}", hash.finalize()));
    }
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", announced.bytes));
    io::copy(file, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}
