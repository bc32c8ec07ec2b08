//! undo: the base back, bit for bit, from a merge that kept its receipt.

use std::path::{Path, PathBuf};

use super::receipt::{Receipt, SideRecord, check_bounds, restore};
use super::shared::base::open_merged;
use super::{Progress, check_output};
use crate::error::{ErrorKind, Locate, ReceiptError, Result};
use crate::format::checkpoint::Layout;
use crate::format::staging::free_space;
use crate::format::{Access, Checkpoint, Staging, hash};
use crate::ops::thread_pool;
use serde::Serialize;

/// What to undo.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The merged checkpoint.
    pub merged: PathBuf,
    /// The receipt that the merge kept.
    pub receipt: PathBuf,
    /// Where the base goes: one file if it ends in `.safetensors` or `.gguf`, else a directory.
    pub output: PathBuf,
    /// How inputs are read.
    pub access: Access,
    /// Restore the weights though other files cannot be had back.
    pub allow_missing: bool,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// What was restored.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the base is.
    pub output: PathBuf,
    /// Its weight files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Other files restored beside them.
    pub side_files: usize,
    /// Other files of the base that were not restored, each with the reason.
    pub missing: Vec<String>,
    /// Bytes of the receipt.
    pub receipt_bytes: u64,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Restores the base.
///
/// # Errors
/// If the receipt is none or damaged, the checkpoint is not the one that it was made for, anything of the
/// result is not the base's, or other files cannot be had back (without `allow_missing`); nothing is left
/// at the output's path then.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let inputs = [options.merged.as_path(), options.receipt.as_path()];
    check_output(&options.output, inputs, options.force)?;
    let receipt = Receipt::open(&options.receipt, options.access)?;
    let merged = open_merged(&options.merged, options.access)?;
    let sides = check(options, &receipt, &merged)?;
    let one_file = is_one_file(options);
    let files = &receipt.contents.base;
    let (output, force) = (&options.output, options.force);
    let staging =
        if one_file { Staging::file(output, force)? } else { Staging::directory(output, force)? };
    progress.begin(files.iter().map(|file| file.mark.bytes).sum());
    let pool = thread_pool(options.threads)?;
    for file in files {
        let relative = if one_file { "" } else { inside(&file.mark.relative)? };
        let target = staging.create(relative)?;
        target.no_wider_than(merged.shards.iter().map(|shard| &shard.source))?;
        pool.install(|| restore::file(&receipt, file, &merged.shards, target, progress))
            .map_err(|error| error.in_file(&options.receipt))?;
    }
    for side in &sides.found {
        write_side(&receipt, &merged, side, &staging)?;
    }
    merged.check_unchanged()?;
    staging.commit()?;
    Ok(Report {
        output: output.clone(),
        files: files.len(),
        bytes: files.iter().map(|file| file.mark.bytes).sum(),
        side_files: sides.found.len(),
        warnings: warnings(&receipt, &sides.missing),
        missing: sides.missing,
        receipt_bytes: receipt.length(),
    })
}

fn is_one_file(options: &Options) -> bool {
    options.output.extension().is_some_and(|end| end == "safetensors" || end == "gguf")
}

fn warnings(receipt: &Receipt, missing: &[String]) -> Vec<String> {
    let mut warnings: Vec<_> = missing.iter().map(|file| format!("not restored: {file}")).collect();
    if !receipt.sealed {
        warnings.push(
            "the receipt is of an earlier version, without a hash of its own contents: names of files \
             are as it has them"
                .to_owned(),
        );
    }
    warnings
}

