//! A plan as a file that workers read: what was asked, what it is made from, what will be made, and who makes which
//! part.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::balance::balance;
use super::identity::{self, InputFile};
use super::locations;
use super::shared::{PartOf, Parts, Shared, ToShare};
use super::worker_part::WorkerPart;
use crate::error::{Error, ErrorKind, JobError, Locate, Result};
use crate::format::Staging;
use crate::format::access::read_bounded;
use crate::format::checkpoint::not_found;
use crate::format::hash;
use crate::format::remote::as_written;
use crate::ops::thread_pool;

/// Of the form of the file.
const SCHEMA: u64 = 2;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest plan that is read; that of a merge of a thousand shards has some tens of MB.
const LONGEST: u64 = 1 << 30;

/// Work for several machines, as it is written.
#[derive(Serialize)]
#[serde(bound = "")]
struct Document<'a, S: Shared> {
    /// Of the form of the file.
    schema: u64,
    /// The version that made it, which has to be that of all workers.
    version: &'static str,
    /// The verb.
    kind: &'static str,
    /// The SHA-256 of the options and the plan.
    digest: String,
    /// Places in stores that stand in what follows: of inputs,
    locations: Vec<String>,
    /// and of the output.
    destinations: Vec<String>,
    /// What was asked; paths are as the user gave them.
    options: &'a S,
    /// What it is made from.
    inputs: &'a [InputFile],
    /// For how many workers it was planned, if that was said.
    workers: Option<usize>,
    /// What is to be made, by whom.
    parts: &'a [JobPart],
    /// What will be made.
    plan: &'a S::Plan,
}

/// What says whether a document can be read, and as what.
#[derive(Deserialize)]
struct Head {
    schema: u64,
    version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    locations: Vec<String>,
    #[serde(default)]
    destinations: Vec<String>,
}

/// Work for several machines, as it is read.
#[derive(Deserialize)]
#[serde(bound = "")]
pub(in crate::ops) struct Job<S: Shared> {
    digest: String,
    options: S,
    inputs: Vec<InputFile>,
    plan: S::Plan,
}

/// One part of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPart {
    /// A shard by its path below the output, a tensor, an item.
    pub name: String,
    /// Bytes by which the parts are shared out.
    pub bytes: u64,
    /// The worker who makes it, from 1, if it was planned for so many.
    pub worker: Option<usize>,
}

/// What was written down.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Written {
    /// The verb.
    pub kind: &'static str,
    /// The file.
    pub plan: PathBuf,
    /// Where the result will be.
    pub output: PathBuf,
    /// Bytes of all parts.
    pub bytes: u64,
    /// Parts to be made.
    pub parts: usize,
    /// Bytes of each worker's parts, if it was planned for so many.
    pub workers: Vec<u64>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Writes a plan down for others to work on.
///
/// # Errors
/// If there is nobody to work, or the file cannot be written.
pub(in crate::ops) fn write<S: Shared>(
    to_share: ToShare<S>,
    file: &Path,
    workers: Option<usize>,
) -> Result<Written> {
    if workers == Some(0) {
        return Err(ErrorKind::BadOption("--workers 0: nobody would work".to_owned()).into());
    }
    let ToShare { options, inputs, open, output, warnings } = to_share;
    let all = open.parts();
    let sizes: Vec<u64> = all.iter().map(|part| part.bytes).collect();
    let worker_of = workers.map(|workers| balance(&sizes, workers));
    let part = |(at, PartOf { name, bytes }): (usize, PartOf)| JobPart {
        name,
        bytes,
        worker: worker_of.as_ref().and_then(|all| all.get(at)).map(|worker| worker + 1),
    };
    let parts: Vec<JobPart> = all.into_iter().enumerate().map(part).collect();
    let places = locations::of(inputs.iter().map(|input| input.path.as_path()));
    let (text, bytes) = (digested(&options, open.plan())?, sizes.iter().sum());
    let force = options.force();
    let document = Document::<S> {
        schema: SCHEMA,
        version: VERSION,
        kind: S::KIND,
        digest: hash::of_bytes(text.as_bytes()),
        locations: places,
        destinations: locations::of(std::iter::once(output.as_path())),
        options: &options,
        inputs: &inputs,
        workers,
        parts: &parts,
        plan: open.plan(),
    };
    let mut text = serde_json::to_string_pretty(&document).map_err(std::io::Error::other)?;
    text.push('\n');
    let staging = Staging::file(file, force)?;
    staging.write("", as_written(&text).as_bytes())?;
    staging.commit()?;
    Ok(Written {
        kind: S::KIND,
        plan: file.to_path_buf(),
        output,
        bytes,
        parts: parts.len(),
        workers: loads(&parts, workers),
        warnings,
    })
}

