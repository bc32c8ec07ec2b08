//! undo: the base back, bit for bit, from a merge that kept its receipt.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::receipt::{Receipt, hash_file, restore};
use super::{Progress, check_output};
use crate::error::{ErrorKind, Locate, ReceiptError, Result};
use crate::format::access::read_small;
use crate::format::checkpoint::Layout;
use crate::format::{Access, Checkpoint, Staging};
use crate::ops::thread_pool;

/// What to undo.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The merged checkpoint.
    pub merged: PathBuf,
    /// The receipt that the merge kept.
    pub receipt: PathBuf,
    /// Where the base goes: one file if it ends in `.safetensors`, else a directory.
    pub output: PathBuf,
    /// How inputs are read.
    pub access: Access,
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
    /// Bytes of the receipt.
    pub receipt_bytes: u64,
}

/// Restores the base.
///
/// # Errors
/// If the receipt is none, the checkpoint is not the one that it was made for, or anything of the
/// result is not the base's; nothing is left at the output's path then.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let inputs = [options.merged.as_path(), options.receipt.as_path()];
    check_output(&options.output, inputs, options.force)?;
    let receipt = Receipt::open(&options.receipt, options.access)?;
    let merged = Checkpoint::open(&options.merged, options.access)?;
    check_merged(&receipt, &merged)?;
    let one_file = options.output.extension().is_some_and(|end| end == "safetensors");
    let files = &receipt.contents.base;
    if one_file && files.len() != 1 {
        let reason = format!("the base has {} weight files; give a directory", files.len());
        return Err(ErrorKind::BadOption(reason)).in_file(&options.output);
    }
    let (output, force) = (&options.output, options.force);
    let staging =
        if one_file { Staging::file(output, force)? } else { Staging::directory(output, force)? };
    progress.begin(files.iter().map(|file| file.mark.bytes).sum());
    let pool = thread_pool(options.threads)?;
    for file in files {
        let relative = if one_file { "" } else { inside(&file.mark.relative)? };
        let target = staging.create(relative)?;
        pool.install(|| restore::file(&receipt, file, &merged.shards, target, progress))
            .map_err(|error| error.in_file(&options.receipt))?;
    }
    let side_files = if one_file { 0 } else { sides(&receipt, &merged, &staging)? };
    merged.check_unchanged()?;
    staging.commit()?;
    Ok(Report {
        output: output.clone(),
        files: files.len(),
        bytes: files.iter().map(|file| file.mark.bytes).sum(),
        side_files,
        receipt_bytes: std::fs::metadata(&options.receipt).in_file(&options.receipt)?.len(),
    })
}

/// Fails unless every merged weight file is the one that the receipt was made for.
fn check_merged(receipt: &Receipt, merged: &Checkpoint) -> Result<()> {
    let marks = &receipt.contents.merged;
    if marks.len() != merged.shards.len() {
        return Err(ReceiptError::OtherMerge).in_file(&merged.path);
    }
    for (mark, shard) in marks.iter().zip(&merged.shards) {
        let same = mark.bytes == shard.source.length() && mark.sha256 == hash_file(&shard.path)?;
        if !same {
            return Err(ReceiptError::OtherMerge).in_file(&shard.path);
        }
    }
    Ok(())
}

/// Writes the small files; those that the merge only copied come from beside the merged weights, where
/// they are still there.
fn sides(receipt: &Receipt, merged: &Checkpoint, staging: &Staging) -> Result<usize> {
    let mut written = 0;
    for side in &receipt.contents.sides {
        let relative = inside(&side.relative)?;
        let bytes = match (&side.kept, merged.directory()) {
            (Some(span), _) => receipt.bytes(*span)?,
            (None, Some(directory)) if merged.layout != Layout::File => {
                let path = directory.join(relative);
                let Ok(bytes) = read_small(&path) else { continue };
                if format!("{:x}", Sha256::digest(&bytes)) != side.sha256 {
                    return Err(ReceiptError::OtherMerge).in_file(&path);
                }
                bytes
            }
            _ => continue,
        };
        staging.write(relative, &bytes)?;
        written += 1;
    }
    Ok(written)
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
