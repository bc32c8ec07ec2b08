//! What can go wrong with weights that fit their layer both ways round.

/// See [`ErrorKind::Orientation`](super::ErrorKind::Orientation).
#[derive(Debug, thiserror::Error)]
#[error(
    "its sizes do not tell whether it is stored outputs × inputs or inputs × outputs, and neither do the \
     layers beside it nor the adapter's config"
)]
pub struct OrientationError {
    /// The base tensor's name, as a regular expression.
    pub tensor: String,
}

impl OrientationError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> String {
        let tensor = &self.tensor;
        format!(
            "say it: --orientation '{tensor}=out-in' for an ordinary Linear layer, \
             '{tensor}=in-out' for GPT-2's Conv1D"
        )
    }
}
