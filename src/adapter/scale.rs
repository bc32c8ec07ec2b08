//! The scale of a module's update: where it may be written, and which place wins.
//!
//! Precedence: an alpha tensor, then the config, then the header, then the convention's meaning of
//! nothing at all. Two places that disagree are an error, never a choice.

use serde::{Deserialize, Serialize};

use super::key::{MissingAlpha, split_component};
use super::sidecar::PeftConfig;
use crate::error::{ErrorKind, Result};
use crate::format::Metadata;

/// llama.cpp's header entry with the one alpha of all modules; 0 or absent means scale 1.
pub(super) const GGUF_ALPHA: &str = "adapter.lora.alpha";

/// Where a scale was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleSource {
    /// The module's alpha tensor.
    AlphaTensor,
    /// `lora_alpha` or `alpha_pattern` of the config.
    Config,
    /// The file's header.
    Header,
    /// No alpha anywhere, which in this convention means 1.
    Convention,
    /// The family, which has no scale or one of its own.
    Family,
    /// The user.
    Option,
}

impl ScaleSource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlphaTensor => "the alpha tensor",
            Self::Config => "adapter_config.json",
            Self::Header => "the file's header",
            Self::Convention => "no alpha, which means scale 1",
            Self::Family => "the family's own rule",
            Self::Option => "the command line",
        }
    }
}

/// A module's scale and its origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// What B · A is multiplied by.
    pub value: f64,
    /// The alpha it was made of, if any.
    pub alpha: Option<f64>,
    /// Where it is from.
    pub source: ScaleSource,
}

/// What a user says of a file that does not say it itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ScaleOverride {
    /// Alpha: scale = alpha/rank (with `rslora`, alpha/√rank).
    pub alpha: Option<f64>,
    /// The scale itself.
    pub scale: Option<f64>,
    /// Divide by √rank.
    pub rslora: bool,
}

impl ScaleOverride {
    pub(super) fn check(self) -> Result<()> {
        for (name, value) in [("alpha", self.alpha), ("scale", self.scale)] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                let reason = format!("{name} {value} is not a finite number");
                return Err(ErrorKind::BadOption(reason).into());
            }
        }
        Ok(())
    }
}

/// All that is known about scales in one file.
#[derive(Debug)]
pub(super) struct ScaleSources<'a> {
    pub(super) config: Option<&'a PeftConfig>,
    /// Configs of a pipeline's components.
    pub(super) components: &'a [(String, PeftConfig)],
    /// The scale itself, as a config says it.
    pub(super) stated: Option<f64>,
    pub(super) metadata: Option<&'a Metadata>,
    pub(super) missing: MissingAlpha,
    pub(super) given: ScaleOverride,
    /// Where alphas differ, the tensor's is taken and no fault made of it.
    pub(super) contested: bool,
}

impl Scale {
    /// The alpha, where dividing it by the rank is all that makes the scale.
    pub fn exact_alpha(&self, rank: usize) -> Option<f64> {
        self.alpha.filter(|alpha| alpha / rank as f64 == self.value)
    }

    /// A scale that the family itself says.
    pub(super) fn of_family(value: f64, alpha: Option<f64>) -> Self {
        Self { value, alpha, source: ScaleSource::Family }
    }
}

impl ScaleSources<'_> {
    /// The scale of one module of this rank. `tensor` is its alpha tensor's value, if it has one.
    pub(super) fn resolve(&self, module: &str, rank: usize, tensor: Option<f64>) -> Result<Scale> {
        if let Some(value) = self.stated {
            return Ok(Scale { value, alpha: None, source: ScaleSource::Config });
        }
        let (config, module) = self.config_of(module);
        let expected = config.and_then(|config| config.rank_of(module));
        if let Some(expected) = expected.filter(|expected| *expected != rank) {
            return Err(ErrorKind::RankConfig { expected, found: rank }.into());
        }
        let written = config.and_then(|config| config.alpha_of(module));
        let found = [
            tensor.map(|alpha| (alpha, ScaleSource::AlphaTensor)),
            written.map(|alpha| (alpha, ScaleSource::Config)),
            self.header_alpha()?.map(|alpha| (alpha, ScaleSource::Header)),
        ];
        let mut found = found.into_iter().flatten();
        let Some((alpha, source)) = found.next() else { return self.without_alpha(rank) };
        if let Some((second, second_source)) =
            found.find(|(found, _)| !self.contested && differs(*found, alpha))
        {
            return Err(ErrorKind::ScaleConflict {
                first: alpha,
                first_source: source.name(),
                second,
                second_source: second_source.name(),
            }
            .into());
        }
        let rslora = config.is_some_and(|config| config.rslora);
        Ok(Scale { value: divide(alpha, rank, rslora), alpha: Some(alpha), source })
    }

    /// The config that speaks of a module, and the name it knows it by.
    fn config_of<'m>(&self, module: &'m str) -> (Option<&PeftConfig>, &'m str) {
        if self.config.is_some() || self.components.is_empty() {
            return (self.config, module);
        }
        let (component, path) = split_component(module).unwrap_or(("", module));
        let config = self.components.iter().find(|(name, _)| name == component);
        (config.map(|(_, config)| config), path)
    }

    fn without_alpha(&self, rank: usize) -> Result<Scale> {
        let ScaleOverride { alpha, scale, rslora } = self.given;
        match (scale, alpha, self.missing) {
            (Some(value), _, _) => Ok(Scale { value, alpha: None, source: ScaleSource::Option }),
            (None, Some(alpha), _) => Ok(Scale {
                value: divide(alpha, rank, rslora),
                alpha: Some(alpha),
                source: ScaleSource::Option,
            }),
            (None, None, MissingAlpha::One) => {
                Ok(Scale { value: 1.0, alpha: None, source: ScaleSource::Convention })
            }
            (None, None, MissingAlpha::Unknown) => Err(ErrorKind::UnknownScale.into()),
        }
    }

    /// Writers that keep alpha in the header only (ComfyUI#15830 lists the spellings).
    fn header_alpha(&self) -> Result<Option<f64>> {
        let Some(metadata) = self.metadata else { return Ok(None) };
        let spelled = ["lora_alpha", "network_alpha", "alpha", GGUF_ALPHA];
        let entry = metadata
            .iter()
            .find(|(key, _)| spelled.contains(&key.as_str()) || key.ends_with(".lora_alpha"));
        let Some((key, text)) = entry else { return Ok(None) };
        match text.trim().parse::<f64>() {
            Ok(alpha) if alpha.is_finite() => Ok(Some(alpha)),
            _ => {
                let reason = format!("the header's `{key}` is `{text}`, which is no number");
                Err(ErrorKind::BadConfig { reason }.into())
            }
        }
    }
}

impl PeftConfig {
    /// What PEFT multiplies a module of this rank by, which reads the config alone: without an alpha, 8.
    pub fn scale_of(&self, module: &str, rank: usize) -> f64 {
        divide(self.alpha_of(module).unwrap_or(8.0), rank, self.rslora)
    }
}

/// The scale that an alpha means at a rank.
pub(super) fn divide(alpha: f64, rank: usize, rslora: bool) -> f64 {
    let rank = rank as f64;
    alpha / if rslora { rank.sqrt() } else { rank }
}

/// More apart than a bf16 alpha's rounding.
fn differs(a: f64, b: f64) -> bool {
    (a - b).abs() > a.abs().max(b.abs()) / 128.0
}
