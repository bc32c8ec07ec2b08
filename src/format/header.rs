//! The safetensors header: eight bytes of length, then JSON with the tensors and `__metadata__`.
//!
//! Dtypes are the `safetensors` crate's own; entries are read here one by one, because order matters to us
//! (outputs follow it) and a repeated name must be an error, which a map would hide. The rules are
//! the format's: offsets contiguous from 0, no overlap, no hole, every byte of the file covered.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::Dtype;
use super::ggml::Blocks;
use crate::error::{Error, ErrorKind, HeaderError, Locate, Result, clipped};

/// `__metadata__`, in file order.
pub type Metadata = IndexMap<String, String>;

/// A tensor in memory: name, dtype, shape (outermost first) and bytes.
pub type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// The longest header the format allows, as the reference implementation has it.
pub const MAX_HEADER: u64 = 100_000_000;
/// Tensors of one file; adapters of the largest mixtures of experts have some 140 000.
pub(super) const MOST_TENSORS: usize = 1 << 18;
/// Bytes of all their names, which are held in memory more than once.
const MOST_NAME_BYTES: usize = 20 << 20;
/// Dimensions of one tensor.
const MOST_DIMENSIONS: usize = 32;

const METADATA_KEY: &str = "__metadata__";

/// One tensor of a file: its name, type, shape, and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte, from the end of the header.
    pub start: u64,
    /// One past its last byte, from the end of the header.
    pub end: u64,
}

impl TensorSpec {
    /// Elements in the tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the tensor.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A parsed and checked header.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// `__metadata__`, if the file has it.
    pub metadata: Option<Metadata>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<TensorSpec>,
    /// Where the tensors' bytes begin in the file.
    pub data_start: u64,
    /// What the bytes of a GGUF file's block-wise types mean, by name.
    pub blocks: BTreeMap<String, Blocks>,
    /// Of a GGUF file what the places of its tensors are multiples of; 0 of another.
    pub alignment: u64,
}

/// Length of the header with its own eight bytes, from the first eight bytes of a file.
///
/// # Errors
/// If the length is above the format's limit or the file is shorter than it.
pub fn header_length(first: [u8; 8], file_length: u64) -> Result<u64> {
    let claimed = u64::from_le_bytes(first);
    if claimed > MAX_HEADER {
        return Err(HeaderError::HeaderTooLarge { claimed, limit: MAX_HEADER }.into());
    }
    let needed = claimed + 8;
    if needed > file_length {
        return Err(HeaderError::TruncatedHeader { needed, found: file_length }.into());
    }
    Ok(needed)
}

impl Header {
    /// Parses the JSON of a header and checks every rule of the format against the file's length.
    ///
    /// # Errors
    /// If the JSON is not a header, a name occurs twice, or byte ranges break the format's rules.
    pub fn parse(json: &[u8], file_length: u64) -> Result<Self> {
        let mut fault = None;
        let mut reader = serde_json::Deserializer::from_slice(json);
        let entries = reader
            .deserialize_map(HeaderVisitor { fault: &mut fault })
            .and_then(|entries| reader.end().map(|()| entries));
        if let Some(fault) = fault {
            return Err(fault);
        }
        let (metadata, entries) =
            entries.map_err(|error| HeaderError::BadHeader { reason: error.to_string() })?;
        if let Some(name) = repeated(&entries) {
            return Err(Error::from(HeaderError::DuplicateKey).in_tensor(name));
        }
        let data_start = json.len() as u64 + 8;
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, info) in entries {
            let spec = check_size(name, info)?;
            tensors.push(spec);
        }
        tensors.sort_by(|a, b| (a.start, a.end, &a.name).cmp(&(b.start, b.end, &b.name)));
        check_contiguous(&tensors, data_start, file_length)?;
        Ok(Self { metadata, tensors, data_start, ..Self::default() })
    }
}

