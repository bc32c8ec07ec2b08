//! GGUF (ggml's `docs/gguf.md`, versions 2 and 3, little-endian): typed key-value pairs, then tensors.
//!
//! Adapters are small and read whole: their tensors are taken into memory, in the dtypes that
//! safetensors has. Of a model only the header is read. Every count and length is checked against the file
//! before anything is allocated.

pub mod container;
mod cursor;

use cursor::Cursor;

use super::access::Source;
use super::ggml;
use super::header::{Header, MAX_HEADER, MOST_TENSORS, Metadata, TensorSpec};
use super::{Dtype, Tensor};
use crate::error::{Error, ErrorKind, HeaderError, Locate, Result};

/// The first bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Tensors begin at multiples of this, unless the file says otherwise.
pub const ALIGNMENT: u64 = 32;
/// Pairs of one file; models have some fifty.
const MOST_PAIRS: u64 = 4096;
/// Longest text of a pair, a chat template say, or of a name.
const LONGEST_TEXT: u64 = 1 << 20;
const ALIGNMENT_KEY: &str = "general.alignment";

/// ggml's numbers of the types that adapters are stored in.
const F32: u32 = 0;
const F16: u32 = 1;
const Q8_0: u32 = 8;
const BF16: u32 = 30;

/// Bytes of a file that are first looked through for its header.
const FIRST_LOOK: u64 = 16 << 20;

/// A file that was read: its pairs as text, and its tensors in file order.
#[derive(Debug)]
pub struct Gguf {
    /// The pairs; numbers as they print, lists in brackets.
    pub metadata: Metadata,
    /// Name, dtype, shape (outermost first) and bytes.
    pub tensors: Vec<Tensor>,
}

/// Whether a file begins as GGUF files do.
pub fn is_gguf(source: &Source) -> bool {
    let mut scratch = Vec::new();
    source.bytes(0..4, &mut scratch).is_ok_and(|first| first == MAGIC)
}

fn bad(reason: impl Into<String>) -> Error {
    ErrorKind::BadGguf { reason: reason.into() }.into()
}

/// Where a tensor lies.
struct Entry {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    start: u64,
    bytes: u64,
}

/// What stands before the tensors' data.
struct Head {
    metadata: Metadata,
    entries: Vec<Entry>,
    data: u64,
    alignment: u64,
}

/// Reads a file whole. `accept` sees the pairs before any tensor is read, and may refuse.
///
/// # Errors
/// If the file breaks a rule of the format, holds a type that is not read, or `accept` refuses.
pub fn read(source: &Source, accept: impl FnOnce(&Metadata) -> Result<()>) -> Result<Gguf> {
    let Head { metadata, entries, data, .. } = head(source, accept)?;
    let tensors = entries.into_iter().map(|entry| load(entry, data, source));
    Ok(Gguf { metadata, tensors: tensors.collect::<Result<_>>()? })
}

/// The header of a model as a safetensors file would have it: tensors of blocks are bytes there, the last
/// dimension those of one row, and [`Header::blocks`] says what they mean.
///
/// # Errors
/// If the file breaks a rule of the format.
pub fn header(source: &Source) -> Result<Header> {
    let Head { metadata, entries, data, alignment } = head(source, |_| Ok(()))?;
    let metadata = Some(metadata);
    let mut header = Header { metadata, data_start: data, alignment, ..Header::default() };
    for Entry { name, shape, kind, start, bytes } in entries {
        let end = start + bytes;
        let (dtype, shape) = match ggml::plain(kind) {
            Some(dtype) => (dtype, shape),
            None => {
                let rows = shape
                    .iter()
                    .rev()
                    .skip(1)
                    .fold(1, |n: usize, size| n.saturating_mul(*size))
                    .max(1);
                let mut stored = shape.clone();
                if let Some(last) = stored.last_mut() {
                    *last = (bytes / rows as u64) as usize;
                }
                header.blocks.insert(name.clone(), ggml::Blocks { kind, shape });
                (Dtype::U8, stored)
            }
        };
        header.tensors.push(TensorSpec { name, dtype, shape, start, end });
    }
    header.tensors.sort_by_key(|tensor| (tensor.start, tensor.end));
    Ok(header)
}

