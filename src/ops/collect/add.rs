//! Adapters put into a collection that is there: their cores for the directions that it has.

use std::path::PathBuf;

use super::bases::Bases;
use super::cores::{Cores, cores};
use super::document::ADAPTERS;
use super::members::{Stored, Writer, planned};
use super::report::{Entry, Report, mean};
use super::sources::Sources;
use super::survey::{Surveyed, of_known};
use crate::adapter::OpenOptions;
use crate::error::{CollectionError, ErrorKind, Locate, Result};
use crate::format::Staging;
use crate::ops::{Progress, thread_pool};

/// What to put into which collection.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// The collection.
    pub store: PathBuf,
    /// Folders of adapters; single adapters too.
    pub paths: Vec<PathBuf>,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// Adds adapters. The directions stay what they are, and so do the adapters that are there: one file is written
/// anew and put in the old one's place at once.
///
/// # Errors
/// What is wrong with the collection or an adapter, a name that is taken, a module that the collection does not have;
/// the collection is as it was then.
pub fn add(options: &AddOptions, progress: &dyn Progress) -> Result<Report> {
    let pool = thread_pool(options.threads)?;
    pool.install(|| added(options, progress))
}

fn added(options: &AddOptions, progress: &dyn Progress) -> Result<Report> {
    let access = options.open.access;
    let bases = Bases::open(&options.store, access)?.prepare()?;
    let old = Stored::open(&options.store, &bases, access)?;
    let sources = Sources::find(&options.paths, &options.open)?;
    if sources.convention != bases.convention {
        let reason = format!(
            "its modules are named in the {} convention, those of the collection in {}'s; convert it first",
            sources.convention.name, bases.convention.name
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    let mut members = old.members.adapters.clone();
    let mut surveyed: Vec<Surveyed> = Vec::with_capacity(sources.len());
    for (at, source) in sources.all.iter().enumerate() {
        if members.iter().any(|member| member.name == source.name) {
            return Err(CollectionError::Twice(source.name.clone())).in_file(&source.path);
        }
        let adapter = sources.open(at)?;
        let unknown = || CollectionError::NewModule.into();
        let found = of_known(&adapter, &bases.shared.modules, unknown)?;
        members.push(planned(&source.name, &bases, &found));
        surveyed.push(found);
    }
    let staging = Staging::file(&options.store.join(ADAPTERS), true)?;
    let mut writer = Writer::new(staging.create("")?, &bases, members)?;
    writer.no_wider_than(old.file.shards.iter().map(|shard| &shard.source))?;
    writer.copy(&old)?;
    progress.begin(sources.len() as u64);
    for (at, surveyed) in surveyed.iter().enumerate() {
        let adapter = sources.open(at)?;
        let mut best: Option<(usize, Cores)> = None;
        for cluster in 0..bases.shared.clusters {
            let cores = cores(&bases, cluster, (&adapter, surveyed))?;
            if best.as_ref().is_none_or(|(_, best)| cores.error < best.error) {
                best = Some((cluster, cores));
            }
        }
        let (cluster, cores) = best.ok_or(ErrorKind::NotFound)?;
        writer.no_wider_than(adapter.file.shards.iter().map(|shard| &shard.source))?;
        writer.add(cluster, &cores)?;
        progress.advance(1);
    }
    let members = writer.finish()?;
    old.file.check_unchanged()?;
    bases.file.check_unchanged()?;
    staging.commit()?;
    let new = members.iter().skip(old.members.adapters.len()).map(Entry::from);
    let adapters: Vec<Entry> = new.collect();
    Ok(Report {
        output: options.store.clone(),
        rank: bases.shared.rank,
        clusters: bases.shared.clusters,
        modules: bases.shared.modules.len(),
        dtype: bases.number.dtype().to_string(),
        relative_error: mean(adapters.iter().map(|adapter| adapter.relative_error)),
        unrounded_error: None,
        adapters,
        passes: 0,
        bytes: bases.bytes() + Stored::open(&options.store, &bases, access)?.bytes(),
        bytes_before: surveyed.iter().map(|adapter| adapter.bytes).sum(),
    })
}
