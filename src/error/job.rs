//! What can go wrong where several machines share work.

/// See [`ErrorKind::Job`](super::ErrorKind::Job).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// Something else, or damaged.
    #[error("it is no plan of shared work: {0}")]
    NoPlan(String),
    /// A plan in a form that this version does not know.
    #[error("the plan has schema {found}, and this version reads schema {known}")]
    Schema {
        /// The plan's.
        found: u64,
        /// This version's.
        known: u64,
    },
    /// A plan of another version, whose bytes may be others.
    #[error("the plan was made by lora-tool {found}, and this is {own}")]
    Version {
        /// The plan's.
        found: String,
        /// This program's.
        own: &'static str,
    },
    /// A plan that is not as it was written.
    #[error("the plan was edited, or cut: its digest is {digest} and should be {expected}")]
    Edited {
        /// What it is.
        digest: String,
        /// What stands in it.
        expected: String,
    },
    /// An input that is not as it was when the plan was made.
    #[error("it is not as it was when the plan was made: {what}")]
    Input {
        /// What is found, and what was.
        what: String,
    },
    /// Inputs and options that make another plan.
    #[error("planned again, it is other work: its digest is {digest}, and the plan's {expected}")]
    OtherPlan {
        /// What it is.
        digest: String,
        /// What stands in the plan.
        expected: String,
    },
    /// A directory in which something else is made.
    #[error("something else is being made there")]
    OtherJob,
    /// An output that was not to be replaced.
    #[error("the output is there already, from a commit of this plan or from another run")]
    Exists,
    /// Nothing to put in place.
    #[error("{}", match committed {
        true => "nothing of this plan waits to be committed, and the output is there: it was committed already",
        false => "no worker has begun on this plan",
    })]
    Nothing {
        /// Whether the output is there.
        committed: bool,
    },
    /// Parts that are not there, or not as they were made.
    #[error("{}", unfinished(missing, altered, *parts))]
    Unfinished {
        /// Those that no worker has finished.
        missing: Vec<String>,
        /// Those that are not as they were finished.
        altered: Vec<String>,
        /// How many there are in all.
        parts: usize,
    },
    /// A worker that does not know which part is its own.
    #[error("which part of the work is this worker's?")]
    NoPart,
    /// A part that there is not.
    #[error("`{0}` is no part of a whole")]
    BadPart(String),
}

/// Which parts cannot go out, in a line.
fn unfinished(missing: &[String], altered: &[String], parts: usize) -> String {
    let list = |names: &[String], what: &str| match names.len() {
        0 => None,
        1 => Some(format!("1 of {parts} parts is {what}: {}", names.join(", "))),
        count => Some(format!("{count} of {parts} parts are {what}: {}", names.join(", "))),
    };
    let lists = [list(missing, "missing"), list(altered, "not as it was made")];
    lists.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

impl JobError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NoPlan(_) | Self::Edited { .. } => {
                "give the file that `--plan FILE` wrote, as it was written"
            }
            Self::Schema { .. } | Self::Version { .. } => {
                "let one version plan, work and commit: the bytes may differ between two"
            }
            Self::Input { .. } | Self::OtherPlan { .. } => {
                "put back what was planned with, or plan again: nothing was written"
            }
            Self::OtherJob => {
                "commit that one first, choose another output, or remove the directory if nobody works in it"
            }
            Self::Exists | Self::Nothing { committed: true } => {
                "to make it again, plan it again with --force"
            }
            Self::Nothing { committed: false } => {
                "run `lora-tool work PLAN --shard K/N` for every K from 1 to N, in the same directory"
            }
            Self::Unfinished { .. } => {
                "run `lora-tool work PLAN --shard K/N` again for them: what is whole is not made twice"
            }
            Self::NoPart => {
                "--shard 1/1 makes all of it, --shard K/N the K-th of N parts; Slurm's arrays and Kubernetes' indexed \
                 jobs (with JOB_COMPLETIONS set) say it in the environment"
            }
            Self::BadPart(_) => "K/N, with K from 1 to N, such as --shard 3/16",
        }
    }
}
