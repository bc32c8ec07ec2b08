//! A merge shared out by its shards.

use std::path::Path;

use super::open::Merge;
use super::plan::options::Options;
use super::plan::origin;
use super::plan::output::Plan;
use super::report::Report;
use super::trial::prepare;
use super::write::jobs::Stats;
use super::write::note::{said, stats};
use super::write::resume::planned;
use super::write::stream::make;
use crate::error::{ErrorKind, Result};
use crate::format::shared_staging::SharedStaging;
use crate::ops::job::document::{self, Written};
use crate::ops::job::identity::Inputs;
use crate::ops::job::note::{Note, State};
use crate::ops::job::shared::{PartOf, Parts, Shared, ToShare, Workplace, check_free};
use crate::ops::shared::left_over;
use crate::ops::{files_of, thread_pool};

impl Merge {
    /// Writes the plan down for others to work on.
    ///
    /// # Errors
    /// If the output is one file, or the options ask for what only one process can do; if an input cannot be read, or
    /// the file not be written.
    pub fn write_plan(mut self, file: &Path, workers: Option<usize>) -> Result<Written> {
        self.check_can_be_shared()?;
        let pool = thread_pool(self.options.threads)?;
        let warnings = self.plan.warnings.clone();
        // What lies beside the output now is no part of the plan.
        let left_over = left_over::warnings(&self.plan.output);
        self.plan.warnings.retain(|warning| !left_over.contains(warning));
        // Workers do not predict.
        self.plan.prediction = None;
        self.plan.origin = pool.install(|| origin::metadata(&self.plan, &self.inputs))?;
        let mut inputs = Inputs::default();
        self.inputs.models().for_each(|model| inputs.model(model));
        for file in self.plan.side_files.iter().filter_map(|file| file.source.as_ref()) {
            inputs.beside(file)?;
        }
        inputs.whole(self.inputs.adapters.iter().flat_map(files_of));
        let inputs = pool.install(|| inputs.identify())?;
        let options = Options { threads: 0, block_rows: None, ..self.options.clone() };
        let output = self.plan.output.clone();
        document::write(ToShare { options, inputs, open: self, output, warnings }, file, workers)
    }

    fn check_can_be_shared(&self) -> Result<()> {
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
        if self.options.card {
            return refuse(
                "--plan goes without --card, whose figures are known when all shards are made",
            );
        }
        if self.options.residual.is_some() {
            return refuse(
                "--plan goes without --residual, for which one process must see all weights",
            );
        }
        Ok(())
    }
}

impl Shared for Options {
    const KIND: &'static str = "merge";
    type Plan = Plan;
    type Open = Merge;

    fn open(&self, planned: Plan, _document: &Path) -> Result<Merge> {
        let mut merge = prepare(self)?;
        merge.plan.origin = planned.origin;
        Ok(merge)
    }

    fn force(&self) -> bool {
        self.force
    }
}

impl Parts for Merge {
    type Plan = Plan;
    type Report = Report;

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn parts(&self) -> Vec<PartOf> {
        let part = |shard: &super::OutputShard| PartOf {
            name: shard.relative.clone(),
            bytes: shard.bytes(),
        };
        self.plan.shards.iter().map(part).collect()
    }

    fn place(&self) -> &Path {
        &self.plan.output
    }

    fn check_output(&self, force: bool) -> Result<()> {
        check_free(&self.plan.output, &self.input_files(), force)
    }

    fn at_once(&self, _threads: usize) -> usize {
        1
    }

    fn make(&self, number: usize, at: &Workplace<'_>) -> Result<Note> {
        let shard = self.plan.shards.get(number).ok_or(ErrorKind::NotFound)?;
        let (file, pending) = at.staging.create(&shard.relative)?;
        let origin = self.plan.origin.as_ref();
        let (file, stats) = make((self.making(), origin), shard, file, at.pool, at.progress)?;
        file.finish()?;
        // What was read must be what was planned with.
        self.inputs.check_unchanged()?;
        pending.put()?;
        let fingerprint = |file: &str| at.staging.fingerprint(file);
        Note::new(&shard.relative, vec![shard.relative.clone()], fingerprint, &said(&stats))
    }

    fn look(&self, number: usize, note: &Note, staging: &SharedStaging) -> State {
        let Some(shard) = self.plan.shards.get(number) else { return State::Missing };
        match note.state(&shard.relative, |file| staging.fingerprint(file)) {
            State::Whole if stats(note).is_none() => State::Altered,
            state => state,
        }
    }

    fn finish(self, notes: Vec<Note>, staging: SharedStaging, force: bool) -> Result<Report> {
        self.check_output(force)?;
        let stats: Stats = notes.iter().filter_map(stats).flatten().collect();
        self.plan.check_survival(&stats)?;
        for file in &self.plan.side_files {
            match (&file.content, &file.source) {
                (None, Some(source)) => staging.copy(source, &file.relative)?,
                (content, _) => {
                    let content = content.as_deref().unwrap_or_default();
                    staging.write(&file.relative, content.as_bytes())?;
                }
            }
        }
        staging.retain(&planned(&self.plan))?;
        self.inputs.check_unchanged()?;
        staging.commit(force)?;
        Ok(self.report(&stats))
    }
}
