//! A collection from the options to the report.

use std::path::PathBuf;

use super::bases::{self, Bases};
use super::batch::{Batch, Sides, batches, sample};
use super::common;
use super::cores::cores;
use super::document::{ADAPTERS, BASES, Member};
use super::fit::{Fit, Search, fit};
use super::members;
use super::options::{Number, Options};
use super::report::{Entry, Planned, Report, mean};
use super::sources::Sources;
use super::survey::{Survey, survey};
use crate::adapter::convention::{Names, peft};
use crate::error::{CollectionError, ErrorKind, Locate, Result};
use crate::format::{Access, Staging};
use crate::ops::{Progress, check_output, thread_pool};

/// A collection that is planned.
#[derive(Debug)]
pub struct Collect {
    /// What will be collected.
    pub plan: Planned,
    sources: Sources,
    survey: Survey,
    number: Number,
    options: Options,
}

/// Finds the adapters and looks at every one of them.
///
/// # Errors
/// Everything a user can get wrong; nothing has been written then.
pub fn plan(options: &Options, progress: &dyn Progress) -> Result<Collect> {
    check(options)?;
    check_output(&options.output, options.paths.iter().map(PathBuf::as_path), options.force)?;
    let sources = Sources::find(&options.paths, &options.open)?;
    if options.common_a && sources.convention.names != Names::Dotted {
        return Err(CollectionError::Convention(sources.convention.name).into());
    }
    progress.phase("reading");
    let pool = thread_pool(options.threads)?;
    let survey = pool.install(|| survey(&sources, progress))?;
    let plan = Planned {
        output: options.output.clone(),
        rank: options.rank,
        modules: survey.modules.len(),
        adapters: sources.all.iter().map(|source| source.name.clone()).collect(),
    };
    let number = options.number.unwrap_or(Number::Float(survey.dtype));
    Ok(Collect { plan, sources, survey, number, options: options.clone() })
}

fn check(options: &Options) -> Result<()> {
    let reason = if options.rank == 0 {
        "--rank 0 would leave nothing"
    } else if options.clusters == 0 {
        "--clusters 0: every adapter is in one; the fewest is 1"
    } else if options.common_a && options.number == Some(Number::Int8) {
        "--common-a writes plain adapters, which no program reads in int8; give f32, f16 or bf16"
    } else {
        return Ok(());
    };
    Err(ErrorKind::BadOption(reason.to_owned()).into())
}

/// What is found of a batch's modules.
struct Found {
    /// The batch, if its directions are known already.
    fit: Option<(Vec<usize>, Fit)>,
    /// Each adapter's group.
    groups: Vec<usize>,
    clusters: usize,
    passes: usize,
}