fn check_size(name: String, info: Info) -> Result<TensorSpec> {
    let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let bits = info
        .shape
        .iter()
        .try_fold(info.dtype.bitsize(), |bits, &n| bits.checked_mul(n))
        .filter(|bits| bits % 8 == 0);
    let found = end.checked_sub(start);
    if bits.is_none() || found.is_none() || bits.map(|bits| bits as u64 / 8) != found {
        let expected = bits.map_or_else(
            || "more than the address space or no whole number of".to_owned(),
            |bits| (bits / 8).to_string(),
        );
        return Err(Error::from(HeaderError::ByteCount {
            dtype: info.dtype.to_string(),
            shape: info.shape,
            expected,
            found: found.unwrap_or(0),
        })
        .in_tensor(&name));
    }
    Ok(TensorSpec { name, dtype: info.dtype, shape: info.shape, start, end })
}

fn check_contiguous(tensors: &[TensorSpec], data_start: u64, file_length: u64) -> Result<()> {
    let mut expected = 0;
    for tensor in tensors {
        if tensor.start != expected {
            let what = if tensor.start < expected { "overlap" } else { "leave a hole" };
            return Err(HeaderError::Offsets { expected, found: tensor.start, what })
                .in_tensor(&tensor.name);
        }
        expected = tensor.end;
    }
    let end = data_start.saturating_add(expected);
    if end != file_length {
        return Err(HeaderError::FileLength { expected: end, found: file_length }.into());
    }
    Ok(())
}

type Entries = (Option<Metadata>, Vec<(String, Info)>);

/// What a header says of a tensor.
#[derive(Deserialize)]
struct Info {
    dtype: Dtype,
    #[serde(deserialize_with = "shape")]
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// A shape; one of absurdly many dimensions is not held in memory to be refused.
fn shape<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<usize>, D::Error> {
    struct Sizes;
    impl<'de> Visitor<'de> for Sizes {
        type Value = Vec<usize>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of sizes")
        }
        fn visit_seq<A: SeqAccess<'de>>(
            self,
            mut sizes: A,
        ) -> std::result::Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(size) = sizes.next_element()? {
                if shape.len() == MOST_DIMENSIONS {
                    let reason = format!("a shape of more than {MOST_DIMENSIONS} dimensions");
                    return Err(A::Error::custom(reason));
                }
                shape.push(size);
            }
            Ok(shape)
        }
    }
    from.deserialize_seq(Sizes)
}

/// A name that occurs more than once.
fn repeated(entries: &[(String, Info)]) -> Option<&str> {
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first().copied())
}

struct HeaderVisitor<'a> {
    fault: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
        let mut metadata = None;
        let (mut entries, mut name_bytes) = (Vec::new(), 0);
        let mut refuse = |fault: Error| {
            *self.fault = Some(fault);
            Err(A::Error::custom("refused"))
        };
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA_KEY {
                if metadata.is_some() {
                    return refuse(Error::from(HeaderError::DuplicateKey).in_tensor(&name));
                }
                let strict: StrictMetadata = map.next_value()?;
                metadata = strict.0;
                continue;
            }
            name_bytes += name.len();
            if name_bytes > MOST_NAME_BYTES {
                let limit = MOST_NAME_BYTES as u64;
                return refuse(ErrorKind::TooMany { what: "bytes of names", limit }.into());
            }
            if entries.len() == MOST_TENSORS {
                let limit = MOST_TENSORS as u64;
                return refuse(ErrorKind::TooMany { what: "tensors", limit }.into());
            }
            let info = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("`{}`: {error}", clipped(&name))))?;
            entries.push((name, info));
        }
        Ok((metadata, entries))
    }
}

/// `__metadata__`: null, or an object of strings without repeated keys.
struct StrictMetadata(Option<Metadata>);

impl<'de> serde::Deserialize<'de> for StrictMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = StrictMetadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`__metadata__` to be an object of strings")
            }
            fn visit_unit<E>(self) -> std::result::Result<StrictMetadata, E> {
                Ok(StrictMetadata(None))
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<StrictMetadata, A::Error> {
                let mut metadata = Metadata::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if let Some(_earlier) = metadata.insert(key.clone(), value) {
                        return Err(A::Error::custom(format!(
                            "`__metadata__` names `{key}` twice"
                        )));
                    }
                }
                Ok(StrictMetadata(Some(metadata)))
            }
        }
        deserializer.deserialize_any(Strings)
    }
}