fn head(source: &Source, accept: impl FnOnce(&Metadata) -> Result<()>) -> Result<Head> {
    let mut scratch = Vec::new();
    let most = source.length().min(MAX_HEADER);
    let first = source.bytes(0..most.min(FIRST_LOOK), &mut scratch)?;
    let parsed = match parse(first, source.length()) {
        Err(error) if most > FIRST_LOOK && is_cut(&error) => {
            parse(source.bytes(0..most, &mut scratch)?, source.length())
        }
        parsed => parsed,
    };
    let (head, rest) = parsed?;
    accept(&head.metadata)?;
    rest.map(|()| head)
}

fn is_cut(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::BadGguf { reason } if reason == CUT)
}

const CUT: &str = "the file ends inside its header";

/// A header and the fault of its tensors, if they have one: pairs that are refused go first.
fn parse(head: &[u8], length: u64) -> Result<(Head, Result<()>)> {
    let mut cursor = Cursor { bytes: head, at: 0 };
    if cursor.take(4)? != MAGIC {
        return Err(bad("it does not begin with GGUF"));
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(bad(format!("version {version}; 2 and 3 are read, little-endian")));
    }
    let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
    let too_many = |what: &'static str, limit: u64| ErrorKind::TooMany { what, limit };
    if pairs > MOST_PAIRS {
        return Err(too_many("pairs", MOST_PAIRS).into());
    }
    if tensors > MOST_TENSORS as u64 {
        return Err(too_many("tensors", MOST_TENSORS as u64).into());
    }
    let mut metadata = Metadata::new();
    for _ in 0..pairs {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, true)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Error::from(HeaderError::DuplicateKey).in_tensor(&key));
        }
    }
    let mut head = Head { metadata, entries: Vec::new(), data: 0, alignment: ALIGNMENT };
    match entries(&mut cursor, &mut head, (tensors, length)) {
        Err(error) if is_cut(&error) => Err(error),
        rest => Ok((head, rest)),
    }
}

fn entries(cursor: &mut Cursor<'_>, head: &mut Head, (count, length): (u64, u64)) -> Result<()> {
    for _ in 0..count {
        head.entries.push(cursor.entry()?);
    }
    let alignment = match head.metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT,
        Some(text) => text.parse().ok().filter(|n| *n > 0 && *n <= 1 << 20).ok_or_else(|| {
            bad(format!("`{ALIGNMENT_KEY}` is {text}, which is no sensible alignment"))
        })?,
    };
    head.alignment = alignment;
    head.data = (cursor.at as u64).next_multiple_of(alignment);
    check(&head.entries, length.saturating_sub(head.data))
}

/// Every tensor lies in the file, none over another, no name twice.
fn check(entries: &[Entry], length: u64) -> Result<()> {
    let mut by_place: Vec<&Entry> = entries.iter().collect();
    by_place.sort_by_key(|entry| (entry.start, entry.bytes));
    let mut end = 0;
    for entry in by_place {
        if entry.start < end {
            let (expected, found, what) = (end, entry.start, "overlap");
            return Err(HeaderError::Offsets { expected, found, what }).in_tensor(&entry.name);
        }
        end =
            entry.start.checked_add(entry.bytes).filter(|end| *end <= length).ok_or_else(|| {
                bad("the file is truncated: it ends before the tensor does").in_tensor(&entry.name)
            })?;
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(HeaderError::DuplicateKey).in_tensor(pair.first().unwrap_or(&"")),
        None => Ok(()),
    }
}

fn load(entry: Entry, data: u64, source: &Source) -> Result<Tensor> {
    let mut scratch = Vec::new();
    let start = data + entry.start;
    let bytes = source.bytes(start..start + entry.bytes, &mut scratch).in_tensor(&entry.name)?;
    let (dtype, bytes) = match entry.kind {
        F32 => (Dtype::F32, bytes.to_vec()),
        F16 => (Dtype::F16, bytes.to_vec()),
        BF16 => (Dtype::BF16, bytes.to_vec()),
        // An 11-bit scale times an 8-bit code is exact in f32.
        Q8_0 => (Dtype::F32, decode_q8_0(bytes)),
        kind => {
            let reason = format!("type {kind}; of adapters F32, F16, BF16 and Q8_0 are read");
            return Err(bad(reason).in_tensor(&entry.name));
        }
    };
    Ok((entry.name, dtype, entry.shape, bytes))
}

