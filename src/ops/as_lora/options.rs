//! Which adapter becomes a LoRA, and how.

use crate::format::Dtype;
use crate::math::RankPolicy;
use crate::ops::convert;

/// The dtype of the factors that are written.
pub(super) const DTYPE: Dtype = Dtype::F32;

/// Which adapter to write as a LoRA, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that `convert` takes. Without a convention and a program the adapter's own convention is written;
    /// updates that are no sums (DoRA, OFT, IA3, …) need the reference; `allow_loss` leaves out what has no factors.
    pub convert: convert::Options,
    /// How ranks are chosen.
    pub rank: RankPolicy,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}
