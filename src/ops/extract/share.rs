//! An extraction shared out by its tensors: what one of them becomes does not depend on the others.

use std::path::Path;

use super::compute;
use super::note::{Said, joined, split};
use super::open::{Extract, Plan};
use super::options::{Options, RankChoice};
use super::report::Report;
use super::run::prepare;
use crate::error::{ErrorKind, Result};
use crate::format::shared_staging::SharedStaging;
use crate::ops::job::document::{self, Written};
use crate::ops::job::identity::Inputs;
use crate::ops::job::note::{Note, State};
use crate::ops::job::shared::{PartOf, Parts, Shared, ToShare, Workplace, check_free};
use crate::ops::thread_pool;

impl Extract {
    /// Writes the plan down for others to work on.
    ///
    /// # Errors
    /// If ranks are shared out over all modules, which one process has to see; if an input cannot be read, or the file
    /// not be written.
    pub fn write_plan(self, file: &Path, workers: Option<usize>) -> Result<Written> {
        if let RankChoice::Policy(policy) = self.options.rank
            && policy.is_global()
        {
            let reason = format!(
                "--plan goes without --rank {policy}, which is shared out over all modules: one process must see them"
            );
            return Err(ErrorKind::BadOption(reason).into());
        }
        let mut inputs = Inputs::default();
        inputs.model(&self.base);
        inputs.model(&self.tuned);
        let inputs = thread_pool(self.options.threads)?.install(|| inputs.identify())?;
        let options = Options { threads: 0, ..self.options.clone() };
        let (output, warnings) = (self.options.output.clone(), Vec::new());
        document::write(ToShare { options, inputs, open: self, output, warnings }, file, workers)
    }

    /// The file of a pair's tensors, while it waits.
    fn file_of(number: usize) -> String {
        format!("tensor-{number:05}.bin")
    }

    /// What a note says of a pair, with the tensors that belong to it.
    fn recall(
        note: &Note,
        number: usize,
        staging: &SharedStaging,
    ) -> Option<std::result::Result<compute::Extracted, compute::Fate>> {
        let said: Said = note.said()?;
        if note.files.is_empty() {
            return joined(said, &[]);
        }
        joined(said, &staging.read(&Self::file_of(number))?)
    }
}

impl Shared for Options {
    const KIND: &'static str = "extract";
    type Plan = Plan;
    type Open = Extract;

    fn open(&self, _planned: Plan, _document: &Path) -> Result<Extract> {
        prepare(self)
    }

    fn force(&self) -> bool {
        self.force
    }
}

impl Parts for Extract {
    type Plan = Plan;
    type Report = Report;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn parts(&self) -> Vec<PartOf> {
        let bytes =
            |pair: &super::Pair| self.tuned.tensor(&pair.tuned).map_or(0, |view| view.spec.bytes());
        let part = |pair: &super::Pair| PartOf { name: pair.base.clone(), bytes: bytes(pair) };
        self.plan.pairs.iter().map(part).collect()
    }

    fn place(&self) -> &Path {
        &self.options.output
    }

    fn check_output(&self, force: bool) -> Result<()> {
        check_free(&self.options.output, &self.files(), force)
    }

    /// A thread a pair, as in one process.
    fn at_once(&self, threads: usize) -> usize {
        threads
    }

    fn make(&self, number: usize, at: &Workplace<'_>) -> Result<Note> {
        let pair = self.plan.pairs.get(number).ok_or(ErrorKind::NotFound)?;
        let made = at.pool.install(|| compute::alone(self, number))?;
        let (said, bytes) = split(made);
        self.base.check_unchanged()?;
        self.tuned.check_unchanged()?;
        at.progress.advance(self.tuned.tensor(&pair.tuned).map_or(0, |view| view.spec.bytes()));
        if bytes.is_empty() {
            return Note::new(&pair.base, Vec::new(), |_| None, &said);
        }
        let file = Self::file_of(number);
        at.staging.write(&file, &bytes)?;
        Note::new(&pair.base, vec![file], |file| at.staging.fingerprint(file), &said)
    }

    fn look(&self, number: usize, note: &Note, staging: &SharedStaging) -> State {
        let Some(pair) = self.plan.pairs.get(number) else { return State::Missing };
        match note.state(&pair.base, |file| staging.fingerprint(file)) {
            State::Whole if Self::recall(note, number, staging).is_none() => State::Altered,
            state => state,
        }
    }

    fn finish(self, notes: Vec<Note>, staging: SharedStaging, force: bool) -> Result<Report> {
        self.check_output(force)?;
        let (mut fates, mut done) = (Vec::new(), Vec::new());
        for (number, note) in notes.iter().enumerate() {
            match Self::recall(note, number, &staging).ok_or(ErrorKind::Changed)? {
                Ok(extracted) => done.push(extracted),
                Err(fate) => fates.push(fate),
            }
        }
        let report = self.write(fates, done)?;
        staging.remove()?;
        Ok(report)
    }
}
