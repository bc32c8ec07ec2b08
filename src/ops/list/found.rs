//! An adapter that was read.

use super::content::Content;
use super::row::Row;
use super::sketch::Sketch;

/// An adapter that was read, with what tells whether it is another one too.
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) content: Option<Content>,
    pub(super) sketch: Option<Sketch>,
}
