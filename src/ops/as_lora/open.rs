//! A plan with its inputs open.

use std::path::Path;

use serde_json::json;

use super::options::Options;
use super::origin::Planned;
use super::report::Report;
use crate::adapter::Adapter;
use crate::adapter::convention::Convention;
use crate::adapter::convert::Takes;
use crate::adapter::module::Module;
use crate::adapter::save::NewReplacement;
use crate::error::{ErrorKind, Result};
use crate::format::Metadata;
use crate::ops::merge::Merge;
use crate::ops::shared::provenance;

/// A plan with its inputs open.
#[derive(Debug)]
pub struct AsLora {
    /// What will be, or is.
    pub report: Report,
    pub(super) adapter: Adapter,
    /// The adapter on its base, where a module depends on it.
    pub(super) merge: Option<Merge>,
    pub(super) modules: Vec<Planned>,
    pub(super) replacements: Vec<NewReplacement>,
    pub(super) native: &'static Convention,
    pub(super) target: &'static Convention,
    pub(super) takes: Option<&'static Takes>,
    pub(super) options: Options,
}

impl AsLora {
    /// The module of the adapter that something is planned of.
    pub(super) fn module(&self, planned: &Planned) -> Result<&Module> {
        self.adapter.modules.get(planned.module).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The metadata of the file that is written.
    pub(super) fn metadata(&self) -> Metadata {
        let shard = self.adapter.file.shards.first();
        let mut metadata =
            shard.and_then(|shard| shard.header.metadata.clone()).unwrap_or_default();
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "as": "lora",
            "adapter": name(&self.options.convert.adapter),
            "reference": self.options.convert.reference.as_deref().map(name),
            "rank": self.options.rank.to_string(),
        });
        provenance::describe(&mut metadata, &made, None);
        metadata
    }
}
