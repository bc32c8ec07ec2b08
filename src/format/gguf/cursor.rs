//! Reads the header of a GGUF file value by value, within bounds.

use super::{CUT, Entry, LONGEST_TEXT, bad};
use crate::error::Result;
use crate::format::ggml;

/// The bytes of a header, read from the front.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| bad(CUT))?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| bad(CUT))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        if length > LONGEST_TEXT {
            return Err(bad(format!("a text of {length} bytes in its header")));
        }
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| bad("a text in its header is not UTF-8"))
    }

    /// A value as text; lists only at the top.
    pub(super) fn value(&mut self, kind: u32, lists: bool) -> Result<String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).to_string(),
            1 => i8::from_le_bytes(self.array()?).to_string(),
            2 => u16::from_le_bytes(self.array()?).to_string(),
            3 => i16::from_le_bytes(self.array()?).to_string(),
            4 => self.u32()?.to_string(),
            5 => i32::from_le_bytes(self.array()?).to_string(),
            6 => f32::from_le_bytes(self.array()?).to_string(),
            7 => (self.array::<1>()? != [0]).to_string(),
            8 => self.text()?,
            9 if lists => self.list()?,
            10 => self.u64()?.to_string(),
            11 => i64::from_le_bytes(self.array()?).to_string(),
            12 => f64::from_le_bytes(self.array()?).to_string(),
            _ => return Err(bad(format!("a pair of type {kind}, which there is not"))),
        })
    }

    /// A list; of long ones only the first values are kept.
    pub(super) fn list(&mut self) -> Result<String> {
        const KEPT: u64 = 64;
        let (kind, count) = (self.u32()?, self.u64()?);
        let mut shown = Vec::new();
        for at in 0..count {
            let value = self.value(kind, false)?;
            if at < KEPT {
                shown.push(value);
            }
        }
        let more = if count > KEPT { ", …" } else { "" };
        Ok(format!("[{}{more}]", shown.join(", ")))
    }

    pub(super) fn entry(&mut self) -> Result<Entry> {
        let name = self.text()?;
        self.rest_of_entry(&name).map_err(|error| error.in_tensor(&name))
    }

    pub(super) fn rest_of_entry(&mut self, name: &str) -> Result<Entry> {
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(bad(format!("{dimensions} dimensions; a tensor has at most 4")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(self.u64()?).map_err(|_| bad("a size beyond all memory"))?;
            // ggml names the innermost dimension first.
            shape.insert(0, size);
        }
        let kind = self.u32()?;
        let start = self.u64()?;
        let elements = shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size as u64));
        let (block, size) = ggml::block(kind).ok_or_else(|| {
            bad(format!(
                "type {kind}, shape {shape:?}; ggml has no such type, or none that is read"
            ))
        })?;
        let columns = shape.last().copied().unwrap_or(1);
        let whole = elements.filter(|_| columns % block == 0);
        let bytes = whole.and_then(|n| (n / block as u64).checked_mul(size as u64));
        let bytes = bytes.ok_or_else(|| {
            bad(format!("type {kind}, shape {shape:?}: rows of it are multiples of {block}"))
        })?;
        Ok(Entry { name: name.to_owned(), shape, kind, start, bytes })
    }
}
