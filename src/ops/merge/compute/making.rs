//! A merge at work: a plan, which is data, and its inputs, which are open.

use crate::ops::merge::plan::open_inputs::OpenInputs;
use crate::ops::merge::plan::output::Plan;

/// A merge at work. Any shard can be made without the others.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Making<'a> {
    /// What is made.
    pub(in crate::ops) plan: &'a Plan,
    /// What it is made from.
    pub(in crate::ops) inputs: &'a OpenInputs,
    /// Rows that are computed together, by their size if `None`: no bit of the output depends on it.
    pub(in crate::ops) block_rows: Option<usize>,
}
