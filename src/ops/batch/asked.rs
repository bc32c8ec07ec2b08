//! What an item asks for: the options of a verb, and what that verb makes of them.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::report::Status;
use crate::adapter::OpenOptions;
use crate::error::Result;
use crate::format::Access;
use crate::ops::{Progress, as_lora, check, combine, convert, extract, merge, resize};

/// The options of one item's verb.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Merge(Box<merge::Options>),
    Combine(Box<combine::Options>),
    Resize(Box<resize::Options>),
    Convert(Box<convert::Options>),
    AsLora(Box<as_lora::Options>),
    Check(Box<check::Options>),
    Extract(Box<extract::Options>),
}

/// What a verb answers.
pub(super) struct Answer {
    pub(super) status: Status,
    /// What is wrong, where the answer is not that it is done.
    pub(super) reason: Option<String>,
    pub(super) report: Value,
}

impl Asked {
    /// Where the result goes; a check has none.
    pub(super) fn output(&self) -> Option<&Path> {
        Some(match self {
            Self::Merge(options) => &options.output,
            Self::Combine(options) => &options.output,
            Self::Resize(options) => &options.combine.output,
            Self::Convert(options) => &options.output,
            Self::AsLora(options) => &options.convert.output,
            Self::Extract(options) => &options.output,
            Self::Check(_) => return None,
        })
    }

    /// Lets the result go to another place, over what is there with `force`.
    pub(super) fn go_to(&mut self, place: PathBuf, replace: bool) {
        let (output, force) = match self {
            Self::Merge(options) => (&mut options.output, &mut options.force),
            Self::Combine(options) => (&mut options.output, &mut options.force),
            Self::Resize(options) => (&mut options.combine.output, &mut options.combine.force),
            Self::Convert(options) => (&mut options.output, &mut options.force),
            Self::AsLora(options) => (&mut options.convert.output, &mut options.convert.force),
            Self::Extract(options) => (&mut options.output, &mut options.force),
            Self::Check(_) => return,
        };
        (*output, *force) = (place, replace);
    }

    /// How inputs are read, and by how many threads.
    pub(super) fn set(&mut self, access: Access, threads: usize) {
        let open = match self {
            Self::Merge(options) => {
                options.threads = threads;
                &mut options.open
            }
            Self::Combine(options) => {
                options.threads = threads;
                &mut options.open
            }
            Self::Resize(options) => {
                options.combine.threads = threads;
                &mut options.combine.open
            }
            Self::AsLora(options) => {
                options.threads = threads;
                &mut options.convert.open
            }
            Self::Extract(options) => {
                options.threads = threads;
                options.access = access;
                return;
            }
            Self::Convert(options) => &mut options.open,
            Self::Check(options) => &mut options.open,
        };
        *open = OpenOptions { access, ..open.clone() };
    }

    /// All inputs: adapters, then models.
    pub(super) fn inputs(&self) -> (Vec<&Path>, Vec<&Path>) {
        match self {
            Self::Merge(options) => {
                let models = [Some(&options.base), options.quantize_like.as_ref()];
                let models = models.into_iter().chain([options.reference.as_ref()]).flatten();
                let adapters = options.adapters.iter().map(|input| input.path.as_path());
                (adapters.collect(), models.map(PathBuf::as_path).collect())
            }
            Self::Combine(options) => {
                let adapters = options.adapters.iter().map(|input| input.path.as_path());
                (adapters.collect(), options.reference.as_deref().into_iter().collect())
            }
            Self::Resize(options) => {
                let models = options.combine.reference.as_deref();
                (vec![&options.adapter], models.into_iter().collect())
            }
            Self::Convert(options) => of_conversion(options),
            Self::AsLora(options) => of_conversion(&options.convert),
            Self::Check(options) => {
                (vec![&options.adapter], options.against.as_deref().into_iter().collect())
            }
            Self::Extract(options) => (Vec::new(), vec![&options.base, &options.tuned]),
        }
    }

    /// What a merge writes beside its result.
    pub(super) fn beside(&self) -> Vec<&Path> {
        match self {
            Self::Merge(options) => [&options.receipt, &options.residual]
                .into_iter()
                .flatten()
                .map(PathBuf::as_path)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Plans it, and writes nothing.
    ///
    /// # Errors
    /// Everything that can be wrong before any work.
    pub(super) fn plan(&self) -> Result<Answer> {
        let planned = |report| Ok(Answer { status: Status::Planned, reason: None, report });
        match self {
            Self::Merge(options) => planned(json(&merge::plan(options)?.plan)?),
            Self::Combine(options) => planned(json(&combine::plan(options)?.plan)?),
            Self::Resize(options) => planned(json(&resize::plan(options)?.plan)?),
            Self::Convert(options) => planned(json(&convert::plan(options)?.report)?),
            Self::AsLora(options) => planned(json(&as_lora::plan(options)?.report)?),
            Self::Extract(options) => planned(json(&extract::plan(options)?.plan)?),
            // There is nothing to write, and nothing to plan.
            Self::Check(_) => self.run(&()),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What the verb says; nothing of the result is left then.
    pub(super) fn run(&self, progress: &dyn Progress) -> Result<Answer> {
        let done = |report| Ok(Answer { status: Status::Done, reason: None, report });
        match self {
            Self::Merge(options) => {
                let report = merge::plan(options)?.run(progress)?;
                let holds = report.verification.as_ref().is_none_or(|found| found.ok);
                let reason = (!holds).then(|| "the result is not what it should be".to_owned());
                let status = if holds { Status::Done } else { Status::No };
                Ok(Answer { status, reason, report: json(&report)? })
            }
            Self::Combine(options) => done(json(&combine::plan(options)?.run(progress)?)?),
            Self::Resize(options) => done(json(&resize::plan(options)?.run(progress)?)?),
            Self::Convert(options) => done(json(&convert::plan(options)?.run(progress)?)?),
            Self::AsLora(options) => done(json(&as_lora::plan(options)?.run(progress)?)?),
            Self::Extract(options) => done(json(&extract::plan(options)?.run(progress)?)?),
            Self::Check(options) => checked(&check::run(options)?),
        }
    }
}

fn of_conversion(options: &convert::Options) -> (Vec<&Path>, Vec<&Path>) {
    (vec![&options.adapter], options.reference.as_deref().into_iter().collect())
}

fn json(report: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(report).map_err(std::io::Error::other)?)
}

/// A check's answer, with what was found against the adapter.
fn checked(report: &check::Report) -> Result<Answer> {
    let status = match report.answer {
        check::Answer::Yes => Status::Done,
        check::Answer::No => Status::No,
        check::Answer::Unknown => Status::Unknown,
    };
    let against = report.findings.iter().filter(|found| found.severity != check::Severity::Note);
    let reasons: Vec<&str> = against.map(|found| found.says.as_str()).collect();
    let reason = (status != Status::Done).then(|| reasons.join("; "));
    Ok(Answer { status, reason, report: json(report)? })
}
