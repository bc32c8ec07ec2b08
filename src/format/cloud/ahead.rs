//! Reading ahead: who reads an object from front to back in small steps gets it in large requests, the next of which is
//! on its way while the last is used.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::bucket::aside;
use crate::format::remote::Ranged;

/// Bytes of the longest request ahead of a reader; two of them are held for each.
const LONGEST: u64 = 8 << 20;
/// Requests whose bytes are held, and ends of requests that are remembered, for each object.
const HELD: usize = 4;
const ENDS: usize = 8;

/// An object whose readers go forward.
#[derive(Debug)]
pub(super) struct Ahead<R> {
    object: Arc<R>,
    /// Bytes of the object.
    size: u64,
    state: Mutex<State>,
}

/// What has been asked for.
#[derive(Debug, Default)]
struct State {
    windows: VecDeque<Arc<Window>>,
    /// Where requests ended, and their lengths: who goes on there reads forward.
    ends: VecDeque<(u64, u64)>,
}

/// A range that was asked for.
#[derive(Debug)]
struct Window {
    start: u64,
    length: u64,
    content: Mutex<Content>,
    arrived: Condvar,
    /// Whether what follows was asked for.
    followed: AtomicBool,
}

#[derive(Debug)]
enum Content {
    Coming,
    Here {
        bytes: Vec<u8>,
        /// Bytes that nobody has read yet.
        unread: u64,
    },
    /// Not to be had in this way: whoever needs it asks again and hears why.
    Failed,
}

impl<R: Ranged + 'static> Ahead<R> {
    /// Of an object of so many bytes.
    pub(super) fn new(object: R, size: u64) -> Self {
        Self { object: Arc::new(object), size, state: Mutex::default() }
    }

    /// Reads what one request gives of a range: its first bytes, at least one.
    fn read_some(&self, start: u64, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into.len() as u64;
        let (window, new) = {
            let mut state = held(&self.state);
            match state.windows.iter().find(|window| window.holds(start)).cloned() {
                Some(window) => (window, None),
                None => {
                    let length = state.length(start, wanted);
                    if length == wanted {
                        // Nobody reads forward here, yet.
                        state.ended(start + wanted, wanted);
                        drop(state);
                        self.object.read(start, into)?;
                        return Ok(into.len());
                    }
                    let window = state.begin(start, length.min(self.size - start));
                    (Arc::clone(&window), Some(window))
                }
            }
        };
        if let Some(window) = new {
            let bytes = self.fetch(&window);
            window.settle(bytes);
        }
        self.begin_next(&window);
        let Some((length, used_up)) = window.copy(start, into) else {
            held(&self.state).windows.retain(|other| !Arc::ptr_eq(other, &window));
            self.object.read(start, into)?;
            return Ok(into.len());
        };
        if used_up {
            held(&self.state).windows.retain(|other| !Arc::ptr_eq(other, &window));
        }
        Ok(length)
    }

    fn fetch(&self, window: &Window) -> Option<Vec<u8>> {
        let mut bytes = vec![0; window.length as usize];
        self.object.read(window.start, &mut bytes).ok().map(|()| bytes)
    }

    /// Asks for what follows a window of full length, if nobody has.
    fn begin_next(&self, window: &Window) {
        let start = window.start + window.length;
        if window.length < LONGEST || start >= self.size {
            return;
        }
        let next = {
            let mut state = held(&self.state);
            let begun = state.windows.iter().any(|other| other.holds(start));
            if begun || window.followed.swap(true, Ordering::Relaxed) {
                return;
            }
            state.begin(start, LONGEST.min(self.size - start))
        };
        let object = Arc::clone(&self.object);
        let coming = Arc::clone(&next);
        let asked = aside(move || {
            let mut bytes = vec![0; coming.length as usize];
            let bytes = object.read(coming.start, &mut bytes).ok().map(|()| bytes);
            coming.settle(bytes);
        });
        if asked.is_err() {
            next.settle(None);
        }
    }
}

impl<R: Ranged + 'static> Ranged for Ahead<R> {
    fn read(&self, start: u64, into: &mut [u8]) -> io::Result<()> {
        if start.checked_add(into.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut filled = 0;
        while filled < into.len() {
            filled += self.read_some(start + filled as u64, &mut into[filled..])?;
        }
        Ok(())
    }

    fn unchanged(&self) -> io::Result<bool> {
        self.object.unchanged()
    }
}

impl State {
    /// Bytes to ask for where a reader wants some: twice the last request for one who goes forward.
    fn length(&self, start: u64, wanted: u64) -> u64 {
        match self.ends.iter().find(|(end, _)| *end == start) {
            Some((_, last)) => wanted.max((2 * last).min(LONGEST)),
            None => wanted,
        }
    }

