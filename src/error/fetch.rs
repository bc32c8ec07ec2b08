//! What a download from the Hub ends with.

/// Why a repository could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// This build speaks no HTTP.
    #[error("this build of lora-tool downloads nothing: it was made without the feature `hub`")]
    NotBuilt {
        /// What downloads it instead.
        command: String,
    },
    /// The server did not answer, or the connection broke again and again.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the connection ended with.
        reason: String,
    },
    /// The server refused.
    #[error("{url}: the server answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP's code.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// An answer that is none of the Hub's.
    #[error("{url}: {reason}")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What came is not what was announced.
    #[error("{url}: {bytes} bytes came with the hash {found}, and the server announced {expected}")]
    WrongHash {
        /// What was asked for.
        url: String,
        /// Bytes that came.
        bytes: u64,
        /// The ETag, which is the content's hash.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// The server ended each answer before its end.
    #[error("{url}: {found} of {expected} bytes came, and then nothing more")]
    Cut {
        /// What was asked for.
        url: String,
        /// The announced length.
        expected: u64,
        /// What came, which is kept for the next try.
        found: u64,
    },
    /// The cache could not be written.
    #[error("{file}: {reason}")]
    Cache {
        /// The file of the cache.
        file: String,
        /// The system's words.
        reason: String,
    },
}

impl FetchError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> String {
        let text = match self {
            Self::NotBuilt { command } => return format!("fetch it first: {command}"),
            Self::Unreachable { .. } => {
                "look at the network, and at HF_ENDPOINT if it is set; what came is kept, and the same command goes on from there"
            }
            Self::Status { status: 401 | 403, with_token: false, .. } => {
                "it is private, gated, or not there; set HF_TOKEN to a token that may read it (`hf auth login` writes one)"
            }
            Self::Status { status: 401 | 403, .. } => {
                "the token may not read it: accept the model's terms on its page, or use another token"
            }
            Self::Status { status: 404, .. } => {
                "look at the spelling of the repository, the revision and the file; a local path has to exist"
            }
            Self::Status { .. } | Self::BadAnswer { .. } => {
                "try again later, or look at HF_ENDPOINT if it is set"
            }
            Self::WrongHash { .. } => {
                "the bytes were thrown away; try again, without a proxy that changes files"
            }
            Self::Cut { .. } => "what came is kept; the same command goes on from there",
            Self::Cache { .. } => "free some space, or name another cache by HF_HUB_CACHE",
        };
        text.to_owned()
    }
}
