//! Files on the way to a store: sent by parts that nobody sees before all have come.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path as LocalPath, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutOptions, PutPayload, UploadPart};

use super::bucket::{Bucket, wait};
use crate::error::{CloudError, Result as Outcome};

/// Files up to this size are sent at once.
const AT_ONCE: u64 = 8 << 20;
/// An index up to this size is: only what is sent at once can be refused where something is.
pub(super) const MOST_AT_ONCE: u64 = 64 << 20;
/// Bytes of a part, at least; stores take ten thousand parts.
pub(super) const PART: u64 = 8 << 20;
pub(super) const MOST_PARTS: u64 = 9_000;
/// Bytes that are on their way at once: one stream alone is far slower than a network card.
pub(super) const ON_THE_WAY: u64 = 4 * PART;

/// Where an output goes.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) bucket: Bucket,
}

/// A file to be sent.
struct Piece {
    local: PathBuf,
    to: Path,
    bytes: u64,
}

/// What ended a transfer.
enum Ended {
    Store(object_store::Error),
    Local(PathBuf, io::Error),
    /// Something has appeared at the place meanwhile.
    Taken,
}

impl Upload {
    /// Fails if something is there, unless it may be replaced.
    ///
    /// # Errors
    /// That it is there; what the store says.
    pub(super) fn check_free(&self, force: bool) -> Outcome<()> {
        if force {
            return Ok(());
        }
        let asked = wait(self.is_taken());
        let asked = asked.map_err(|error| self.bucket.local(LocalPath::new("threads"), &error))?;
        match asked.map_err(|error| self.bucket.error(&error))? {
            true => Err(CloudError::Exists { location: self.bucket.location.clone() }.into()),
            false => Ok(()),
        }
    }

    /// Sends a file or a directory; what others read last appears last.
    ///
    /// # Errors
    /// What the store or the local disk says.
    pub(super) fn send(&self, local: &LocalPath, force: bool) -> Outcome<()> {
        let pieces = self.pieces(local).map_err(|error| self.bucket.local(local, &error))?;
        let sent = wait(self.send_all(&pieces, force))
            .map_err(|error| self.bucket.local(local, &error))?;
        sent.map_err(|ended| {
            let error = match ended {
                Ended::Store(error) => self.bucket.error(&error),
                Ended::Local(path, error) => self.bucket.local(&path, &error),
                Ended::Taken => CloudError::Exists { location: self.bucket.location.clone() },
            };
            error.into()
        })
    }

    /// The files of an output, those last by which others find the rest: the index, else a config.
    fn pieces(&self, local: &LocalPath) -> io::Result<Vec<Piece>> {
        let mut files = Vec::new();
        walk(local, &mut files)?;
        files.sort_by_key(|path| rank(path));
        let piece = |path: PathBuf| {
            let below = path.strip_prefix(local).unwrap_or(&path);
            let parts = below.components().filter_map(|part| part.as_os_str().to_str());
            let to = parts.fold(self.bucket.path.clone(), Path::join);
            let bytes = fs::metadata(&path)?.len();
            Ok(Piece { local: path, to, bytes })
        };
        files.into_iter().map(piece).collect()
    }