/// Blocks of an f16 scale and 32 signed codes, as f32.
fn decode_q8_0(blocks: &[u8]) -> Vec<u8> {
    let mut values = Vec::with_capacity(blocks.len() / 34 * 128);
    for block in blocks.chunks_exact(34) {
        let (scale, codes) = block.split_at(2);
        let scale = half::f16::from_le_bytes([scale[0], scale[1]]).to_f32();
        for code in codes {
            values.extend_from_slice(&(scale * f32::from(code.cast_signed())).to_le_bytes());
        }
    }
    values
}

/// A value to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Float(f32),
    /// A whole number of 16 bits.
    U16(u16),
    /// A whole number of 32 bits, with a sign.
    I32(i32),
}

impl Value {
    /// Appends a pair of this value to a header.
    fn put(&self, key: &str, bytes: &mut Vec<u8>) {
        put_text(bytes, key);
        let (kind, value): (u32, &[u8]) = match self {
            Self::U16(value) => (2, &value.to_le_bytes()),
            Self::I32(value) => (5, &value.to_le_bytes()),
            Self::Float(value) => (6, &value.to_le_bytes()),
            Self::Text(_) => (8, &[]),
        };
        bytes.extend_from_slice(&kind.to_le_bytes());
        match self {
            Self::Text(text) => put_text(bytes, text),
            _ => bytes.extend_from_slice(value),
        }
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// The bytes before the tensors' data, and each tensor's place after them.
///
/// # Errors
/// If a tensor is of a dtype that ggml has no floating-point type for.
pub fn encode(
    pairs: &[(String, Value)],
    tensors: &[(String, Dtype, Vec<usize>)],
) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&3u32.to_le_bytes());
    bytes.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        value.put(key, &mut bytes);
    }
    let mut place = 0;
    let mut places = Vec::with_capacity(tensors.len());
    for (name, dtype, shape) in tensors {
        put_text(&mut bytes, name);
        bytes.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        for size in shape.iter().rev() {
            bytes.extend_from_slice(&(*size as u64).to_le_bytes());
        }
        let (kind, size) = match dtype {
            Dtype::F32 => (F32, 4),
            Dtype::F16 => (F16, 2),
            Dtype::BF16 => (BF16, 2),
            _ => return Err(ErrorKind::BadDtype { dtype: dtype.to_string() }).in_tensor(name),
        };
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&u64::to_le_bytes(place));
        places.push(place);
        place += shape.iter().product::<usize>() as u64 * size;
        place = place.next_multiple_of(ALIGNMENT);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok((bytes, places))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::format::Access;

    fn source(bytes: &[u8]) -> Source {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        Source::open(file.path(), Access::Read).expect("opens")
    }

    fn made() -> Vec<u8> {
        let pairs = [
            ("general.type".to_owned(), Value::Text("adapter".to_owned())),
            ("adapter.lora.alpha".to_owned(), Value::Float(16.0)),
        ];
        let tensors =
            [("a".to_owned(), Dtype::F32, vec![2, 3]), ("b".to_owned(), Dtype::BF16, vec![1])];
        let (mut bytes, places) = encode(&pairs, &tensors).expect("encodes");
        let data = bytes.len();
        bytes.extend((0..6).flat_map(|value| (value as f32).to_le_bytes()));
        bytes.resize(data + places[1] as usize, 0);
        bytes.extend_from_slice(&[0x80, 0x3f]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let read = read(&source(&made()), |_| Ok(())).expect("reads");
        assert_eq!(read.metadata["general.type"], "adapter");
        assert_eq!(read.metadata["adapter.lora.alpha"], "16");
        let (name, dtype, shape, bytes) = &read.tensors[0];
        assert_eq!((name.as_str(), *dtype, shape.as_slice()), ("a", Dtype::F32, &[2, 3][..]));
        assert_eq!(bytes[4..8], 1f32.to_le_bytes());
        assert_eq!(read.tensors[1].3, [0x80, 0x3f]);
    }

    #[test]
    fn q8_0_is_scale_times_code() {
        let mut block = half::f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..32u8).map(|code| code.wrapping_sub(16)));
        let values = decode_q8_0(&block);
        assert_eq!(values[..4], (-8f32).to_le_bytes());
        assert_eq!(values[124..], 7.5f32.to_le_bytes());
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = made();
        for length in 0..whole.len() {
            assert!(read(&source(&whole[..length]), |_| Ok(())).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            at in prop::collection::vec((0usize..300, any::<u8>()), 1..6),
            tail in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = made();
            for (at, value) in at {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.extend(tail);
            let _ = read(&source(&bytes), |_| Ok(()));
        }
    }
}
