//! The plan of a merge as a file that workers read: what was asked, what it is made from, what will be made, and who
//! makes which shard.

use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use super::balance::balance;
use super::identity::{self, InputFile};
use super::worker_part::WorkerPart;
use crate::error::{Error, ErrorKind, JobError, Locate, Result};
use crate::format::Staging;
use crate::format::access::read_bounded;
use crate::format::hash;
use crate::format::remote::is_remote;
use crate::ops::merge::open::Merge;
use crate::ops::merge::plan::layout::OutputShard;
use crate::ops::merge::plan::options::Options;
use crate::ops::merge::plan::origin;
use crate::ops::merge::plan::output::Plan;
use crate::ops::merge::trial::prepare;
use crate::ops::shared::left_over;
use crate::ops::{check_output, thread_pool};

/// Of the form of the file.
const SCHEMA: u64 = 1;
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest plan that is read; that of a thousand shards has some tens of MB.
const LONGEST: u64 = 1 << 30;

/// A merge for several machines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// Of the form of the file.
    pub schema: u64,
    /// The version that made it, which has to be that of all workers.
    pub version: String,
    /// The SHA-256 of the plan.
    pub digest: String,
    /// What was asked; paths are as the user gave them.
    pub options: Options,
    /// What it is made from.
    pub inputs: Vec<InputFile>,
    /// For how many workers it was planned, if that was said.
    pub workers: Option<usize>,
    /// What is to be made, by whom.
    pub shards: Vec<JobShard>,
    /// What will be made.
    pub plan: Plan,
}

/// One shard of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobShard {
    /// Its path below the output.
    pub file: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// The part that it is in, from 1, if it was planned for so many workers.
    pub worker: Option<usize>,
}

/// What was written down.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct JobReport {
    /// The file.
    pub plan: PathBuf,
    /// Where the result will be.
    pub output: PathBuf,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Shards to be made.
    pub shards: usize,
    /// Bytes of each worker's shards, if it was planned for so many.
    pub workers: Vec<u64>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

impl Merge {
    /// Writes the plan down for others to work on.
    ///
    /// # Errors
    /// If the output is one file, or the options ask for what only one process can do; if an input cannot be read, or
    /// the file not be written.
    pub fn write_plan(mut self, file: &Path, workers: Option<usize>) -> Result<JobReport> {
        let refuse = |reason: &str| Err(ErrorKind::BadOption(reason.to_owned()).into());
        let Options { verify, resume, .. } = self.options;
        if self.plan.one_file {
            return refuse("--plan needs an output of several files; give a directory");
        }
        if verify || resume || self.options.receipt.is_some() {
            return refuse(
                "--plan goes without --verify, --receipt and --resume: workers can always be run again",
            );
        }
        if self.options.residual.is_some() {
            return refuse(
                "--plan goes without --residual, for which one process must see all weights",
            );
        }
        let mut paths = self.options.adapters.iter().map(|adapter| &adapter.path);
        if paths.any(|path| is_remote(path))
            || is_remote(&self.options.base)
            || self.options.quantize_like.as_deref().is_some_and(is_remote)
            || is_remote(&self.plan.output)
        {
            return refuse(
                "--plan takes paths that all workers see: mount the store, or copy from it first",
            );
        }
        if workers == Some(0) {
            return refuse("--workers 0: nobody would work");
        }
        let pool = thread_pool(self.options.threads)?;
        let warnings = self.plan.warnings.clone();
        // What lies beside the output now is no part of the plan.
        let left_over = left_over::warnings(&self.plan.output);
        self.plan.warnings.retain(|warning| !left_over.contains(warning));
        // Workers do not predict.
        self.plan.prediction = None;
        self.plan.origin = pool.install(|| origin::metadata(&self.plan, &self.inputs))?;
        let inputs = pool.install(|| identity::identify(&self.plan, &self.inputs))?;
        let Self { plan, options, .. } = self;
        let bytes: Vec<u64> = plan.shards.iter().map(OutputShard::bytes).collect();
        let worker_of = workers.map(|workers| balance(&bytes, workers));
        let shard = |(at, shard): (usize, &OutputShard)| JobShard {
            file: shard.relative.clone(),
            bytes: shard.bytes(),
            worker: worker_of.as_ref().and_then(|all| all.get(at)).map(|worker| worker + 1),
        };
        let job = Job {
            schema: SCHEMA,
            version: VERSION.to_owned(),
            digest: digest(&plan)?,
            options: Options { threads: 0, block_rows: None, ..options },
            inputs,
            workers,
            shards: plan.shards.iter().enumerate().map(shard).collect(),
            plan,
        };
        let mut text = serde_json::to_vec_pretty(&job).map_err(std::io::Error::other)?;
        text.push(b'\n');
        let staging = Staging::file(file, job.options.force)?;
        staging.write("", &text)?;
        staging.commit()?;
        Ok(JobReport {
            plan: file.to_path_buf(),
            output: job.plan.output.clone(),
            bytes: job.plan.bytes,
            shards: job.shards.len(),
            workers: loads(&job.shards, workers),
            warnings,
        })
    }
}

