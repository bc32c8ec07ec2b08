//! The one thread pool of a verb, and threads that each take the next of several pieces of work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{ErrorKind, Result};

/// Stack of a thread that runs whole verbs: what a main thread has.
const STACK: usize = 8 << 20;

/// Threads that compute; one a core for 0.
///
/// # Errors
/// [`ErrorKind::Threads`], if the system does not start them.
pub(crate) fn thread_pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| ErrorKind::Threads(error.to_string()).into())
}

/// Does pieces of work, the first ones first, so many at once; what came of each, in order. After a piece that
/// `is_last` says it of, none is begun.
///
/// # Errors
/// [`ErrorKind::Threads`], if the system does not start them.
pub(in crate::ops) fn spread<T: Send>(
    pieces: &[usize],
    at_once: usize,
    work: impl Fn(usize) -> T + Sync,
    is_last: impl Fn(&T) -> bool + Sync,
) -> Result<Vec<Option<T>>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work_on = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = work(*piece);
            if is_last(&made) {
                next.store(pieces.len(), Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((*piece, made));
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, pieces.len().max(1)) {
            let thread = thread::Builder::new().stack_size(STACK);
            let started = thread.spawn_scoped(scope, work_on);
            started.map_err(|error| ErrorKind::Threads(error.to_string()))?;
        }
        Ok::<_, ErrorKind>(())
    })?;
    let count = pieces.iter().max().map_or(0, |most| most + 1);
    let mut all: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    for (piece, made) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        if let Some(slot) = all.get_mut(piece) {
            *slot = Some(made);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn every_piece_is_done_once_and_none_after_the_last() {
        for at_once in [1, 3, 20] {
            let all = spread(&[2, 0, 3, 1], at_once, |piece| piece * 10, |_| false);
            assert_eq!(all.ok(), Some(vec![Some(0), Some(10), Some(20), Some(30)]));
        }
        let some = spread(&[2, 0, 1], 1, |piece| piece, |piece| *piece == 0);
        assert_eq!(some.ok(), Some(vec![Some(0), None, Some(2)]));
        assert_eq!(spread(&[], 2, |piece| piece, |_| false).ok(), Some(vec![]));
    }
}