/// Everything that can be wrong before a byte is written; what becomes of the other files.
fn check<'a>(options: &Options, receipt: &'a Receipt, merged: &Checkpoint) -> Result<Sides<'a>> {
    check_merged(receipt, merged)?;
    let files = &receipt.contents.base;
    let lengths = merged.shards.iter().map(|shard| shard.source.length());
    check_bounds(receipt, lengths.sum()).in_file(&options.receipt)?;
    let one_file = is_one_file(options);
    if one_file && files.len() != 1 {
        let reason = format!("the base has {} weight files; give a directory", files.len());
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    let is_gguf = |path: &Path| path.extension().is_some_and(|end| end == "gguf");
    let of_base = files.iter().any(|file| is_gguf(Path::new(&file.mark.relative)));
    if one_file && is_gguf(&options.output) != of_base {
        let format = if of_base { "a GGUF file" } else { "no GGUF file" };
        let reason = format!("the base is {format}: its name should end as the base's");
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    let needed = files.iter().map(|file| file.mark.bytes).sum();
    if let Some(free) = free_space(&options.output)
        && free < needed
    {
        return Err(ErrorKind::DiskFull { needed, free }).in_file(&options.output);
    }
    let mut sides = Sides::default();
    for side in &receipt.contents.sides {
        let relative = inside(&side.relative).in_file(&options.receipt)?;
        if one_file {
            sides.missing.push(format!("{relative}: the output is one file; give a directory"));
            continue;
        }
        match side_hash(receipt, merged, side, |_| Ok(())) {
            Ok(found) if found == side.sha256 => sides.found.push(side),
            // The receipt's own bytes: nothing that a user could put back.
            Ok(_) if side.kept.is_some() => {
                return Err(ReceiptError::NotTheBase).in_file(&options.receipt);
            }
            Ok(_) => sides.missing.push(format!("{relative}: it was changed since the merge")),
            Err(error) => sides.missing.push(format!("{relative}: {}", reason(error.kind()))),
        }
    }
    if sides.missing.is_empty() || one_file || options.allow_missing {
        return Ok(sides);
    }
    Err(ReceiptError::SidesMissing { missing: sides.missing }).in_file(&options.merged)
}

/// Why a file cannot be read, in a few words.
fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "it is missing".to_owned()
        }
        kind => kind.to_string(),
    }
}

/// Fails unless every merged weight file is the one that the receipt was made for.
fn check_merged(receipt: &Receipt, merged: &Checkpoint) -> Result<()> {
    let marks = &receipt.contents.merged;
    if marks.len() != merged.shards.len() {
        return Err(ReceiptError::OtherMerge).in_file(&merged.path);
    }
    for (mark, shard) in marks.iter().zip(&merged.shards) {
        let same =
            mark.bytes == shard.source.length() && mark.sha256 == hash::of_file(&shard.path)?;
        if !same {
            return Err(ReceiptError::OtherMerge).in_file(&shard.path);
        }
    }
    Ok(())
}

/// The base's files beside its weights.
#[derive(Default)]
struct Sides<'a> {
    found: Vec<&'a SideRecord>,
    /// Those that cannot be had back, each with the reason.
    missing: Vec<String>,
}

/// The hash of a side file as it would be restored, its bytes given away piece by piece: those that the
/// receipt keeps, or those that the merge copied, from beside the merged weights.
fn side_hash(
    receipt: &Receipt,
    merged: &Checkpoint,
    side: &SideRecord,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<String> {
    if let Some(span) = side.kept {
        let bytes = receipt.bytes(span)?;
        take(&bytes)?;
        return Ok(hash::of_bytes(&bytes));
    }
    let directory = merged.directory().filter(|_| merged.layout != Layout::File);
    let directory = directory.ok_or_else(|| {
        ErrorKind::BadOption("it lies beside the merged weights: name their directory".to_owned())
    })?;
    hash::of_file_in_pieces(&directory.join(inside(&side.relative)?), take)
}

/// Writes one of the other files, and holds it to its hash once more.
fn write_side(
    receipt: &Receipt,
    merged: &Checkpoint,
    side: &SideRecord,
    staging: &Staging,
) -> Result<()> {
    let relative = inside(&side.relative)?;
    let (mut output, mut at) = (staging.create(relative)?, 0);
    let found = side_hash(receipt, merged, side, |piece| {
        output.write_at(piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })?;
    if found != side.sha256 {
        return Err(ErrorKind::Changed).in_file(&merged.path.join(relative));
    }
    output.finish()
}

/// A path of the receipt, which must stay below the output.
fn inside(relative: &str) -> Result<&str> {
    let mut parts = Path::new(relative).components();
    let fits =
        !relative.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)));
    if fits {
        return Ok(relative);
    }
    let reason = format!("its path `{relative}` leaves the output");
    Err(ReceiptError::NoReceipt(reason).into())
}
