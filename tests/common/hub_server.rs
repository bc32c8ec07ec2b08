//! A server that answers as the Hub does: the description of a revision, `HEAD` of a file with its hash, ranges of its
//! bytes. It can be told to fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// So many answers with bytes end in their middle.
    Cut(usize),
    /// So many answers are this status.
    Status(u16, usize),
    /// A byte differs from what the hash says.
    OtherBytes,
    /// Bytes are sent whole, whatever range is asked for.
    NoRanges,
    /// Without the token `right`, nothing is shown.
    Private,
    /// Connections are closed without an answer.
    Silent,
}

/// Name of a repository → its files.
type Repositories = BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>>;

struct State {
    repositories: Repositories,
    fault: Mutex<Fault>,
    asked: Mutex<Vec<String>>,
}

/// The server, for as long as the test runs.
pub struct HubServer {
    state: Arc<State>,
    port: u16,
}

impl HubServer {
    /// Of repositories of these directories.
    pub fn of(repositories: &[(&str, PathBuf)]) -> Self {
        let files = |(name, path): &(&str, PathBuf)| ((*name).to_owned(), super::files(path));
        let state = Arc::new(State {
            repositories: repositories.iter().map(files).collect(),
            fault: Mutex::new(Fault::Nothing),
            asked: Mutex::new(Vec::new()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || state.serve(&stream));
            }
        });
        Self { state, port }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn fail(&self, fault: Fault) {
        *self.state.fault.lock().expect("no test panicked") = fault;
    }

    /// Lines `METHOD PATH RANGE`, and forgets them.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.asked.lock().expect("no test panicked"))
    }
}

/// What a client asked for.
struct Request {
    method: String,
    path: String,
    range: Option<(usize, usize)>,
    token: Option<String>,
}

impl State {
    /// Answers requests of a connection until it is closed.
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader) {
            let range = request.range.map(|(from, to)| format!("{from}-{to}")).unwrap_or_default();
            let line = format!("{} {} {range}", request.method, request.path);
            self.asked.lock().expect("no test panicked").push(line);
            if self.answer(&request, stream).is_none() {
                return;
            }
        }
    }

    /// Nothing if the connection is closed.
    fn answer(&self, request: &Request, stream: &TcpStream) -> Option<()> {
        let fault = *self.fault.lock().expect("no test panicked");
        let refuse = |status: u16| {
            send(stream, &format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"), &[])
        };
        match fault {
            Fault::Status(status, left) if left > 0 => {
                *self.fault.lock().expect("no test panicked") = Fault::Status(status, left - 1);
                return refuse(status);
            }
            Fault::Silent => return None,
            Fault::Private if request.token.as_deref() != Some("Bearer right") => {
                return refuse(401);
            }
            _ => {}
        }
        let parts: Vec<&str> = request.path.trim_start_matches('/').splitn(5, '/').collect();
        let repository = |organisation: &str, name: &str| {
            self.repositories.get(&format!("{organisation}/{name}"))
        };
        match parts.as_slice() {
            ["api", "models", organisation, name, _] => {
                let Some(files) = repository(organisation, name) else { return refuse(404) };
                let siblings: Vec<_> = files
                    .keys()
                    .map(|file| serde_json::json!({"rfilename": file.to_str()}))
                    .collect();
                let text = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
                send(
                    stream,
                    &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len()),
                    text.as_bytes(),
                )
            }
            [organisation, name, "resolve", COMMIT, file] => {
                let files = repository(organisation, name)?;
                let Some(bytes) = files.get(&PathBuf::from(file)) else { return refuse(404) };
                if request.method == "HEAD" {
                    head(stream, bytes)
                } else {
                    self.send_bytes(fault, request, bytes, stream)
                }
            }
            _ => refuse(404),
        }
    }

    fn send_bytes(
        &self,
        fault: Fault,
        request: &Request,
        bytes: &[u8],
        stream: &TcpStream,
    ) -> Option<()> {
        let mut bytes = bytes.to_vec();
        if let (Fault::OtherBytes, Some(last)) = (fault, bytes.last_mut()) {
            *last ^= 1;
        }
        let (status, from, to) = match request.range {
            Some((from, to)) if fault != Fault::NoRanges => {
                ("206 Partial Content", from, bytes.len().min(to + 1))
            }
            _ => ("200 OK", 0, bytes.len()),
        };
        let part = &bytes[from..to];
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", part.len());
        match fault {
            Fault::Cut(left) if left > 0 && part.len() > 1 => {
                *self.fault.lock().expect("no test panicked") = Fault::Cut(left - 1);
                send(stream, &head, &part[..part.len() / 2]);
                stream.shutdown(std::net::Shutdown::Both).ok()?;
                None
            }
            _ => send(stream, &head, part),
        }
    }
}

/// The hash is the SHA-256 for what is large on the Hub, git's for the rest; here by the length's parity.
fn head(stream: &TcpStream, bytes: &[u8]) -> Option<()> {
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Repo-Commit: {COMMIT}\r\n",
        bytes.len()
    );
    let hash = match bytes.len() % 2 {
        0 => format!("{:x}", Sha256::digest(bytes)),
        _ => {
            let mut hash = sha1::Sha1::new();
            hash.update(format!("blob {}\0", bytes.len()));
            hash.update(bytes);
            format!("{:x}", hash.finalize())
        }
    };
    write!(head, "ETag: \"{hash}\"\r\n\r\n").expect("a text");
    send(stream, &head, &[])
}

fn send(mut stream: &TcpStream, head: &str, body: &[u8]) -> Option<()> {
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut request =
            Self { method: words.next()?, path: words.next()?, range: None, token: None };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                return Some(request);
            };
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                    request.range = Some((from.parse().ok()?, to.parse().ok()?));
                }
                "authorization" => request.token = Some(value.to_owned()),
                _ => {}
            }
        }
    }
}
