//! Going on where an interrupted merge stopped: which finished shards may be used again.
//!
//! A kept shard is used if the whole merge is the one it was made for (options and plan as they are written down,
//! and every input still the same file) and its bytes are still those that were noted when it was finished. Shards do not depend on one another, so the result has the bytes of an undisturbed run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::jobs::Stats;
use super::note::{said, stats as stats_of};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Staging;
use crate::format::hash::Hasher;
use crate::format::shared_staging::fingerprint;
use crate::format::staging::kept_root;
use crate::ops::job::note::{Note, State, name};
use crate::ops::merge::plan::layout::OutputShard;
use crate::ops::merge::{Options, Plan};

/// Names the merge: two runs with one key write the same bytes.
///
/// # Errors
/// If the output is one file, or an input cannot be asked for its size and time.
pub(in crate::ops::merge) fn key(
    options: &Options,
    plan: &Plan,
    inputs: &[PathBuf],
) -> Result<String> {
    if plan.one_file {
        let reason = "--resume needs an output of several files; give a directory".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&plan.output);
    }
    let mut hash = Hasher::default();
    hash.update(env!("CARGO_PKG_VERSION"));
    // What changes the way to the result, and not the result.
    let options =
        Options { force: false, verify: false, threads: 0, block_rows: None, ..options.clone() };
    hash.update(serde_json::to_vec(&options).map_err(std::io::Error::other)?);
    hash.update(serde_json::to_vec(plan).map_err(std::io::Error::other)?);
    for input in inputs {
        let metadata = std::fs::metadata(input).in_file(input)?;
        hash.update(input.as_os_str().as_encoded_bytes());
        hash.update(format!(" {} {}\n", metadata.len(), changed(&metadata)));
    }
    Ok(hash.finish())
}

/// What changes with a file's contents even where its size and time of modification are put back.
#[cfg(unix)]
fn changed(metadata: &std::fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    format!("{} {}.{}", metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// All that is known of a file here.
#[cfg(not(unix))]
fn changed(metadata: &std::fs::Metadata) -> String {
    format!("{:?}", metadata.modified().ok())
}

/// Every file that the plan writes, by its path below the output.
pub(in crate::ops) fn planned(plan: &Plan) -> BTreeSet<&str> {
    let shards = plan.shards.iter().map(|shard| shard.relative.as_str());
    shards.chain(plan.side_files.iter().map(|file| file.relative.as_str())).collect()
}

/// Whether a run that failed so would get further if it was run again: what is wrong with an input's values
/// stays wrong, and a changed input makes another merge.
pub(in crate::ops::merge) fn goes_on(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Io(_) | ErrorKind::DiskFull { .. } | ErrorKind::OutputExists)
}

/// Bytes of the plan's shards that an earlier run has written, whole or in part.
pub(in crate::ops::merge) fn kept_bytes(plan: &Plan) -> u64 {
    let out = kept_root(&plan.output).join("out");
    let length = |shard: &OutputShard| std::fs::metadata(out.join(&shard.relative)).ok();
    plan.shards.iter().filter_map(length).map(|metadata| metadata.len()).sum()
}

/// The statistics of a shard that is there already, just as it was finished.
pub(in crate::ops::merge) fn reuse(
    staging: &Staging,
    number: usize,
    shard: &OutputShard,
) -> Option<Stats> {
    let note = Note::read(&staging.recall(&name(number))?)?;
    let state = note.state(&shard.relative, |file| fingerprint(&staging.content().join(file)));
    stats_of(&note).filter(|_| state == State::Whole)
}

/// Notes a shard that is whole and on the disk, where an interrupted run is kept.
///
/// # Errors
/// If the shard cannot be read back, or the note not be written.
pub(in crate::ops::merge) fn record(
    staging: &Staging,
    number: usize,
    shard: &OutputShard,
    stats: &Stats,
) -> Result<()> {
    let Some(path) = staging.kept_file(&shard.relative) else { return Ok(()) };
    let part = shard.relative.as_str();
    let note = Note::new(part, vec![part.to_owned()], |_| fingerprint(&path), &said(stats))?;
    staging.note(&name(number), &note.text()?)
}
