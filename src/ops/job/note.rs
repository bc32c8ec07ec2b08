//! What is noted of a finished part, so that it need not be made again: the fingerprints of its files, and what the verb has
//! to say of them.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorKind, Locate, Result};

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
    /// Its files by their paths below the place where they are made, with the fingerprint of each: the SHA-256, or what a
    /// store knows it by.
    pub(in crate::ops) files: Vec<(String, String)>,
    /// What the verb has to say.
    pub(in crate::ops) said: Value,
}

impl Note {
    /// The note of a part with these files, which are whole and known by their fingerprints.
    ///
    /// # Errors
    /// If one of them is not there, or JSON cannot be made of what is said.
    pub(in crate::ops) fn new(
        part: &str,
        files: Vec<String>,
        fingerprint: impl Fn(&str) -> Option<String>,
        said: &impl Serialize,
    ) -> Result<Self> {
        let known = |file: String| {
            let found = fingerprint(&file).ok_or(ErrorKind::NotFound);
            found.in_file(Path::new(&file)).map(|found| (file, found))
        };
        let files = files.into_iter().map(known).collect::<Result<_>>()?;
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

    /// Whether all files of a part are as they were finished, by their fingerprints now.
    pub(in crate::ops) fn state(
        &self,
        part: &str,
        fingerprint: impl Fn(&str) -> Option<String>,
    ) -> State {
        if self.part != part {
            return State::Altered;
        }
        let mut state = State::Whole;
        for (relative, noted) in &self.files {
            match fingerprint(relative) {
                None => return State::Missing,
                Some(found) if found == *noted => {}
                Some(_) => state = State::Altered,
            }
        }
        state
    }
}

/// The name of a part's note.
pub(in crate::ops) fn name(number: usize) -> String {
    format!("part-{number:05}.json")
}
