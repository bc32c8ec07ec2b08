//! From two paths to a report.

use std::path::Path;

use super::report::{Compared, Options, Report};
use super::{adapters, checkpoints};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, PairError, Result};
use crate::ops::{Progress, thread_pool};
use crate::weight::open_reference;

/// Relative difference that rounding of f32 factors explains.
const ROUNDING: f64 = 1e-6;

/// Compares A and B.
///
/// # Errors
/// If either cannot be read, or one is an adapter and the other is not.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let pool = thread_pool(options.threads)?;
    let opened = (adapter(&options.a, &options.open)?, adapter(&options.b, &options.open)?);
    let tolerance = |own: f64| options.tolerance.unwrap_or(own);
    pool.install(|| match opened {
        (Some(a), Some(b)) => adapters::compare(options, [a, b], tolerance(ROUNDING), progress),
        (None, None) => {
            let a = open_reference(&options.a, options.open.access)?;
            let b = open_reference(&options.b, options.open.access)?;
            checkpoints::compare(Compared::Checkpoints, &a, &b, tolerance(0.0), progress)
        }
        (first, _) => {
            let (adapter, model) =
                if first.is_some() { (&options.a, &options.b) } else { (&options.b, &options.a) };
            let model = model.clone();
            Err(PairError::AdapterAndModel { model }).in_file(adapter)
        }
    })
}

/// An adapter, if that is what the path is.
fn adapter(path: &Path, open: &OpenOptions) -> Result<Option<Adapter>> {
    match Adapter::open(path, open) {
        Ok(adapter) => Ok(Some(adapter)),
        Err(error) => match error.kind() {
            ErrorKind::UnknownKeys { .. } | ErrorKind::NoAdapter { .. } => Ok(None),
            _ => Err(error),
        },
    }
}
