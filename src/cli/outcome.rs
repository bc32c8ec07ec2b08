//! What comes of running a verb.

use serde::Serialize;

/// What a verb answers, beside its report.
pub(crate) enum Answer {
    /// Done, or yes.
    Yes,
    /// The answer is no.
    No,
    /// Nobody knows.
    Unknown,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Exit code of what could not be done.
pub(crate) const FAILED: u8 = 2;

/// What comes of running a verb.
pub(crate) type Outcome = Result<Answer, Failure>;

/// What can keep a verb from answering.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's error.
    Tool(lora_tool::Error),
    /// Standard output would not take the result.
    Output(std::io::Error),
}

impl Failure {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// What `--json` prints where there is no report.
#[derive(Serialize)]
pub(crate) struct Said {
    /// What went wrong, with its file and tensor, as standard error has it.
    error: String,
    /// What to do about it.
    hint: Option<String>,
    /// The file it was found in.
    file: Option<String>,
    /// The tensor or module it was found in.
    tensor: Option<String>,
    /// The exit code that goes with it.
    exit_code: u8,
}

impl Said {
    /// A fault of no file: of the command line, for one.
    pub(crate) fn new(error: String, hint: Option<String>) -> Self {
        Self { error, hint, file: None, tensor: None, exit_code: FAILED }
    }
}

impl From<&lora_tool::Error> for Said {
    fn from(error: &lora_tool::Error) -> Self {
        Self {
            file: error.file().map(|path| path.display().to_string()),
            tensor: error.tensor().map(str::to_owned),
            ..Self::new(error.to_string(), error.hint())
        }
    }
}

impl From<lora_tool::Error> for Failure {
    fn from(error: lora_tool::Error) -> Self {
        Self::Tool(error)
    }
}

impl From<lora_tool::ErrorKind> for Failure {
    fn from(kind: lora_tool::ErrorKind) -> Self {
        Self::Tool(kind.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}
