//! What comes of running a verb.

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
