//! What an object store ends with.

use super::{Error, LocationError};

/// What was wrong with a store or an object in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudError {
    /// This build speaks to no store.
    #[error(
        "`{location}` lies in an object store, and this build of lora-tool was made without the feature `cloud`"
    )]
    NotBuilt {
        /// What was asked for.
        location: String,
    },
    /// Nothing is there.
    #[error("`{location}`: nothing is there")]
    NotFound {
        /// What was asked for.
        location: String,
    },
    /// Something is there.
    #[error("`{location}` exists")]
    Exists {
        /// The output.
        location: String,
    },
    /// A location that cannot be read as one.
    #[error("`{location}`: {reason}")]
    BadLocation {
        /// What was asked for.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object whose name leads elsewhere as a path.
    #[error("`{location}` holds an object named `{name}`, which is no path below it")]
    BadName {
        /// What was asked for.
        location: String,
        /// The object.
        name: String,
    },
    /// The store refused or did not answer.
    #[error("`{location}`: {reason}")]
    Store {
        /// What was asked for.
        location: String,
        /// The store's words.
        reason: String,
    },
    /// The local files that stand for it could not be made.
    #[error("`{location}`: {reason}")]
    Local {
        /// What was asked for.
        location: String,
        /// The system's words.
        reason: String,
    },
}

/// What a store's words are about, and what to do then; the first that is found in them counts.
const KNOWN: [(&str, &str); 13] = [
    (
        "NoSuchBucket",
        "there is no such bucket: look at its spelling, the region (AWS_REGION) and AWS_ENDPOINT_URL",
    ),
    (
        "RequestTimeTooSkewed",
        "this machine's clock is off by more than the store allows: set it right (timedatectl)",
    ),
    ("InvalidAccessKeyId", "the store knows no such key: look at AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret is not that of the key: look at AWS_SECRET_ACCESS_KEY"),
    ("ExpiredToken", "the credentials have expired: get new ones"),
    ("AccessDenied", "the credentials may not do this to that bucket"),
    ("PermissionDenied", "the credentials may not do this to that bucket"),
    ("403", "the credentials may not do this to that bucket"),
    ("401", "the store wants credentials"),
    (
        "metadata",
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SKIP_SIGNATURE=true for a public bucket)",
    ),
    (
        "169.254.",
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_SKIP_SIGNATURE=true for a public bucket)",
    ),
    ("region", "set AWS_REGION to the bucket's region"),
    (
        "error sending request",
        "the store did not answer: look at the network, and at AWS_ENDPOINT_URL if it is set",
    ),
];

impl CloudError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> String {
        let text = match self {
            Self::NotBuilt { .. } => {
                "build with `--features cloud`, take a released binary, or copy it to a local disk first"
            }
            Self::NotFound { .. } => "look at the spelling of the bucket and of what follows it",
            Self::Exists { .. } => "name another place, or say --force to replace it",
            Self::BadLocation { .. } => {
                "it is written s3://bucket/path, gs://bucket/path, az://container/path or https://host/path"
            }
            Self::BadName { .. } => "name a folder without that object",
            Self::Store { reason, .. } => KNOWN
                .iter()
                .find(|(words, _)| reason.contains(words))
                .map_or("try again later; what was there before is as it was", |(_, hint)| hint),
            Self::Local { .. } => "free some space, or set TMPDIR to a directory with more of it",
        };
        text.to_owned()
    }
}

impl From<CloudError> for Error {
    fn from(error: CloudError) -> Self {
        LocationError::from(error).into()
    }
}
