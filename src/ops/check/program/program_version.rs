//! A program as a user names it: `NAME`, or `NAME@VERSION`.

use super::{Program, by_name};
use crate::adapter::convert::Takes;
use crate::error::{ErrorKind, Result};
use crate::ops::check::version::Version;

/// A program, and a version if not the newest is meant.
#[derive(Clone)]
pub(in crate::ops) struct ProgramVersion {
    pub(in crate::ops) program: &'static Program,
    pub(in crate::ops) version: Option<Version>,
}

impl ProgramVersion {
    /// Reads `NAME[@VERSION]`.
    ///
    /// # Errors
    /// If there is no such program, or its version is no number.
    pub(in crate::ops) fn parse(text: &str) -> Result<Self> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let program = by_name(name)?;
        let parse = |text: &str| {
            Version::parse(text).ok_or_else(|| {
                ErrorKind::BadOption(format!(
                    "`{text}` is no version of {name}; they are numbers: {name}@{}",
                    program.version
                ))
            })
        };
        Ok(Self { program, version: version.map(parse).transpose()? })
    }

    /// What has to be written for this version.
    pub(in crate::ops) fn takes(&self) -> &'static Takes {
        let older = |(until, _): &&(&str, Takes)| {
            let until = Version::parse(until);
            self.version.as_ref().zip(until).is_some_and(|(own, until)| *own < until)
        };
        let found = self.program.older.iter().find(older);
        found.map_or(&self.program.takes, |(_, takes)| takes)
    }

    /// How `convert --for` names it: with the version where something else is written for it.
    pub(in crate::ops) fn target(&self) -> String {
        let name = self.program.name;
        match &self.version {
            Some(version) if !std::ptr::eq(self.takes(), &raw const self.program.takes) => {
                format!("{name}@{version}")
            }
            _ => name.to_owned(),
        }
    }
}
