//! Whole files: headers and what lies beside the weights, byte by byte.

use std::path::Path;

use super::verdict::Fault;
use crate::error::{Locate, Result};
use crate::format::access::Source;
use crate::format::gguf::container::Pairs;
use crate::format::header::Header;
use crate::format::{Access, Checkpoint, Metadata, Shard};
use crate::ops::shared::card::{CARD_NAME, is_card};
use crate::ops::shared::side_file::SideFile;

/// Bytes compared at a time.
const PIECE: u64 = 4 << 20;

/// What is wrong with the header of a weight file, which should begin with `expected`.
pub(super) fn header(expected: &[u8], shard: &Shard) -> Result<Option<Fault>> {
    let mut scratch = Vec::new();
    let bytes =
        shard.source.bytes(0..shard.header.data_start, &mut scratch).in_file(&shard.path)?;
    if bytes == expected {
        return Ok(None);
    }
    if let (Ok(expected), Ok(found)) = (Pairs::parse(expected), Pairs::parse(bytes)) {
        return Ok(Some(Fault::of_file(&shard.relative, pairs_fault(&expected, &found))));
    }
    let what = expected.get(8..).and_then(|json| {
        let length = shard.source.length() - shard.header.data_start + expected.len() as u64;
        let expected = Header::parse(json, length).ok()?;
        let none = Metadata::new();
        let metadata = |header: &Header| header.metadata.clone().unwrap_or_else(|| none.clone());
        metadata_fault(&metadata(&expected), &metadata(&shard.header))
    });
    let what = what.unwrap_or_else(|| "its header is spelled in another way or order".to_owned());
    Ok(Some(Fault::of_file(&shard.relative, what)))
}

/// What is wrong with the pairs of a GGUF file.
fn pairs_fault(expected: &Pairs, found: &Pairs) -> String {
    let get = |pairs: &Pairs, key: &str| {
        pairs.entries().find(|(own, _)| *own == key).map(|(_, bytes)| bytes.to_vec())
    };
    if let Some((key, _)) =
        expected.entries().find(|(key, own)| get(found, key).as_deref() != Some(*own))
    {
        let what = if get(found, key).is_some() { "another" } else { "no" };
        return format!("it has {what} pair `{key}`");
    }
    match found.entries().find(|(key, _)| get(expected, key).is_none()) {
        Some((key, _)) => format!("it has a pair `{key}`, which merge does not write"),
        None => "its header is spelled in another way or order".to_owned(),
    }
}

fn metadata_fault(expected: &Metadata, found: &Metadata) -> Option<String> {
    let missing = expected.keys().find(|key| !found.contains_key(*key));
    let strange = found.keys().find(|key| !expected.contains_key(*key));
    let other = expected.keys().find(|key| found.get(*key) != expected.get(*key));
    match (missing, strange, other) {
        (Some(key), ..) => Some(format!("its header's metadata lacks `{key}`")),
        (_, Some(key), _) => {
            Some(format!("its header's metadata has `{key}`, which merge does not write"))
        }
        (.., Some(key)) => Some(format!("its header's metadata has another `{key}`")),
        _ => None,
    }
}

/// What is wrong with a file beside the weights.
pub(super) fn side(expected: &SideFile, merged: &Checkpoint) -> Option<Fault> {
    let path = merged.directory()?.join(&expected.relative);
    // A card of the result, which --card puts there, stands in the place of the base's.
    if expected.relative == CARD_NAME && is_card(&path) {
        return None;
    }
    let what = match (&expected.content, &expected.source) {
        (Some(content), _) => differs_from(content.as_bytes(), &path),
        (None, Some(source)) => differ(source, &path),
        (None, None) => Ok(None),
    };
    let what = match what {
        Ok(what) => what?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "it is missing".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(Fault::of_file(&expected.relative, what))
}

fn differs_from(expected: &[u8], path: &Path) -> std::io::Result<Option<String>> {
    let found = Source::open(path, Access::Read)?;
    let mut scratch = Vec::new();
    // Of a longer file so many bytes that it is seen to be longer.
    let end = found.length().min(expected.len() as u64 + 1);
    let bytes = found.bytes(0..end, &mut scratch)?;
    Ok((bytes != expected).then(|| at(expected, bytes, 0)))
}

fn differ(expected: &Path, path: &Path) -> std::io::Result<Option<String>> {
    let (expected, found) =
        (Source::open(expected, Access::Read)?, Source::open(path, Access::Read)?);
    let (mut left, mut right, mut start) = (Vec::new(), Vec::new(), 0);
    let length = expected.length().max(found.length());
    while start < length {
        let piece = |source: &Source| start..source.length().clamp(start, start + PIECE);
        let (a, b) = (piece(&expected), piece(&found));
        let (a, b) = (expected.bytes(a, &mut left)?, found.bytes(b, &mut right)?);
        if a != b {
            return Ok(Some(at(a, b, start)));
        }
        start += PIECE;
    }
    Ok(None)
}

fn at(expected: &[u8], found: &[u8], start: u64) -> String {
    let same = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    format!("it is not as merge writes it, first at byte {}", start + same as u64)
}
