//! Numbers that stand for themselves; and 8-bit floats without a scale, which are a plain cast.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::weight::codes::Code;
use crate::weight::{Decode, Stored};

/// The name of what no encoding claims.
pub(in crate::weight) const PLAIN: &str = "plain";

#[derive(Debug)]
struct Cast {
    codes: Stored,
    code: Code,
    columns: usize,
}

/// How a tensor decodes that has no companions: 8-bit floats do, and only they need to.
pub(in crate::weight) fn cast(stored: &Stored) -> Option<Arc<dyn Decode>> {
    let code = Code::of(stored.dtype).filter(|code| *code != Code::Int8)?;
    let columns = stored.shape.last().copied().unwrap_or(1);
    Some(Arc::new(Cast { codes: stored.clone(), code, columns }))
}

impl Decode for Cast {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.code.widen(&self.codes, rows.start * self.columns, out)
    }
}
