//! An adapter's tensors as a convention opens them, with what stood beside them.

use std::path::{Path, PathBuf};

use super::gguf_names::{Architecture, Heads};
use crate::adapter::sidecar::PeftConfig;
use crate::format::Checkpoint;

/// What a reader is told of a file whose numbers alone do not say it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReadOptions<'a> {
    /// Config fields taken as harmless though unknown.
    pub(crate) ignored_fields: &'a [String],
    /// The base is the residual that a base-changing initialisation left.
    pub(crate) residual_base: bool,
    /// Heads of the base's attention, where rows of the file depend on them.
    pub(crate) heads: Option<Heads>,
}

/// The convention's own config beside the tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Config<'a> {
    /// As a file.
    File(&'a Path),
    /// As what the file will hold.
    Text(&'a [u8]),
}

/// Tensors in the orientation and under the names that modules are computed in, and what their sidecar says.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The tensors.
    pub(crate) file: Checkpoint,
    /// The config file that was read.
    pub(crate) config_path: Option<PathBuf>,
    /// PEFT's config.
    pub(crate) config: Option<PeftConfig>,
    /// PEFT's config of each component of a pipeline.
    pub(crate) components: Vec<(String, PeftConfig)>,
    /// The one scale of all modules, where a config says it.
    pub(crate) stated_scale: Option<f64>,
    /// llama.cpp's architecture, and modules whose rows are still in its order.
    pub(crate) architecture: Option<(&'static Architecture, Vec<String>)>,
}

impl Opened {
    /// Tensors with nothing beside them.
    pub(crate) fn new(file: Checkpoint) -> Self {
        Self {
            file,
            config_path: None,
            config: None,
            components: Vec::new(),
            stated_scale: None,
            architecture: None,
        }
    }
}
