//! Differences that adapters store whole, which have no factors.

use crate::adapter::Adapter;
use crate::adapter::module::{Module, Nature};

/// A stored difference that takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) adapter: usize,
    pub(super) module: usize,
    pub(super) weight: f64,
}

impl Stored {
    /// The adapter and the module.
    pub(super) fn of<'a>(&self, adapters: &'a [Adapter]) -> Option<(&'a Adapter, &'a Module)> {
        let adapter = adapters.get(self.adapter)?;
        Some((adapter, adapter.modules.get(self.module)?))
    }
}

/// Whether a module is a stored difference and nothing else.
pub(super) fn is_stored(module: &Module) -> bool {
    let bias_alone = module.inputs == 0 && module.bias.is_some() && module.magnitude.is_none();
    module.nature() == Nature::Full || (bias_alone && module.nature() == Nature::LowRank(0))
}
