//! kohya's hashes of a LoRA file, which A1111 and Civitai know files by (`library/train_util.py`,
//! `precalculate_safetensors_hashes`): both are of the file as the reference implementation would
//! write it with only the training metadata (`ss_*`) in its header.

use crate::error::Result;
use crate::format::hash::Hasher;
use crate::format::header::{encode, lay_out};
use crate::format::{Dtype, Metadata};

/// Header keys of the two hashes.
pub const MODEL_HASH: &str = "sshs_model_hash";
/// See [`MODEL_HASH`].
pub const LEGACY_HASH: &str = "sshs_legacy_hash";

/// The order in which the reference implementation writes tensors: the widest dtype first, then by
/// name.
pub fn file_order(a: (&str, Dtype), b: (&str, Dtype)) -> std::cmp::Ordering {
    b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0))
}

/// Both hashes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256 of all bytes after the header, as hexadecimal digits; its start is A1111's AutoV3.
    pub model: String,
    /// The first eight digits of the SHA-256 of 64 KiB at 1 MiB; none where that window reaches into
    /// the header, whose order the reference implementation leaves to chance.
    pub legacy: Option<String>,
}

/// Where the window of the older hash begins and how long it is.
const WINDOW: (u64, u64) = (0x10_0000, 0x1_0000);

impl Hashes {
    /// Hashes a file with these tensors (name, dtype, shape), in [`file_order`].
    ///
    /// `feed` is called once, with what takes the tensors' bytes in the same order, piece by piece.
    ///
    /// # Errors
    /// Those of `feed`, and a header that is longer than the format allows.
    pub fn of(
        tensors: impl IntoIterator<Item = (String, Dtype, Vec<usize>)>,
        metadata: &Metadata,
        feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<()>,
    ) -> Result<Self> {
        let training = metadata.iter().filter(|(key, _)| key.starts_with("ss_"));
        let training = training.map(|(key, value)| (key.clone(), value.clone())).collect();
        let header = encode(Some(&training), &lay_out(tensors))?.len() as u64;
        let mut all = Hasher::default();
        let mut window = Hasher::default();
        let mut position = header;
        feed(&mut |bytes: &[u8]| {
            all.update(bytes);
            window.update(overlap(bytes, position));
            position += bytes.len() as u64;
        })?;
        let legacy = (header <= WINDOW.0).then(|| {
            let digits = window.finish();
            digits.chars().take(8).collect()
        });
        Ok(Self { model: all.finish(), legacy })
    }

    /// Writes them into a header, in place of older ones.
    pub fn insert(self, metadata: &mut Metadata) {
        metadata.insert(MODEL_HASH.to_owned(), self.model);
        match self.legacy {
            Some(legacy) => {
                metadata.insert(LEGACY_HASH.to_owned(), legacy);
            }
            None => {
                metadata.shift_remove(LEGACY_HASH);
            }
        }
    }
}

/// The part of `bytes`, which begin at `position`, that lies in the window.
fn overlap(bytes: &[u8], position: u64) -> &[u8] {
    let inside = |at: u64| at.saturating_sub(position).min(bytes.len() as u64) as usize;
    bytes.get(inside(WINDOW.0)..inside(WINDOW.0 + WINDOW.1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_cut_out_of_any_piece() {
        let bytes = vec![7; 0x3_0000];
        assert!(overlap(&bytes, 0).is_empty());
        assert_eq!(overlap(&bytes, 0xF_0000).len(), 0x1_0000);
        assert_eq!(overlap(&bytes, 0x10_8000).len(), 0x8000);
        assert_eq!(overlap(&bytes, 0xF_FFFF).len(), 0x1_0000);
        assert!(overlap(&bytes, 0x11_0000).is_empty());
    }
}
