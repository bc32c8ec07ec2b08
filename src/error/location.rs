//! What can be wrong with where an input is said to lie.

use std::path::PathBuf;

use super::{CloudError, FetchError};

/// See [`ErrorKind::Location`](super::ErrorKind::Location).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// A repository of the Hub that the local cache does not hold.
    #[error("`{location}` is not in the local Hub cache ({})", searched(.roots))]
    NotCached {
        /// What was asked for.
        location: String,
        /// The caches that were looked into.
        roots: Vec<PathBuf>,
        /// What puts it there.
        command: String,
    },
    /// A repository that could not be downloaded.
    #[error("`{location}` could not be fetched: {problem}")]
    Fetch {
        /// What was asked for.
        location: String,
        /// What the download ended with.
        problem: FetchError,
    },
    /// A repository that has no such folder or file.
    #[error("`{location}` was fetched, and there is nothing at that path")]
    NothingBelow {
        /// What was asked for.
        location: String,
    },
    /// A place in an object store.
    #[error(transparent)]
    Store(#[from] CloudError),
    /// What follows `hf://` names no repository.
    #[error("`{location}` names no repository of the Hub")]
    BadName {
        /// What was asked for.
        location: String,
    },
    /// A scheme that nobody knows.
    #[error("`{location}` has the unknown scheme {scheme}://")]
    UnknownScheme {
        /// What was asked for.
        location: String,
        /// Its scheme.
        scheme: String,
    },
}

fn searched(roots: &[PathBuf]) -> String {
    match roots {
        [] => "none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME says where it is".to_owned(),
        roots => roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

impl LocationError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::NotCached { command, .. } => format!("fetch it first: {command}"),
            Self::Fetch { problem, .. } => problem.hint(),
            Self::Store(error) => error.hint(),
            Self::NothingBelow { .. } => "look at the repository's files for the path".to_owned(),
            Self::BadName { .. } => {
                "it is written hf://org/name, hf://org/name@revision or hf://org/name/folder"
                    .to_owned()
            }
            Self::UnknownScheme { .. } => {
                "an input is a path, org/name of the Hub, or begins with hf://, s3://, gs://, az:// or https://".to_owned()
            }
        }
    }
}
