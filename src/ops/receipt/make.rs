//! From a base and what was merged of it to a receipt.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::code::{StepCoder, block_rows};
use super::contents::{BaseFile, Coded, Contents, Mark, ReceiptPiece, SideRecord, Span};
use super::file::Writer;
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::checkpoint::Layout;
use crate::format::{Checkpoint, OutputFile, Shard, TensorView, hash};
use crate::math::elements::random::Stream;
use crate::math::forms::residual::Guess;
use crate::math::linalg::sketch::{Settings, sketch};
use crate::math::rank::noise::above_noise;
use crate::ops::shared::side_file::SideFile;
use crate::weight::as_matrix;
use crate::weight::difference::Difference;

/// Blocks that are coded before they are written.
const BATCH: usize = 16;
/// The highest rank of a guess.
const MOST_RANK: usize = 64;

/// Writes the receipt; its length.
///
/// `merged` is what the merge wrote, with `sides` beside it; of one file, `sides` are what lies beside
/// the base, and all of them are kept whole.
///
/// # Errors
/// If reading or writing fails.
pub(in crate::ops) fn make(
    base: &Checkpoint,
    merged: &Checkpoint,
    sides: &[SideFile],
    one_file: bool,
    output: OutputFile,
) -> Result<u64> {
    let mut writer = Writer::new(output)?;
    let mark = |checkpoint: &Checkpoint, at: usize, lone: bool| -> Result<Mark> {
        let shard = checkpoint.shards.get(at).ok_or(ErrorKind::NotFound)?;
        let relative = if lone { String::new() } else { shard.relative.clone() };
        Ok(Mark { relative, sha256: hash::of_file(&shard.path)?, bytes: shard.source.length() })
    };
    let numbers = (0..merged.shards.len()).into_par_iter();
    let marks = numbers.map(|at| mark(merged, at, one_file)).collect::<Result<_>>()?;
    let mut files = Vec::with_capacity(base.shards.len());
    for (number, shard) in base.shards.iter().enumerate() {
        let mut scratch = Vec::new();
        let head = shard.source.bytes(0..shard.header.data_start, &mut scratch);
        let head = writer.add(head.in_file(&shard.path)?)?;
        let parts = parts(base, (number, shard), merged, &mut writer)?;
        let lone = base.layout == Layout::File;
        let mut mark = mark(base, number, lone)?;
        if lone {
            // What it is called where the output is a directory.
            mark.relative.clone_from(&shard.relative);
        }
        files.push(BaseFile { mark, head, parts });
    }
    let sides = keep_sides(base, sides, one_file, &mut writer)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    writer.finish(&Contents { version, merged: marks, base: files, sides })
}

/// All that follows the header of a base file, in the order of its bytes.
fn parts(
    base: &Checkpoint,
    (number, shard): (usize, &Shard),
    merged: &Checkpoint,
    writer: &mut Writer,
) -> Result<Vec<ReceiptPiece>> {
    let prefix = base.component_of(number).map_or("", |component| &component.prefix);
    let mut parts = Vec::with_capacity(shard.header.tensors.len());
    let mut end = shard.header.data_start;
    for spec in &shard.header.tensors {
        let name = format!("{prefix}{}", spec.name);
        let start = shard.header.data_start + spec.start;
        parts.extend(between(shard, end..start, writer)?);
        let view = TensorView { spec, shard };
        let part = part(view, &name, merged, writer).map_err(|e| e.in_tensor(&name))?;
        parts.push(part);
        end = start + spec.bytes();
    }
    parts.extend(between(shard, end..shard.source.length(), writer)?);
    Ok(parts)
}

/// Bytes of a file that no tensor has: between those of a GGUF file, and behind the last.
fn between(shard: &Shard, range: Range<u64>, writer: &mut Writer) -> Result<Option<ReceiptPiece>> {
    if range.is_empty() {
        return Ok(None);
    }
    let mut scratch = Vec::new();
    let bytes = shard.source.bytes(range, &mut scratch).in_file(&shard.path)?;
    Ok(Some(ReceiptPiece::Kept(writer.add(bytes)?)))
}

/// Indexes, configs that the merge changed and whatever it did not copy, by their bytes; the rest by
/// their hash.
fn keep_sides(
    base: &Checkpoint,
    files: &[SideFile],
    one_file: bool,
    writer: &mut Writer,
) -> Result<Vec<SideRecord>> {
    let mut sides: Vec<SideRecord> = Vec::new();
    let mut keep = |relative: &str, source: &Path, changed: bool| -> Result<()> {
        let mut span = Span { start: writer.position(), bytes: 0 };
        let sha256 = hash::of_file_in_pieces(source, |piece| {
            span.bytes += if changed { writer.add(piece)?.bytes } else { 0 };
            Ok(())
        })?;
        let kept = changed.then_some(span);
        sides.push(SideRecord { relative: relative.to_owned(), sha256, kept });
        Ok(())
    };
    for component in &base.components {
        if let Some(index) = &component.index {
            let relative = format!("{}{}", component.prefix, index.file_name);
            keep(&relative, &component.directory.join(&index.file_name), true)?;
        }
    }
    let indexes: Vec<String> = base
        .components
        .iter()
        .filter_map(|c| Some(format!("{}{}", c.prefix, c.index.as_ref()?.file_name)))
        .collect();
    for file in files {
        if let Some(source) = file.source.as_ref().filter(|_| !indexes.contains(&file.relative)) {
            keep(&file.relative, source, one_file || file.content.is_some())?;
        }
    }
    Ok(sides)
}

