//! Whole files: headers and what lies beside the weights, byte by byte.

use std::path::Path;

use super::verdict::Fault;
use crate::error::{Locate, Result};
use crate::format::access::Source;
use crate::format::header::Header;
use crate::format::{Access, Checkpoint, Metadata, Shard};
use crate::ops::shared::side_file::SideFile;

/// Bytes compared at a time.
const PIECE: u64 = 4 << 20;

/// What is wrong with the header of a weight file, which should begin with `expected`.
pub(super) fn header(expected: &[u8], found: &Shard) -> Result<Option<Fault>> {
    let mut scratch = Vec::new();
    let bytes =
        found.source.bytes(0..found.header.data_start, &mut scratch).in_file(&found.path)?;
    if bytes == expected {
        return Ok(None);
    }
    let what = expected.get(8..).and_then(|json| {
        let length = found.source.length() - found.header.data_start + expected.len() as u64;
        let expected = Header::parse(json, length).ok()?;
        let none = Metadata::new();
        let metadata = |header: &Header| header.metadata.clone().unwrap_or_else(|| none.clone());
        metadata_fault(&metadata(&expected), &metadata(&found.header))
    });
    let what = what.unwrap_or_else(|| "its header is spelled in another way or order".to_owned());
    Ok(Some(Fault::of_file(&found.relative, what)))
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
