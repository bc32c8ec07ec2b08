//! The one thread pool of a verb.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{ErrorKind, Result};

/// Threads that compute; one a core for 0.
///
/// # Errors
/// [`ErrorKind::Threads`], if the system does not start them.
pub(crate) fn thread_pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|error| ErrorKind::Threads(error.to_string()).into())
}