/// Bytes of each worker's parts.
fn loads(parts: &[JobPart], workers: Option<usize>) -> Vec<u64> {
    let mut loads = vec![0; workers.unwrap_or(0)];
    for part in parts {
        if let Some(load) = part.worker.and_then(|worker| loads.get_mut(worker - 1)) {
            *load += part.bytes;
        }
    }
    loads
}

/// What the digest is of: the options and the plan, as every machine would write them down.
fn digested<S: Shared>(options: &S, plan: &S::Plan) -> Result<String> {
    let text = serde_json::to_string(&(options, plan)).map_err(std::io::Error::other)?;
    Ok(as_written(&text).into_owned())
}

/// The text of a plan that this version reads.
pub(in crate::ops) struct Readable {
    text: String,
    /// The verb.
    pub(in crate::ops) kind: String,
}

fn no_plan(error: &dyn std::fmt::Display) -> JobError {
    JobError::NoPlan(error.to_string())
}

impl Readable {
    /// Reads a plan's head.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub(in crate::ops) fn read(file: &Path) -> Result<Self> {
        let text = read_bounded(file, LONGEST).map_err(not_found);
        Self::parse(text.in_file(file)?).in_file(file)
    }

    fn parse(text: Vec<u8>) -> Result<Self> {
        let text = String::from_utf8(text).map_err(|error| no_plan(&error))?;
        let head: Head = serde_json::from_str(&text).map_err(|error| no_plan(&error))?;
        if head.schema != SCHEMA {
            return Err(JobError::Schema { found: head.schema, known: SCHEMA }.into());
        }
        if head.version != VERSION {
            return Err(JobError::Version { found: head.version, own: VERSION }.into());
        }
        let text = locations::put_in(text, &head.locations, &head.destinations)?;
        Ok(Self { text, kind: head.kind })
    }

    /// The whole of it.
    ///
    /// # Errors
    /// If it is not as it was written.
    pub(in crate::ops) fn job<S: Shared>(&self) -> Result<Job<S>> {
        let job: Job<S> = serde_json::from_str(&self.text).map_err(|error| no_plan(&error))?;
        let digest = hash::of_bytes(digested(&job.options, &job.plan)?.as_bytes());
        if digest != job.digest {
            return Err(JobError::Edited { digest, expected: job.digest }.into());
        }
        Ok(job)
    }
}

impl<S: Shared> Job<S> {
    /// Opens the inputs and plans again from their headers: what is made then is what was planned, or nothing. The
    /// plan, and its digest.
    ///
    /// # Errors
    /// An input that is not as it was; whatever planning says; another plan.
    pub(in crate::ops) fn open(self, file: &Path, threads: usize) -> Result<Open<S>> {
        thread_pool(threads)?.install(|| identity::check(&self.inputs))?;
        let Self { options, plan, digest: expected, .. } = self;
        let open = options.open(plan, file)?;
        let digest = hash::of_bytes(digested(&options, open.plan())?.as_bytes());
        if digest != expected {
            return Err(JobError::OtherPlan { digest, expected }.into());
        }
        Ok(Open { parts: open, digest, force: options.force() })
    }
}

/// A plan that was read, its inputs open.
pub(in crate::ops) struct Open<S: Shared> {
    /// What is to be made.
    pub(in crate::ops) parts: S::Open,
    /// What it is known by.
    pub(in crate::ops) digest: String,
    /// Whether an output that is there may be replaced.
    pub(in crate::ops) force: bool,
}

impl<S: Shared> Open<S> {
    /// The numbers of one worker's parts.
    pub(in crate::ops) fn numbers_of(&self, part: WorkerPart) -> Vec<usize> {
        let bytes: Vec<u64> = self.parts.parts().iter().map(|part| part.bytes).collect();
        let worker_of = balance(&bytes, part.of).into_iter().enumerate();
        worker_of.filter(|(_, worker)| worker + 1 == part.number).map(|(at, _)| at).collect()
    }
}

/// That no verb shares out work of this kind.
pub(in crate::ops) fn unknown_kind(kind: &str) -> Error {
    no_plan(&format_args!("there is no work of the kind `{kind}`")).into()
}
