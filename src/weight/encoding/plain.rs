//! Numbers that stand for themselves; and 8-bit floats without a scale, which are a plain cast.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::weight::codes::{By, Code};
use crate::weight::{Decode, Encode, Encoded, Panel, Part, Stored, Writing};

/// The name of what no encoding claims.
pub(in crate::weight) const PLAIN: &str = "plain";

#[derive(Debug)]
struct Cast {
    codes: Stored,
    code: Code,
    columns: usize,
}

/// How a tensor is read and written that has no companions: 8-bit floats are, and only they need to.
pub(in crate::weight) fn cast(stored: &Stored) -> Option<(Arc<dyn Decode>, Arc<dyn Encode>)> {
    let code = Code::of(stored.dtype).filter(|code| *code != Code::Int8)?;
    let columns = stored.shape.last().copied().unwrap_or(1);
    let cast = Arc::new(Cast { codes: stored.clone(), code, columns });
    Some((Arc::clone(&cast) as Arc<dyn Decode>, cast))
}

impl Decode for Cast {
    fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.code.widen(&self.codes, rows.start * self.columns, out)
    }
}

/// A cast to the nearest; what is beyond the largest number becomes it (PyTorch's own cast makes it no number).
impl Encode for Cast {
    fn parts(&self, _: Writing) -> Vec<Part> {
        vec![Part::like(&self.codes)]
    }

    fn grain(&self) -> usize {
        1
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        let all = (panel.values.len(), panel.values.len());
        let codes = self.code.round(By::Product, panel, all, &[(1.0, 1.0)], &mut out.values);
        out.put(0, panel.rows.start * self.columns, codes);
        Ok(())
    }
}
