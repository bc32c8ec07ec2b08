//! What the Hub is asked: which files a revision has, what a file is, and some of its bytes.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use super::repository::{Repository, stays_below};
use crate::error::FetchError;
use crate::format::json;

type Fetched<T> = std::result::Result<T, FetchError>;

const ENDPOINT: &str = "https://huggingface.co";
/// Bytes of a repository's description, at most; a thousand shards have some hundred thousand.
const LONGEST_LISTING: u64 = 64 << 20;
const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(60);
/// For one piece of a file, so that a connection which stands still ends.
const PIECE: Duration = Duration::from_secs(600);
/// Tries that bring nothing, after which one gives up.
pub(super) const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(250);
/// Names that a repository had before.
const RENAMES: usize = 4;

/// A revision: the commit it names, and the paths of its files.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file, as its server announces it.
pub(super) struct Announced {
    /// The content's hash: SHA-256 of a large file, git's SHA-1 of a small one; the name of its blob.
    pub(super) etag: String,
    pub(super) bytes: u64,
}

/// A connection to the Hub or a server that answers like it.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    /// By `HF_ENDPOINT` and `HF_TOKEN`, or the token that `hf auth login` wrote.
    pub(super) fn of_environment() -> Self {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(PIECE))
            .user_agent(concat!("lora-tool/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let token = variable("HF_TOKEN").or_else(super::repository::stored_token);
        Self { agent, endpoint: endpoint.trim_end_matches('/').to_owned(), token }
    }

    /// The files of a revision.
    pub(super) fn listing(&self, repository: &Repository<'_>, revision: &str) -> Fetched<Listing> {
        let Repository { organisation, name, .. } = repository;
        let url = format!(
            "{}/api/models/{organisation}/{name}/revision/{}",
            self.endpoint,
            escaped(revision, false)
        );
        let answer = patiently(|| self.answered(&url, self.agent.get(&url)))?;
        let mut text = Vec::new();
        let read = answer.into_body().into_reader().take(LONGEST_LISTING).read_to_end(&mut text);
        read.map_err(|error| FetchError::Unreachable {
            url: url.clone(),
            reason: error.to_string(),
        })?;
        let bad =
            |reason: &str| FetchError::BadAnswer { url: url.clone(), reason: reason.to_owned() };
        let listing = json::object(&text).map_err(|_| bad("the answer is no JSON object"))?;
        let commit = listing.get("sha").and_then(Value::as_str);
        let commit = commit
            .filter(|commit| is_hash(commit))
            .ok_or_else(|| bad("the answer names no commit"))?;
        let siblings = listing.get("siblings").and_then(Value::as_array);
        let siblings = siblings.ok_or_else(|| bad("the answer lists no files"))?;
        let named = |entry: &Value| Some(entry.get("rfilename")?.as_str()?.to_owned());
        let files: Option<Vec<String>> = siblings.iter().map(named).collect();
        let files = files.ok_or_else(|| bad("the answer has a file without a name"))?;
        if let Some(outside) = files.iter().find(|file| !stays_below(file)) {
            return Err(bad(&format!("`{outside}` is no path below the repository")));
        }
        Ok(Listing { commit: commit.to_owned(), files })
    }

    /// Where a file of a commit is.
    pub(super) fn url(&self, repository: &Repository<'_>, commit: &str, file: &str) -> String {
        let Repository { organisation, name, .. } = repository;
        format!("{}/{organisation}/{name}/resolve/{commit}/{}", self.endpoint, escaped(file, true))
    }

    /// Length and hash of a file. The Hub says them before it sends one elsewhere for the bytes.
    ///
    /// A repository that was renamed is followed: the answer then leads elsewhere on the same server.
    pub(super) fn announced(&self, url: &str) -> Fetched<Announced> {
        let mut place = url.to_owned();
        for _ in 0..RENAMES {
            let answer = patiently(|| {
                let request = self.agent.head(&place).header("accept-encoding", "identity");
                let request =
                    request.config().max_redirects(0).max_redirects_will_error(false).build();
                self.answered(&place, request)
            })?;
            match text(answer.headers(), "location").filter(|location| location.starts_with('/')) {
                Some(location) => place = format!("{}{location}", self.origin()),
                None => return Self::announcement(url, answer.headers()),
            }
        }
        Err(FetchError::BadAnswer {
            url: url.to_owned(),
            reason: "it leads from one name to the next".to_owned(),
        })
    }

    /// Scheme and host of the endpoint.
    fn origin(&self) -> &str {
        let host = self.endpoint.find("://").map_or(0, |at| at + 3);
        let end = self.endpoint[host..].find('/').map_or(self.endpoint.len(), |at| host + at);
        &self.endpoint[..end]
    }

    fn announcement(url: &str, headers: &HeaderMap) -> Fetched<Announced> {
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        let bytes = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        match (etag.filter(|etag| is_hash(etag)), bytes) {
            (Some(etag), Some(bytes)) => Ok(Announced { etag, bytes }),
            (None, _) => Err(FetchError::BadAnswer {
                url: url.to_owned(),
                reason: "the answer has no ETag that is a content's hash".to_owned(),
            }),
            (_, None) => Err(FetchError::BadAnswer {
                url: url.to_owned(),
                reason: "the answer does not say the length".to_owned(),
            }),
        }
    }

    /// Bytes `from..to` of a file, as they come, and the place of the first: 0 where the server sends it whole.
    pub(super) fn bytes(&self, url: &str, from: u64, to: u64) -> Fetched<(u64, impl Read + use<>)> {
        let request = self.agent.get(url).header("accept-encoding", "identity");
        let request = request.header("range", format!("bytes={from}-{}", to.saturating_sub(1)));
        let answer = self.answered(url, request)?;
        let first = if answer.status().as_u16() == 206 { from } else { 0 };
        Ok((first, answer.into_body().into_reader()))
    }

    /// The answer, if it is no refusal. The token goes to the endpoint alone, never where it redirects to.
    fn answered<B: Ask>(&self, url: &str, request: B) -> Fetched<Response<Body>> {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let answer = request.ask(authorization.as_deref());
        let answer = answer.map_err(|error| FetchError::Unreachable {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        let status = answer.status().as_u16();
        match status {
            200..400 => Ok(answer),
            _ => Err(FetchError::Status {
                url: url.to_owned(),
                status,
                with_token: self.token.is_some(),
            }),
        }
    }
}

/// Asks again, after a pause, while that may help.
fn patiently<T>(ask: impl Fn() -> Fetched<T>) -> Fetched<T> {
    for failed in 1..TRIES {
        match ask() {
            Err(error) if !is_final(&error) => sleep(pause(failed)),
            answer => return answer,
        }
    }
    ask()
}

/// Before a try, after so many that failed: twice as long each time.
pub(super) fn pause(failed: u32) -> Duration {
    PAUSE * 2_u32.pow(failed.saturating_sub(1))
}

/// Whether trying again would not help.
pub(super) fn is_final(error: &FetchError) -> bool {
    match error {
        FetchError::Status { status, .. } => !matches!(status, 408 | 429 | 500..),
        FetchError::Unreachable { .. } => false,
        _ => true,
    }
}

/// A request without a body.
trait Ask {
    fn ask(self, authorization: Option<&str>) -> std::result::Result<Response<Body>, ureq::Error>;
}

impl Ask for ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    fn ask(self, authorization: Option<&str>) -> std::result::Result<Response<Body>, ureq::Error> {
        match authorization {
            Some(value) => self.header("authorization", value).call(),
            None => self.call(),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// 40 or 64 hexadecimal digits.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A path in a URL; a revision's slashes are escaped too, a file's are not.
fn escaped(text: &str, slashes: bool) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (slashes && byte == b'/')
    };
    let escape =
        |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}