    /// Whether something is at this place, or below it.
    async fn is_taken(&self) -> object_store::Result<bool> {
        match self.bucket.store.head(&self.bucket.path).await {
            Ok(_) => return Ok(true),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let first = self.bucket.store.list(Some(&self.bucket.path)).next().await;
        first.transpose().map(|first| first.is_some())
    }

    /// Sends all parts, and lets them appear when all have come; the last file, if it is a small one, after all others
    /// and only if it is not there.
    async fn send_all(&self, pieces: &[Piece], force: bool) -> Result<(), Ended> {
        let Some((last, others)) = pieces.split_last() else { return Ok(()) };
        let is_large = |piece: &&Piece| piece.bytes > AT_ONCE;
        let last_in_parts = Some(last).filter(|last| last.bytes > MOST_AT_ONCE);
        let large: Vec<&Piece> = others.iter().filter(is_large).chain(last_in_parts).collect();
        let mut waiting = Vec::new();
        if let Err(error) = self.send_parts(&large, &mut waiting).await {
            for mut upload in waiting {
                // What cannot be taken back is removed by the store's own rules; the first error is the one to tell.
                let _ = upload.abort().await;
            }
            return Err(error);
        }
        // Others may have written there while the parts were sent.
        if !force && self.is_taken().await.map_err(Ended::Store)? {
            for mut upload in waiting {
                let _ = upload.abort().await;
            }
            return Err(Ended::Taken);
        }
        let small = others.iter().filter(|piece| !is_large(piece));
        let last_at_once = Some(last).filter(|_| last_in_parts.is_none());
        let shown = self.show(waiting, (small.collect(), last_at_once), force).await;
        if !force && matches!(shown, Err(Ended::Store(ref error)) if !is_taken(error)) {
            // Nothing was there before, and without its last file nobody finds the rest. What was not written is not
            // there to be removed; the first error is the one to tell.
            for piece in pieces {
                let _ = self.bucket.store.delete(&piece.to).await;
            }
        }
        shown
    }

    /// Lets large files appear whose parts have come, then sends the small ones, the last after all others and only if
    /// it is not there.
    async fn show(
        &self,
        waiting: Vec<Box<dyn MultipartUpload>>,
        (small, last): (Vec<&Piece>, Option<&Piece>),
        force: bool,
    ) -> Result<(), Ended> {
        let mut waiting = waiting.into_iter();
        while let Some(mut upload) = waiting.next() {
            if let Err(error) = upload.complete().await {
                let _ = upload.abort().await;
                for mut upload in waiting {
                    let _ = upload.abort().await;
                }
                return Err(Ended::Store(error));
            }
        }
        for piece in small {
            self.put(piece, PutMode::Overwrite).await?;
        }
        let mode = if force { PutMode::Overwrite } else { PutMode::Create };
        match last {
            Some(last) => self.put(last, mode).await,
            None => Ok(()),
        }
    }

    /// Sends a file at once.
    async fn put(&self, piece: &Piece, mode: PutMode) -> Result<(), Ended> {
        let payload = PutPayload::from(read_whole(piece)?);
        let put = self.bucket.store.put_opts(&piece.to, payload, PutOptions::from(mode)).await;
        put.map(|_| ()).map_err(Ended::Store)
    }

    /// Sends the parts of all large files.
    async fn send_parts(
        &self,
        pieces: &[&Piece],
        waiting: &mut Vec<Box<dyn MultipartUpload>>,
    ) -> Result<(), Ended> {
        for piece in pieces {
            let upload = self.bucket.store.put_multipart(&piece.to).await.map_err(Ended::Store)?;
            waiting.push(upload);
            let Some(upload) = waiting.last_mut() else { continue };
            let local = |error: io::Error| Ended::Local(piece.local.clone(), error);
            let mut file = File::open(&piece.local).map_err(local)?;
            let part = PART.max(piece.bytes.div_ceil(MOST_PARTS));
            let at_once = (ON_THE_WAY / part).max(1) as usize;
            let mut sending: FuturesUnordered<UploadPart> = FuturesUnordered::new();
            let mut left = piece.bytes;
            while left > 0 {
                if sending.len() == at_once
                    && let Some(sent) = sending.next().await
                {
                    sent.map_err(Ended::Store)?;
                }
                let mut bytes = vec![0; part.min(left) as usize];
                file.read_exact(&mut bytes).map_err(local)?;
                left -= bytes.len() as u64;
                sending.push(upload.put_part(PutPayload::from(bytes)));
            }
            while let Some(sent) = sending.next().await {
                sent.map_err(Ended::Store)?;
            }
        }
        Ok(())
    }
}

/// By what the files of an output are ordered, those last by which others find the rest.
pub(super) fn rank(path: &LocalPath) -> (bool, bool, PathBuf) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_config = name == "config.json" || name == "adapter_config.json";
    (name.ends_with(".index.json"), is_config, path.to_path_buf())
}

/// Whether another output has come to stand there, whose files are not to be removed.
pub(super) fn is_taken(error: &object_store::Error) -> bool {
    matches!(
        error,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
    )
}

fn read_whole(piece: &Piece) -> Result<Vec<u8>, Ended> {
    let mut bytes = Vec::with_capacity(piece.bytes as usize);
    let read =
        File::open(&piece.local).and_then(|file| file.take(MOST_AT_ONCE).read_to_end(&mut bytes));
    read.map_err(|error| Ended::Local(piece.local.clone(), error))?;
    Ok(bytes)
}

/// All files at or below a path.
fn walk(path: &LocalPath, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        walk(&entry?.path(), files)?;
    }
    Ok(())
}
