//! A place in an object store, and how it is asked.

use std::future::Future;
use std::io;
use std::path::Path as LocalPath;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;
use url::Url;

use crate::error::CloudError;

/// Requests are tried again, after pauses that grow, so often and so long.
const RETRIES: usize = 8;
const RETRY_FOR: Duration = Duration::from_secs(120);
/// For one request; ranges and parts are bounded, so that one which takes longer stands still.
const REQUEST: Duration = Duration::from_secs(120);
/// Threads that talk to the store, beside those that compute.
const TALKERS: usize = 2;

/// A place in a store: all objects below a path, or the one at it.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// As the user wrote it.
    pub(super) location: String,
    /// Whether the objects below a path can be listed; a web server has no such request.
    pub(super) lists: bool,
    /// Whether a copy within the store is there when the store has answered; Azure may go on copying.
    pub(super) copies: bool,
}

impl Bucket {
    /// Of a URL, with credentials and endpoints as the environment says them (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub(super) fn open(location: &str) -> Result<Self, CloudError> {
        let bad =
            |reason: String| CloudError::BadLocation { location: location.to_owned(), reason };
        let url = Url::parse(location).map_err(|error| bad(error.to_string()))?;
        let path = Path::from_url_path(url.path()).map_err(|error| bad(error.to_string()))?;
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
            ..RetryConfig::default()
        };
        // Whether an endpoint is without encryption, as one on this machine is, is said by who names it.
        let plain_http = url.scheme() != "https";
        let client = ClientOptions::new().with_timeout(REQUEST).with_allow_http(plain_http);
        let store: object_store::Result<Arc<dyn ObjectStore>> = match url.scheme() {
            "s3" => AmazonS3Builder::from_env()
                .with_url(location)
                .with_retry(retry)
                .with_client_options(client)
                .build()
                .map(|store| Arc::new(store) as _),
            "gs" => GoogleCloudStorageBuilder::from_env()
                .with_url(location)
                .with_retry(retry)
                .with_client_options(client)
                .build()
                .map(|store| Arc::new(store) as _),
            "az" => MicrosoftAzureBuilder::from_env()
                .with_url(location)
                .with_retry(retry)
                .with_client_options(client)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => HttpBuilder::new()
                .with_url(url.origin().ascii_serialization())
                .with_retry(retry)
                .with_client_options(client)
                .build()
                .map(|store| Arc::new(store) as _),
        };
        let lists = !matches!(url.scheme(), "http" | "https");
        let store = store.map_err(|error| bad(error.to_string()))?;
        let copies = url.scheme() != "az";
        Ok(Self { store, path, location: location.to_owned(), lists, copies })
    }

    /// The last word of the path, by which files made of it are known; the bucket's name at its root.
    pub(super) fn name(&self) -> String {
        let after_scheme = self.location.split_once("://").map_or("", |(_, rest)| rest);
        let words = after_scheme.trim_end_matches('/').rsplit('/');
        words
            .map(str::to_owned)
            .next()
            .filter(|word| !word.is_empty())
            .unwrap_or_else(|| "store".to_owned())
    }

    /// A store's error, in the words of this place.
    pub(super) fn error(&self, error: &object_store::Error) -> CloudError {
        let location = self.location.clone();
        match error {
            object_store::Error::NotFound { .. } if !error.to_string().contains("NoSuchBucket") => {
                CloudError::NotFound { location }
            }
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => CloudError::Exists { location },
            _ => CloudError::Store { location, reason: reason(error) },
        }
    }

    /// What the local disk could not do.
    pub(super) fn local(&self, path: &LocalPath, error: &io::Error) -> CloudError {
        let reason = format!("{}: {error}", path.display());
        CloudError::Local { location: self.location.clone(), reason }
    }
}

/// An error with all it was caused by, each once: the last is what the store or the system said.
pub(super) fn reason(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What talks to stores.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(TALKERS).enable_all().build()
    });
    runtime.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

/// Waits for what is asked of a store.
pub(super) fn wait<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(runtime()?.block_on(future))
}

/// Does something that waits for a store beside what else is done.
pub(super) fn aside(task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Whether it is done is said by what it does.
    drop(runtime()?.spawn_blocking(task));
    Ok(())
}
