//! How a running verb tells of its progress.

/// What a running verb tells of its progress. `()` is silent.
pub trait Progress: Sync {
    /// Work of so many bytes begins.
    fn begin(&self, _bytes: u64) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
}

impl Progress for () {}
