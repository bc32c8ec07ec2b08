//! What is noted of a finished part, so that it need not be made again: the hashes of its files, and what the verb has
//! to say of them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::format::hash;

/// What has become of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum State {
    /// It is as it was made.
    Whole,
    /// It was tried, and cannot be made.
    Failed,
    /// It is not there.
    Missing,
    /// It is not as it was made.
    Altered,
}

/// What is noted of a finished part.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::ops) struct Note {
    /// The part's name.
    pub(in crate::ops) part: String,
    /// Its files by their paths below the place where they are made, with the SHA-256 of each.
    pub(in crate::ops) files: Vec<(String, String)>,
    /// What the verb has to say.
    pub(in crate::ops) said: Value,
}

impl Note {
    /// The note of a part with one file, which is whole and lies at `path`.
    ///
    /// # Errors
    /// If it cannot be read back, or JSON not be made of what is said.
    pub(in crate::ops) fn of_file(
        part: &str,
        (relative, path): (&str, &Path),
        said: &impl Serialize,
    ) -> Result<Self> {
        let files = vec![(relative.to_owned(), hash::of_file(path)?)];
        Self::new(part, files, said)
    }

    /// The note of a part with these files.
    ///
    /// # Errors
    /// If JSON cannot be made of what is said.
    pub(in crate::ops) fn new(
        part: &str,
        files: Vec<(String, String)>,
        said: &impl Serialize,
    ) -> Result<Self> {
        let said = serde_json::to_value(said).map_err(std::io::Error::other)?;
        Ok(Self { part: part.to_owned(), files, said })
    }

    /// A note as it was written; none if it was cut short.
    pub(in crate::ops) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// As it is written.
    ///
    /// # Errors
    /// If JSON cannot be made of it.
    pub(in crate::ops) fn text(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self).map_err(std::io::Error::other)?)
    }

    /// What the verb said; none if it is not of this kind.
    pub(in crate::ops) fn said<T: DeserializeOwned>(&self) -> Option<T> {
        T::deserialize(&self.said).ok()
    }

    /// Whether all files of a part lie as they were finished, each below `place`.
    pub(in crate::ops) fn state(&self, part: &str, place: &Path) -> State {
        if self.part != part {
            return State::Altered;
        }
        let mut state = State::Whole;
        for (relative, sha256) in &self.files {
            let path = place.join(relative);
            let Ok(metadata) = path.symlink_metadata() else { return State::Missing };
            // A link would go out as one.
            if !metadata.is_file() || hash::of_file(&path).ok().as_ref() != Some(sha256) {
                state = State::Altered;
            }
        }
        state
    }
}

/// The name of a part's note.
pub(in crate::ops) fn name(number: usize) -> String {
    format!("part-{number:05}.json")
}