impl Collect {
    /// Finds the directions and writes the collection.
    ///
    /// # Errors
    /// I/O, an adapter that has changed since it was planned, a value that the dtype does not reach; nothing is left
    /// at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let pool = thread_pool(self.options.threads)?;
        pool.install(|| {
            progress.phase("finding shared directions");
            let found = self.groups(progress)?;
            let staging = Staging::directory(&self.options.output, self.options.force)?;
            let report = if self.options.common_a {
                self.plain(&staging, found, progress)?
            } else {
                self.store(&staging, found, progress)?
            };
            staging.commit()?;
            Ok(report)
        })
    }

    fn sides(&self) -> Sides {
        if self.options.common_a { Sides::Inputs } else { Sides::Both }
    }

    fn batch(&self, modules: Vec<usize>) -> Batch<'_> {
        Batch { sources: &self.sources, survey: &self.survey, modules, sides: self.sides() }
    }

    fn search(&self, clusters: usize) -> Search {
        Search { rank: self.options.rank, clusters, seed: self.options.seed }
    }

    /// Which adapters share directions: all, or the groups that are found of as many modules as there is room for.
    fn groups(&self, progress: &dyn Progress) -> Result<Found> {
        let count = self.sources.len();
        let asked = self.options.clusters.min(count);
        if asked == 1 {
            return Ok(Found { fit: None, groups: vec![0; count], clusters: 1, passes: 0 });
        }
        let modules = sample(&self.survey, self.options.rank, asked);
        let mut fit = fit(&self.batch(modules.clone()), self.search(asked), None, progress)?;
        // Groups that nobody is in are left out.
        let used: std::collections::BTreeSet<usize> = fit.groups.iter().copied().collect();
        let mut groups = fit.groups.clone();
        for group in &mut groups {
            *group = used.range(..*group).count();
        }
        fit.groups.clone_from(&groups);
        let mut number = 0;
        fit.directions.retain(|_| {
            number += 1;
            used.contains(&(number - 1))
        });
        let (clusters, passes) = (used.len(), fit.passes);
        Ok(Found { fit: Some((modules, fit)), groups, clusters, passes })
    }

    /// Finds the directions of all modules, a batch at a time, and hands each batch on.
    fn each_batch(
        &self,
        found: &mut Found,
        progress: &dyn Progress,
        mut with: impl FnMut(&Batch<'_>, &Fit) -> Result<()>,
    ) -> Result<()> {
        for modules in batches(&self.survey, self.options.rank, found.clusters) {
            let batch = self.batch(modules);
            let known = found.fit.take_if(|(modules, _)| *modules == batch.modules);
            let fit = match known {
                Some((_, fit)) => fit,
                None => {
                    let search = self.search(found.clusters);
                    let fit = fit(&batch, search, Some(&found.groups), progress)?;
                    found.passes += fit.passes;
                    fit
                }
            };
            with(&batch, &fit)?;
        }
        Ok(())
    }

    /// Writes the files of a store.
    fn store(
        &self,
        staging: &Staging,
        mut found: Found,
        progress: &dyn Progress,
    ) -> Result<Report> {
        let shape = (self.options.rank, found.clusters);
        let (convention, modules) = (self.sources.convention, &self.survey.modules);
        let mut writer = bases::Writer::new(staging, self.number, shape, convention, modules)?;
        let rounds = self.number == Number::Int8;
        let (mut held, groups) = (vec![0.0; self.sources.len()], found.groups.clone());
        self.each_batch(&mut found, progress, |batch, fit| {
            if rounds {
                let pass = batch.pass(&fit.directions, Some(&groups), None, progress)?;
                held.iter_mut().zip(pass.held).for_each(|(sum, held)| *sum += held);
            }
            for at in 0..batch.modules.len() {
                writer.add(fit.directions.iter().filter_map(|group| group.get(at)))?;
            }
            Ok(())
        })?;
        progress.phase("writing");
        for at in 0..self.sources.len() {
            let adapter = self.sources.open(at)?;
            writer.no_wider_than(adapter.file.shards.iter().map(|shard| &shard.source))?;
        }
        writer.finish()?;
        let bases = Bases::open(&staging.content(), Access::default())?.prepare()?;
        let adapters = self.members(staging, &bases, &found.groups, progress)?;
        let unrounded = held.iter().map(|held| (1.0 - held).max(0.0).sqrt());
        let unrounded_error = rounds.then(|| mean(unrounded));
        let bytes = [BASES, ADAPTERS].iter().map(|name| length(staging, name));
        let bytes = bytes.sum::<Result<u64>>()?;
        Ok(Report { unrounded_error, ..self.report(&adapters, &found, bytes) })
    }

    /// Writes the cores of all adapters.
    fn members(
        &self,
        staging: &Staging,
        bases: &Bases,
        groups: &[usize],
        progress: &dyn Progress,
    ) -> Result<Vec<Entry>> {
        let all = self.sources.all.iter().zip(&self.survey.adapters);
        let planned = all.map(|(source, surveyed)| members::planned(&source.name, bases, surveyed));
        let planned: Vec<Member> = planned.collect();
        let mut writer = members::Writer::new(staging.create(ADAPTERS)?, bases, planned)?;
        progress.begin(self.sources.len() as u64);
        let adapters = self.survey.adapters.iter().zip(groups).zip(&self.sources.all);
        for (at, ((surveyed, group), source)) in adapters.enumerate() {
            let adapter = self.sources.open(at)?;
            let cores = cores(bases, *group, (&adapter, surveyed))?;
            writer.no_wider_than(adapter.file.shards.iter().map(|shard| &shard.source))?;
            writer.add(*group, &cores).in_file(&source.path)?;
            progress.advance(1);
        }
        Ok(writer.finish()?.iter().map(Entry::from).collect())
    }

    /// Writes plain adapters that share one A.
    fn plain(
        &self,
        staging: &Staging,
        mut found: Found,
        progress: &dyn Progress,
    ) -> Result<Report> {
        let modules = self.survey.modules.len();
        let mut shared = common::SharedA::new(self.number.dtype(), found.clusters, modules);
        self.each_batch(&mut found, progress, |batch, fit| {
            for (group, directions) in fit.directions.iter().enumerate() {
                for (module, directions) in batch.modules.iter().zip(directions) {
                    shared.keep(group, *module, directions)?;
                }
            }
            Ok(())
        })?;
        progress.phase("writing");
        progress.begin(self.sources.len() as u64);
        let mut entries = Vec::with_capacity(self.sources.len());
        let mut bytes = shared.bytes();
        let adapters = self.survey.adapters.iter().zip(&found.groups).zip(&self.sources.all);
        for (at, ((surveyed, group), source)) in adapters.enumerate() {
            let adapter = self.sources.open(at)?;
            let made =
                shared.adapter((&adapter, surveyed), *group, &self.survey.modules, peft())?;
            let written = made.write(staging, &source.name, &adapter.file)?;
            bytes += written;
            entries.push(Entry {
                name: source.name.clone(),
                cluster: *group,
                relative_error: made.error,
                norm: surveyed.energy.sqrt(),
                modules: surveyed.parts.len(),
            });
            progress.advance(1);
        }
        Ok(self.report(&entries, &found, bytes))
    }

    fn report(&self, adapters: &[Entry], found: &Found, bytes: u64) -> Report {
        Report {
            output: self.options.output.clone(),
            rank: self.options.rank,
            clusters: found.clusters,
            modules: self.survey.modules.len(),
            dtype: self.number.dtype().to_string(),
            relative_error: mean(adapters.iter().map(|adapter| adapter.relative_error)),
            unrounded_error: None,
            adapters: adapters.to_vec(),
            passes: found.passes,
            bytes,
            bytes_before: self.survey.adapters.iter().map(|adapter| adapter.bytes).sum(),
        }
    }
}

/// Bytes of a file that was written.
fn length(staging: &Staging, name: &str) -> Result<u64> {
    let path = staging.content().join(name);
    let source = crate::format::Source::open(&path, Access::Read).in_file(&path)?;
    Ok(source.length())
}
