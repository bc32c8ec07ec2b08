//! From a merged checkpoint and its receipt to the base.

use rayon::prelude::*;

use super::code::{StepCoder, block_rows};
use super::contents::{BaseFile, Coded, ReceiptPiece};
use super::file::Receipt;
use crate::error::{ErrorKind, Locate, ReceiptError, Result};
use crate::format::hash::Hasher;
use crate::format::{OutputFile, Shard};
use crate::math::forms::residual::Guess;
use crate::ops::Progress;
use crate::weight::element::float_named;

/// Bytes copied at a time.
const CHUNK: u64 = 4 << 20;
/// Blocks that are decoded before they are written.
const BATCH: usize = 16;

/// A file in the making, and the hash of what it holds so far.
struct Sink<'a> {
    output: OutputFile,
    hash: Hasher,
    at: u64,
    progress: &'a dyn Progress,
}

impl Sink<'_> {
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.output.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.progress.advance(bytes.len() as u64);
        Ok(())
    }
}

/// Writes one weight file of the base.
///
/// # Errors
/// If reading or writing fails, or the result is not the base's file.
pub(in crate::ops) fn file(
    receipt: &Receipt,
    file: &BaseFile,
    merged: &[Shard],
    output: OutputFile,
    progress: &dyn Progress,
) -> Result<()> {
    let mut sink = Sink { output, hash: Hasher::default(), at: 0, progress };
    sink.add(&receipt.bytes(file.head)?)?;
    for part in &file.parts {
        match part {
            ReceiptPiece::Kept(span) => sink.add(&receipt.bytes(*span)?)?,
            ReceiptPiece::Copy { file, at, bytes } => {
                copy(shard(merged, *file)?, *at, *bytes, &mut sink)?;
            }
            ReceiptPiece::Steps(coded) => {
                steps(receipt, coded, shard(merged, coded.file)?, &mut sink)?;
            }
        }
    }
    let found = sink.hash.finish();
    if found != file.mark.sha256 {
        return Err(ReceiptError::NotTheBase.into());
    }
    sink.output.finish()
}

fn shard(merged: &[Shard], number: usize) -> Result<&Shard> {
    Ok(merged.get(number).ok_or(ErrorKind::NotFound)?)
}

fn copy(shard: &Shard, mut at: u64, bytes: u64, sink: &mut Sink<'_>) -> Result<()> {
    let end = at.saturating_add(bytes);
    let mut scratch = Vec::new();
    while at < end {
        let next = (at + CHUNK).min(end);
        sink.add(shard.source.bytes(at..next, &mut scratch).in_file(&shard.path)?)?;
        at = next;
    }
    Ok(())
}

fn broken() -> ReceiptError {
    ReceiptError::NoReceipt("its parts do not fit together".to_owned())
}

fn step_coder(receipt: &Receipt, coded: &Coded, shard: &Shard) -> Result<StepCoder> {
    let types = float_named(&coded.from).zip(float_named(&coded.to));
    let (from, to) = types.ok_or_else(broken)?;
    // A made-up size must not be allocated.
    let merged = coded.rows.checked_mul(coded.columns).and_then(|n| n.checked_mul(from.size()));
    if merged.is_none_or(|bytes| coded.at.saturating_add(bytes as u64) > shard.source.length()) {
        return Err(broken().into());
    }
    let bytes = receipt.bytes(coded.guess)?;
    let (rank, lefts) = (coded.rank, coded.rows.saturating_mul(coded.rank));
    let scales = bytes.get(..rank.saturating_mul(8)).ok_or_else(broken)?;
    let values = bytes.get(scales.len()..).unwrap_or_default();
    let values: Vec<i16> =
        values.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    let scales = scales.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let (left, right) = values.split_at_checked(lefts).ok_or_else(broken)?;
    if right.len() != coded.columns.saturating_mul(rank) || coded.columns == 0 {
        return Err(broken().into());
    }
    let guess = Guess { left: left.to_vec(), right: right.to_vec(), scales };
    Ok(StepCoder { from, to, columns: coded.columns, guess })
}

fn steps(receipt: &Receipt, coded: &Coded, shard: &Shard, sink: &mut Sink<'_>) -> Result<()> {
    let coder = step_coder(receipt, coded, shard)?;
    let codes = receipt.bytes(coded.codes)?;
    let height = block_rows(coder.columns);
    let starts: Vec<usize> = (0..coded.rows).step_by(height).collect();
    if starts.len() != coded.ends.len() {
        return Err(broken().into());
    }
    let blocks: Vec<(usize, usize)> = starts.into_iter().enumerate().collect();
    for batch in blocks.chunks(BATCH) {
        let decoded = batch.par_iter().map(|&(number, first)| {
            let end = coded.ends.get(number).copied().unwrap_or(0) as usize;
            let start = number.checked_sub(1).and_then(|before| coded.ends.get(before));
            let start = start.copied().unwrap_or(0) as usize;
            let codes = codes.get(start..end).ok_or_else(broken)?;
            let size = coder.from.size() as u64;
            let count = (height.min(coded.rows - first) * coder.columns) as u64;
            let begin = coded.at.saturating_add((first * coder.columns) as u64 * size);
            let mut scratch = Vec::new();
            let bytes = shard.source.bytes(begin..begin + count * size, &mut scratch);
            Ok(coder.decode(first, bytes.in_file(&shard.path)?, codes))
        });
        for bytes in decoded.collect::<Result<Vec<_>>>()? {
            sink.add(&bytes)?;
        }
    }
    Ok(())
}