fn part(
    base: TensorView<'_>,
    name: &str,
    merged: &Checkpoint,
    writer: &mut Writer,
) -> Result<ReceiptPiece> {
    let Some(new) = merged.tensor(name) else { return kept(base, writer) };
    let file = merged.shards.iter().position(|shard| std::ptr::eq(shard, new.shard));
    let file = file.ok_or(ErrorKind::NotFound)?;
    let at = new.shard.header.data_start + new.spec.start;
    if base.same_bytes(new)? {
        return Ok(ReceiptPiece::Copy { file, at, bytes: base.spec.bytes() });
    }
    let (rows, columns) = as_matrix(&base.spec.shape);
    let (more, others) = as_matrix(&new.spec.shape);
    let types = (element_type(new.spec.dtype), element_type(base.spec.dtype));
    let (Some(from), Some(to)) = types else { return kept(base, writer) };
    // A table that grew begins with the rows it had.
    if others != columns || more < rows || rows * columns == 0 {
        return kept(base, writer);
    }
    let guess = guess(base, new, name, (rows, columns), to.size())?;
    let mut bytes = Vec::new();
    for scale in &guess.scales {
        bytes.extend_from_slice(&scale.to_le_bytes());
    }
    for value in guess.left.iter().chain(&guess.right) {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    let rank = guess.scales.len();
    let span = writer.add(&bytes)?;
    let coder = StepCoder { from, to, columns, guess };
    let (codes, ends) = codes(&coder, base, new, rows, writer)?;
    Ok(ReceiptPiece::Steps(Coded {
        file,
        at,
        from: new.spec.dtype.to_string(),
        to: base.spec.dtype.to_string(),
        rows,
        columns,
        rank,
        guess: span,
        ends,
        codes,
    }))
}

fn kept(base: TensorView<'_>, writer: &mut Writer) -> Result<ReceiptPiece> {
    let mut scratch = Vec::new();
    Ok(ReceiptPiece::Kept(writer.add(base.all(&mut scratch)?)?))
}

/// The low-rank part of what the merge did, if it has one that is worth its room.
fn guess(
    base: TensorView<'_>,
    new: TensorView<'_>,
    name: &str,
    (rows, columns): (usize, usize),
    size: usize,
) -> Result<Guess> {
    // A rank costs two bytes a row and column, and must not cost more than a quarter of the tensor.
    let affordable = rows * columns * size / 8 / (rows + columns);
    let most = MOST_RANK.min(affordable).min(rows.min(columns) / 4);
    if most == 0 {
        return Ok(Guess::default());
    }
    let mut difference = Difference::new(base, new, (rows, columns))?;
    let found = sketch(&mut difference, &Settings::new(most, Stream::new(0, name, 0)))?;
    if !found.squared_norm.is_finite() {
        return Ok(Guess::default());
    }
    let values = found.svd.singular_values().get(..most).unwrap_or_default();
    let rank = above_noise(values, found.squared_norm, rows, columns);
    Ok(Guess::new(&found.svd.truncate(rank)))
}

fn codes(
    coder: &StepCoder,
    base: TensorView<'_>,
    new: TensorView<'_>,
    rows: usize,
    writer: &mut Writer,
) -> Result<(Span, Vec<u64>)> {
    let height = block_rows(coder.columns);
    let starts: Vec<usize> = (0..rows).step_by(height).collect();
    let begin = writer.position();
    let mut ends = Vec::with_capacity(starts.len());
    for batch in starts.chunks(BATCH) {
        let coded = batch.par_iter().map(|&first| {
            let count = height.min(rows - first) * coder.columns;
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let range = |size: usize| {
                let start = (first * coder.columns * size) as u64;
                start..start + (count * size) as u64
            };
            let merged = new.bytes(range(coder.from.size()), &mut left)?;
            let base = base.bytes(range(coder.to.size()), &mut right)?;
            Ok(coder.encode(first, merged, base))
        });
        for bytes in coded.collect::<Result<Vec<_>>>()? {
            writer.add(&bytes)?;
            ends.push(writer.position() - begin);
        }
    }
    Ok((Span { start: begin, bytes: writer.position() - begin }, ends))
}
