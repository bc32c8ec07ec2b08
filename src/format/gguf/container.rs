//! A GGUF file made from another: its pairs byte for byte, other tensors behind them.

use std::ops::Range;

use super::cursor::Cursor;
use super::{FIRST_LOOK, MAGIC, MAX_HEADER, MOST_PAIRS, Value, bad, is_cut, put_text};
use crate::error::{ErrorKind, Result};
use crate::format::{Dtype, Source, ggml};

/// How keys of files that belong to a set of several begin.
pub const SPLIT: &str = "split.";

/// Which file of a set it is, counted from 0.
pub const SPLIT_NUMBER: &str = "split.no";
/// How many files the set has.
pub const SPLIT_COUNT: &str = "split.count";
/// How many tensors all of them have together.
pub const SPLIT_TENSORS: &str = "split.tensors.count";

/// The pairs of a file, as they are stored.
#[derive(Debug)]
pub struct Pairs {
    bytes: Vec<u8>,
    /// Each key and its pair's bytes.
    places: Vec<(String, Range<usize>)>,
}

/// A tensor to write: its name, ggml's number of its type, its shape (outermost first) and its bytes.
pub type Entry<'a> = (&'a str, u32, &'a [usize], u64);

impl Pairs {
    /// No pairs at all, as further files of a set begin.
    pub fn none() -> Self {
        Self { bytes: Vec::new(), places: Vec::new() }
    }

    /// Reads those of a file.
    ///
    /// # Errors
    /// If the file breaks a rule of the format.
    pub fn read(source: &Source) -> Result<Self> {
        let mut scratch = Vec::new();
        let most = source.length().min(MAX_HEADER);
        match Self::parse(source.bytes(0..most.min(FIRST_LOOK), &mut scratch)?) {
            Err(error) if most > FIRST_LOOK && is_cut(&error) => {
                Self::parse(source.bytes(0..most, &mut scratch)?)
            }
            parsed => parsed,
        }
    }

    /// Those that a file begins with.
    ///
    /// # Errors
    /// If it is cut short or breaks a rule of the format.
    pub fn parse(head: &[u8]) -> Result<Self> {
        let mut cursor = Cursor { bytes: head, at: 0 };
        if cursor.take(4)? != MAGIC {
            return Err(bad("it does not begin with GGUF"));
        }
        let (_, _, pairs) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
        if pairs > MOST_PAIRS {
            return Err(ErrorKind::TooMany { what: "pairs", limit: MOST_PAIRS }.into());
        }
        let mut places = Vec::new();
        for _ in 0..pairs {
            let start = cursor.at;
            let key = cursor.text()?;
            let kind = cursor.u32()?;
            cursor.value(kind, true)?;
            places.push((key, start..cursor.at));
        }
        Ok(Self { bytes: head.get(..cursor.at).unwrap_or_default().to_vec(), places })
    }

    /// Each key, and its pair's bytes.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let bytes = |place: &Range<usize>| self.bytes.get(place.clone()).unwrap_or_default();
        self.places.iter().map(move |(key, place)| (key.as_str(), bytes(place)))
    }

    /// All bytes before the tensors' data: the pairs that `keep` wants, `new` ones in place of those of the same key or
    /// behind all, and the tensors one after the other, each at the next multiple of `alignment`.
    pub fn head<'a>(
        &self,
        keep: impl Fn(&str) -> bool,
        new: &[(String, Value)],
        tensors: impl ExactSizeIterator<Item = Entry<'a>>,
        alignment: u64,
    ) -> Vec<u8> {
        let (mut count, mut pairs) = (0u64, Vec::new());
        for (key, stored) in self.entries() {
            match new.iter().find(|(name, _)| name == key) {
                Some((key, value)) => value.put(key, &mut pairs),
                None if keep(key) => pairs.extend_from_slice(stored),
                None => continue,
            }
            count += 1;
        }
        let is_stored = |key: &str| self.places.iter().any(|(name, _)| name == key);
        for (key, value) in new.iter().filter(|(key, _)| !is_stored(key)) {
            value.put(key, &mut pairs);
            count += 1;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.append(&mut pairs);
        let mut place: u64 = 0;
        for (name, kind, shape, size) in tensors {
            put_text(&mut bytes, name);
            bytes.extend_from_slice(&(shape.len() as u32).to_le_bytes());
            // ggml names the innermost dimension first.
            for size in shape.iter().rev() {
                bytes.extend_from_slice(&(*size as u64).to_le_bytes());
            }
            bytes.extend_from_slice(&kind.to_le_bytes());
            place = place.next_multiple_of(alignment);
            bytes.extend_from_slice(&place.to_le_bytes());
            place += size;
        }
        bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0);
        bytes
    }
}

/// ggml's number of a type whose elements stand alone.
pub fn kind(dtype: Dtype) -> Option<u32> {
    (0..=30).find(|kind| ggml::plain(*kind) == Some(dtype))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::format::Access;
    use crate::format::gguf::{encode, header};

    fn source(bytes: &[u8]) -> Source {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        Source::open(file.path(), Access::Read).expect("opens")
    }

    #[test]
    fn pairs_stay_and_tensors_are_found_where_the_head_says() {
        let text = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
        let pairs = [text("general.name", "x"), text("split.no", "1"), text("lora_tool.a", "old")];
        let (old, _) = encode(&pairs, &[]).expect("encodes");
        let pairs = Pairs::read(&source(&old)).expect("reads");
        let tensors: [Entry<'_>; 2] = [("a", 8, &[2, 64], 136), ("b", 0, &[3], 12)];
        let texts = [text("lora_tool.a", "new"), ("split.no".to_owned(), Value::U16(2))];
        let mut new = pairs.head(|key| !key.starts_with(SPLIT), &texts, tensors.into_iter(), 32);
        let data = new.len() as u64;
        new.resize(new.len() + 160 + 12, 7);
        let read = header(&source(&new)).expect("reads");
        let metadata = read.metadata.expect("pairs");
        assert_eq!(metadata["general.name"], "x");
        assert_eq!(metadata["lora_tool.a"], "new");
        assert_eq!(metadata["split.no"], "2");
        assert_eq!(read.data_start, data);
        let places: Vec<_> =
            read.tensors.iter().map(|t| (t.name.as_str(), t.start, t.end)).collect();
        assert_eq!(places, [("a", 0, 136), ("b", 160, 172)]);
        assert_eq!(read.blocks["a"].shape, [2, 64]);
    }

    #[test]
    fn dtypes_have_their_numbers() {
        let found = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I32, Dtype::U8].map(kind);
        assert_eq!(found, [Some(0), Some(1), Some(30), Some(26), None]);
    }
}
