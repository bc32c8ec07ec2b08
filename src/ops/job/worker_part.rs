//! Which part of the work is one worker's.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, JobError, Result};

/// The K-th of N parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPart {
    /// K, from 1.
    pub number: usize,
    /// N.
    pub of: usize,
}

impl FromStr for WorkerPart {
    type Err = Error;

    /// From `K/N`.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(number, of)| {
            let part = Self { number: number.parse().ok()?, of: of.parse().ok()? };
            (1..=part.of).contains(&part.number).then_some(part)
        });
        parts.ok_or_else(|| JobError::BadPart(text.to_owned()).into())
    }
}

impl fmt::Display for WorkerPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl WorkerPart {
    /// The part that an array job of Slurm or an indexed job of Kubernetes says in the environment; `None` if neither
    /// does. Kubernetes does not say how many there are: the job's own template has to set `JOB_COMPLETIONS`.
    ///
    /// # Errors
    /// Variables that are no numbers, or make no part.
    pub fn of_environment(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = get(name) else { return Ok(None) };
            let bad = |_| JobError::BadPart(format!("{name}={text}"));
            Ok(Some(text.trim().parse().map_err(bad)?))
        };
        let (index, of) = if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
            (id.saturating_sub(first) / step, number("SLURM_ARRAY_TASK_COUNT")?)
        } else if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            (index, number("JOB_COMPLETIONS")?)
        } else {
            return Ok(None);
        };
        let of = of.ok_or(JobError::NoPart)?;
        format!("{}/{of}", index + 1).parse().map(Some)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::WorkerPart;

    fn of(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let part = WorkerPart::of_environment(get).map_err(|error| error.to_string())?;
        Ok(part.map(|part| part.to_string()))
    }

    #[test]
    fn parts() {
        assert_eq!("3/16".parse::<WorkerPart>().unwrap(), WorkerPart { number: 3, of: 16 });
        for bad in ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", ""] {
            assert!(bad.parse::<WorkerPart>().is_err(), "{bad}");
        }
    }

    #[test]
    fn schedulers_say_the_part() {
        assert_eq!(of(&[]), Ok(None));
        let slurm = |id| {
            of(&[
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "4"),
                ("SLURM_ARRAY_TASK_STEP", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "3"),
            ])
        };
        assert_eq!(slurm("4"), Ok(Some("1/3".to_owned())));
        assert_eq!(slurm("8"), Ok(Some("3/3".to_owned())));
        let index = ("JOB_COMPLETION_INDEX", "0");
        assert_eq!(of(&[index, ("JOB_COMPLETIONS", "16")]), Ok(Some("1/16".to_owned())));
        assert_eq!(of(&[index]), Err("which part of the work is this worker's?".to_owned()));
        assert!(of(&[("JOB_COMPLETION_INDEX", "x")]).is_err());
    }
}