/// Bytes of each worker's shards.
fn loads(shards: &[JobShard], workers: Option<usize>) -> Vec<u64> {
    let mut loads = vec![0; workers.unwrap_or(0)];
    for shard in shards {
        if let Some(load) = shard.worker.and_then(|worker| loads.get_mut(worker - 1)) {
            *load += shard.bytes;
        }
    }
    loads
}

/// The SHA-256 of a plan as it is written down.
fn digest(plan: &Plan) -> Result<String> {
    let text = serde_json::to_vec(plan).map_err(std::io::Error::other)?;
    Ok(hash::of_bytes(&text))
}

impl Job {
    /// Reads a plan.
    ///
    /// # Errors
    /// If it is none, of another version, or not as it was written.
    pub(in crate::ops) fn read(file: &Path) -> Result<Self> {
        let text = read_bounded(file, LONGEST).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io(error),
        });
        Self::parse(&text.in_file(file)?).in_file(file)
    }

    fn parse(text: &[u8]) -> Result<Self> {
        /// What says whether the rest can be read.
        #[derive(Deserialize)]
        struct Head {
            schema: u64,
            version: String,
        }
        let no_plan = |error: serde_json::Error| JobError::NoPlan(error.to_string());
        let Head { schema, version } = serde_json::from_slice(text).map_err(no_plan)?;
        if schema != SCHEMA {
            return Err(JobError::Schema { found: schema, known: SCHEMA }.into());
        }
        if version != VERSION {
            return Err(JobError::Version { found: version, own: VERSION }.into());
        }
        let job: Self = serde_json::from_slice(text).map_err(no_plan)?;
        let (digest, expected) = (digest(&job.plan)?, job.digest.clone());
        if digest != expected {
            return Err(JobError::Edited { digest, expected }.into());
        }
        Ok(job)
    }

    /// Opens the inputs and plans again from their headers: what is made then is what was planned, or nothing.
    ///
    /// # Errors
    /// An input that is not as it was; whatever planning says; another plan.
    pub(in crate::ops) fn open(&self, pool: &ThreadPool) -> Result<Merge> {
        pool.install(|| identity::check(&self.inputs))?;
        let mut merge = prepare(&self.options)?;
        merge.plan.origin.clone_from(&self.plan.origin);
        let (digest, expected) = (digest(&merge.plan)?, self.digest.clone());
        if digest != expected {
            return Err(JobError::OtherPlan { digest, expected }.into());
        }
        Ok(merge)
    }

    /// Fails if the output is not where one may be, or is there and was not to be replaced.
    ///
    /// # Errors
    /// [`JobError::Exists`], and those of [`check_output`].
    pub(in crate::ops) fn check_output(&self, merge: &Merge) -> Result<()> {
        let (output, files) = (&merge.plan.output, merge.input_files());
        let inputs = files.iter().map(PathBuf::as_path);
        check_output(output, inputs, self.options.force).map_err(|error| match error.kind() {
            ErrorKind::OutputExists => Error::from(JobError::Exists).in_file(output),
            _ => error,
        })
    }

    /// The numbers of one part's shards.
    pub(in crate::ops) fn shards_of(&self, part: WorkerPart) -> Vec<usize> {
        let bytes: Vec<u64> = self.shards.iter().map(|shard| shard.bytes).collect();
        let worker_of = balance(&bytes, part.of).into_iter().enumerate();
        worker_of.filter(|(_, worker)| worker + 1 == part.number).map(|(at, _)| at).collect()
    }
}
