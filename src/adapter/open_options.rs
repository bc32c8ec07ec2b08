//! How to open an adapter.

use super::convention::gguf_names::Heads;
use super::orientation::OrientationRule;
use super::scale::ScaleOverride;
use super::stacks::ExpertSizes;
use crate::error::Result;
use crate::format::{Access, Checkpoint};

/// How to open an adapter.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// How its file is read.
    pub access: Access,
    /// The convention's name, where the keys shall not decide.
    pub convention: Option<String>,
    /// The scale, where the file does not say it.
    pub scale: ScaleOverride,
    /// Config fields taken as harmless though unknown.
    pub ignored_fields: Vec<String>,
    /// The base is the residual that a base-changing initialisation left.
    pub residual_base: bool,
    /// What the config says and the tensors do not bear out is no fault: alphas that differ, where the tensors'
    /// hold, and `use_dora` without any magnitudes. For whoever says what programs make of it.
    #[serde(skip)]
    pub contested: bool,
    /// Heads of the base's attention, where a file's rows depend on them.
    pub heads: Option<Heads>,
    /// Experts of the base, where a file's sides depend on them.
    pub experts: Option<ExpertSizes>,
    /// What is said of the base's weights whose sizes do not tell which way round they lie.
    pub orientation: Vec<OrientationRule>,
}

impl OpenOptions {
    /// The same for an adapter of this base.
    ///
    /// # Errors
    /// If the base has a config that cannot be read.
    pub fn for_base(&self, base: &Checkpoint) -> Result<Self> {
        let heads = match self.heads {
            Some(heads) => Some(heads),
            None => match Heads::of_gguf(base) {
                Some(heads) => Some(heads),
                None => Heads::of_base(&base.path)?,
            },
        };
        Ok(Self { experts: ExpertSizes::of(base), heads, ..self.clone() })
    }
}