    /// A window that somebody is about to fill; the oldest ones go.
    fn begin(&mut self, start: u64, length: u64) -> Arc<Window> {
        let window = Arc::new(Window {
            start,
            length,
            content: Mutex::new(Content::Coming),
            arrived: Condvar::new(),
            followed: AtomicBool::new(false),
        });
        if self.windows.len() == HELD {
            self.windows.pop_front();
        }
        self.windows.push_back(Arc::clone(&window));
        self.ended(start + length, length);
        window
    }

    /// Remembers where a request ends.
    fn ended(&mut self, end: u64, length: u64) {
        if self.ends.len() == ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back((end, length));
    }
}

impl Window {
    fn holds(&self, at: u64) -> bool {
        (self.start..self.start + self.length).contains(&at)
    }

    /// Puts the bytes in their place, or says that they will not come.
    fn settle(&self, bytes: Option<Vec<u8>>) {
        let content = match bytes {
            Some(bytes) => Content::Here { bytes, unread: self.length },
            None => Content::Failed,
        };
        *held(&self.content) = content;
        self.arrived.notify_all();
    }

    /// Copies from `start` on what is wanted and here: how many bytes, and whether those were the last unread ones.
    fn copy(&self, start: u64, into: &mut [u8]) -> Option<(usize, bool)> {
        let coming = |content: &mut Content| matches!(content, Content::Coming);
        let content = self.arrived.wait_while(held(&self.content), coming);
        let mut content = content.unwrap_or_else(PoisonError::into_inner);
        let Content::Here { bytes, unread } = &mut *content else { return None };
        let from = bytes.get((start - self.start) as usize..)?;
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        *unread = unread.saturating_sub(length as u64);
        Some((length, *unread == 0))
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that follow from their places, and the requests that were made.
    #[derive(Debug, Default)]
    struct Counted {
        requests: Mutex<Vec<(u64, usize)>>,
        broken: AtomicBool,
    }

    impl Ranged for Counted {
        fn read(&self, start: u64, into: &mut [u8]) -> io::Result<()> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(io::Error::other("the store is away"));
            }
            held(&self.requests).push((start, into.len()));
            for (at, byte) in into.iter_mut().enumerate() {
                *byte = byte_at(start + at as u64);
            }
            Ok(())
        }

        fn unchanged(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    fn byte_at(place: u64) -> u8 {
        (place % 251) as u8
    }

    fn right(ahead: &Ahead<Counted>, start: u64, length: usize) {
        let mut bytes = vec![0; length];
        ahead.read(start, &mut bytes).expect("bytes");
        let expected = (start..start + length as u64).map(byte_at);
        assert!(bytes.iter().copied().eq(expected), "at {start}");
    }

    #[test]
    fn one_who_reads_forward_gets_large_requests_and_no_byte_twice() {
        let size = 50_000_000;
        let ahead = Ahead::new(Counted::default(), size);
        let step = 200_000;
        for start in (0..size).step_by(step) {
            right(&ahead, start, step.min((size - start) as usize));
        }
        let requests = held(&ahead.object.requests);
        assert!(requests.len() <= 14, "{requests:?}");
        assert_eq!(requests.iter().map(|(_, length)| *length as u64).sum::<u64>(), size);
        assert!(requests.iter().all(|(_, length)| *length as u64 <= LONGEST));
        assert!(held(&ahead.state).windows.is_empty(), "what was read is held");
    }

    #[test]
    fn one_who_jumps_gets_what_was_asked_for() {
        let ahead = Ahead::new(Counted::default(), 10_000_000);
        for start in [0, 5_000_000, 1_000_000, 7_000_000] {
            right(&ahead, start, 1000);
        }
        let lengths: Vec<usize> = held(&ahead.object.requests).iter().map(|r| r.1).collect();
        assert_eq!(lengths, [1000; 4]);
    }

    #[test]
    fn several_threads_share_what_comes() {
        let (size, step) = (40_000_000_u64, 100_000);
        let ahead = Ahead::new(Counted::default(), size);
        let next = Mutex::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let start = {
                            let mut next = held(&next);
                            let start = *next;
                            *next += step;
                            start
                        };
                        if start >= size {
                            break;
                        }
                        right(&ahead, start, step as usize);
                    }
                });
            }
        });
        let bytes: usize = held(&ahead.object.requests).iter().map(|(_, length)| length).sum();
        assert!(bytes as u64 <= size + size / 10, "{bytes}");
    }

    #[test]
    fn an_error_of_the_store_is_heard_by_who_needs_the_bytes() {
        let ahead = Ahead::new(Counted::default(), 10_000_000);
        right(&ahead, 0, 1000);
        ahead.object.broken.store(true, Ordering::Relaxed);
        let error = ahead.read(1000, &mut [0; 1000]).expect_err("it is away");
        assert_eq!(error.to_string(), "the store is away");
        ahead.object.broken.store(false, Ordering::Relaxed);
        right(&ahead, 1000, 1000);
        let past = ahead.read(9_999_999, &mut [0; 2]).expect_err("past the end");
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    }
}
