//! How a running verb tells of its progress.

/// What a running verb tells of its progress. `()` is silent.
pub trait Progress: Sync {
    /// Another part of the work begins, such as `hashing`.
    fn phase(&self, _name: &'static str) {}
    /// Work of so many bytes begins.
    fn begin(&self, _bytes: u64) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
}

impl Progress for () {}