/// Lays tensors out one after another and gives each its byte range.
///
/// `tensors` are (name, dtype, shape) in the order they shall have in the file.
pub fn lay_out(tensors: impl IntoIterator<Item = (String, Dtype, Vec<usize>)>) -> Vec<TensorSpec> {
    let mut start = 0;
    tensors
        .into_iter()
        .map(|(name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() as u64 * dtype.bitsize() as u64 / 8;
            let spec = TensorSpec { name, dtype, shape, start, end: start + bytes };
            start = spec.end;
            spec
        })
        .collect()
}

/// The bytes of a header: length, JSON in the given order, spaces up to a multiple of eight.
///
/// # Errors
/// If the JSON is longer than the format allows.
pub fn encode(metadata: Option<&Metadata>, tensors: &[TensorSpec]) -> Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    if let Some(metadata) = metadata {
        let strings = metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
        entries.insert(METADATA_KEY.to_owned(), serde_json::Value::Object(strings.collect()));
    }
    for tensor in tensors {
        let entry = serde_json::json!({
            "dtype": tensor.dtype.to_string(),
            "shape": tensor.shape,
            "data_offsets": [tensor.start, tensor.end],
        });
        entries.insert(tensor.name.clone(), entry);
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let length = json.len() as u64;
    if length > MAX_HEADER {
        return Err(HeaderError::HeaderTooLarge { claimed: length, limit: MAX_HEADER }.into());
    }
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// A header with spaces after it, so that the tensors begin at this byte of the file.
///
/// # Errors
/// If it is longer than that already, or longer than the format allows.
pub fn padded(mut header: Vec<u8>, start: usize) -> Result<Vec<u8>> {
    let length = start.saturating_sub(8) as u64;
    if start < header.len() || length > MAX_HEADER {
        let limit = MAX_HEADER.min(length);
        return Err(HeaderError::HeaderTooLarge { claimed: header.len() as u64, limit }.into());
    }
    header.resize(start, b' ');
    for (place, byte) in header.iter_mut().zip(length.to_le_bytes()) {
        *place = byte;
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, data: u64) -> Result<Header> {
        Header::parse(json.as_bytes(), json.len() as u64 + 8 + data)
    }

    #[test]
    fn order_is_that_of_the_bytes_and_metadata_keeps_its_own() {
        let json = r#"{"__metadata__":{"z":"1","a":"2"},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
            "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        let header = parse(json, 12).expect("a valid header");
        let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let keys: Vec<_> = header.metadata.as_ref().expect("metadata").keys().collect();
        assert_eq!(keys, ["z", "a"]);
        let again = encode(header.metadata.as_ref(), &header.tensors).expect("encodes");
        assert_eq!(again.len() % 8, 0);
        let reparsed = Header::parse(&again[8..], again.len() as u64 + 12).expect("parses again");
        assert_eq!(reparsed.tensors, header.tensors);
    }

    #[test]
    fn every_broken_rule_is_an_error() {
        let tensor = |start: u64, end: u64| {
            format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}"#)
        };
        let cases = [
            (format!(r#"{{"a":{},"a":{}}}"#, tensor(0, 4), tensor(0, 4)), 4, "twice"),
            (format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(0, 4)), 4, "overlap"),
            (format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(8, 12)), 12, "hole"),
            (format!(r#"{{"a":{}}}"#, tensor(0, 8)), 8, "needs 4 bytes"),
            (format!(r#"{{"a":{}}}"#, tensor(8, 4)), 8, "needs 4 bytes"),
            (format!(r#"{{"a":{}}}"#, tensor(0, 4)), 8, "padded"),
            (format!(r#"{{"a":{}}}"#, tensor(0, 4)), 2, "truncated"),
            (r#"{"a":{"dtype":"F99","shape":[],"data_offsets":[0,0]}}"#.into(), 0, "F99"),
            (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.into(), 4, "`a`"),
            (
                r#"{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#
                    .into(),
                0,
                "address space",
            ),
            (r#"{"__metadata__":{"a":1}}"#.into(), 0, "string"),
            (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), 0, "twice"),
            ("[]".into(), 0, "object"),
            ("{} x".into(), 0, "trailing"),
        ];
        for (json, data, expected) in cases {
            let error = parse(&json, data).expect_err(&json).to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        assert!(header_length(u64::MAX.to_le_bytes(), 100).is_err());
        assert!(header_length(93_u64.to_le_bytes(), 100).is_err());
        assert_eq!(header_length(92_u64.to_le_bytes(), 100).expect("fits"), 100);
    }
}
