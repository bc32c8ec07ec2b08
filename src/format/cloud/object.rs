//! A weight file in a store: ranges of its bytes, by several requests at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use super::bucket::{reason, wait};
use crate::format::remote::Ranged;

/// Bytes of one request.
const PIECE: usize = 8 << 20;
/// Requests of one reader at once, and of all.
const AT_ONCE: usize = 4;
static REQUESTS: Semaphore = Semaphore::const_new(16);
/// Answers that may break off before a range is given up.
const TRIES: u32 = 4;

/// An object as it was when it was opened.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) meta: ObjectMeta,
}

impl Ranged for Object {
    fn read(&self, start: u64, into: &mut [u8]) -> io::Result<()> {
        let pieces = into.chunks_mut(PIECE).enumerate();
        let pieces = pieces.map(|(at, piece)| self.piece(start + (at * PIECE) as u64, piece));
        let all = stream::iter(pieces).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>();
        wait(all)?.map(|_| ())
    }

    fn unchanged(&self) -> io::Result<bool> {
        let now = wait(self.store.head(&self.path))?.map_err(|error| io_error(&error))?;
        Ok(now.e_tag == self.meta.e_tag && now.size == self.meta.size)
    }
}

impl Object {
    /// Fills one piece; an answer that breaks off is asked for again from where it did.
    async fn piece(&self, start: u64, into: &mut [u8]) -> io::Result<()> {
        let _permit = REQUESTS.acquire().await.map_err(io::Error::other)?;
        let end = start + into.len() as u64;
        let mut filled = 0;
        let mut failed = 0;
        loop {
            let before = filled;
            let ended = self.answer(start + filled as u64..end, into, &mut filled).await;
            if filled == into.len() {
                return Ok(());
            }
            failed = if filled > before { 0 } else { failed + 1 };
            match ended {
                Err(error) if failed == TRIES || is_final(&error) => return Err(io_error(&error)),
                Ok(()) if failed == TRIES => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// One answer, as far as it comes.
    async fn answer(
        &self,
        range: Range<u64>,
        into: &mut [u8],
        filled: &mut usize,
    ) -> object_store::Result<()> {
        let options =
            GetOptions::new().with_range(Some(range)).with_if_match(self.meta.e_tag.clone());
        let mut stream = self.store.get_opts(&self.path, options).await?.into_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let room = chunk.len().min(into.len() - *filled);
            into[*filled..*filled + room].copy_from_slice(&chunk[..room]);
            *filled += room;
        }
        Ok(())
    }
}

/// Whether asking again would not help: the client has tried again what may pass.
fn is_final(error: &object_store::Error) -> bool {
    !matches!(error, object_store::Error::Generic { .. })
}

fn io_error(error: &object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        // What was opened is no longer there.
        object_store::Error::Precondition { .. } => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, reason(error))
}
