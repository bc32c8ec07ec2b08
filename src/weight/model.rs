//! One model of a checkpoint as the encodings see it: tensors by name, the config, and what its files' headers
//! say.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, QuantError, Result};
use crate::format::{Checkpoint, Component, json};

use super::decode::Recognised;
use super::{Config, Stored};

/// Companions that describe activations: they go where the weight's codes go.
const ACTIVATIONS: [&str; 6] = [
    "input_scale",
    "scale_input",
    "input_scale_ub",
    "activation_scale",
    "input_global_scale",
    "input_zero_point",
];

/// ComfyUI's description of layers, in a header's metadata.
pub(super) const COMFY_METADATA: &str = "_quantization_metadata";

/// Endings of names that only scales of 8-bit floats have.
const SCALES: [&str; 4] = [".weight_scale", ".weight_scale_inv", ".scale_weight", "_scale_inv"];

/// One model.
#[derive(Debug)]
pub(super) struct Model<'a> {
    checkpoint: &'a Checkpoint,
    /// Put before its tensors' names.
    pub(super) prefix: &'a str,
    pub(super) config: &'a Config,
    comfy: BTreeMap<String, Value>,
    /// One scale of the model, if it has any.
    pub(super) any_scale: Option<String>,
}

impl<'a> Model<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        component: &'a Component,
        config: &'a Config,
    ) -> Self {
        let shards = checkpoint.shards.get(component.shards.clone()).unwrap_or_default();
        let mut comfy = BTreeMap::new();
        let metadata = shards.iter().filter_map(|shard| shard.header.metadata.as_ref());
        for text in metadata.filter_map(|metadata| metadata.get(COMFY_METADATA)) {
            let parsed: Option<Value> = json::tree(text.as_bytes()).ok();
            let layers = parsed.as_ref().and_then(|parsed| parsed.get("layers")?.as_object());
            for (layer, settings) in layers.into_iter().flatten() {
                comfy.insert(layer.clone(), settings.clone());
            }
        }
        let names = shards.iter().flat_map(|shard| &shard.header.tensors).map(|spec| &spec.name);
        let mut scales = names.filter(|name| {
            SCALES.iter().any(|ending| name.ends_with(ending)) || name.ends_with("scaled_fp8")
        });
        let any_scale = scales.next().cloned();
        Self { checkpoint, prefix: &component.prefix, config, comfy, any_scale }
    }

    /// The tensor of this (prefixed) name.
    pub(super) fn tensor(&self, name: &str) -> Option<Stored> {
        Some(Stored::new(name, self.checkpoint.tensor(name)?))
    }

    /// A companion that must be there.
    pub(super) fn need(&self, of: &Stored, name: &str, scheme: &'static str) -> Result<Stored> {
        self.tensor(name)
            .ok_or_else(|| of.error(QuantError::Missing { scheme, missing: name.to_owned() }))
    }

    /// A module's name without the component's prefix, as configs have it.
    pub(super) fn module<'n>(&self, module: &'n str) -> &'n str {
        module.strip_prefix(self.prefix).unwrap_or(module)
    }

    /// ComfyUI's settings of a layer: its own tensor's, or the header's.
    pub(super) fn comfy(&self, module: &str) -> Result<Option<Value>> {
        if let Some(settings) = self.tensor(&format!("{module}.comfy_quant")) {
            let bytes = settings.all()?;
            let bad = |reason: String| settings.error(QuantError::BadState { reason });
            let parsed = json::tree(&bytes).map_err(|error| bad(error.to_string()))?;
            return Ok(Some(parsed));
        }
        let module = self.module(module);
        // Layers are named without the prefix that some files put before a denoiser's tensors.
        let short = module.strip_prefix("model.diffusion_model.").unwrap_or(module);
        Ok(self.comfy.get(module).or_else(|| self.comfy.get(short)).cloned())
    }

    /// What an encoding found; `own` are names of its companions, of those that exist.
    pub(super) fn recognised(
        &self,
        name: &str,
        module: &str,
        parts: &[&str],
        found: Recognised,
    ) -> Recognised {
        let activations = ACTIVATIONS.iter().map(|ending| format!("{module}.{ending}"));
        let named = parts.iter().map(|part| (*part).to_owned());
        let parts = named.chain(activations).filter(|part| self.checkpoint.tensor(part).is_some());
        Recognised { name: name.to_owned(), parts: parts.collect(), ..found }
    }

    /// What a GGUF file says of the types of its blocks.
    pub(super) fn blocks(&self, name: &str) -> Option<(u32, Vec<usize>)> {
        let view = self.checkpoint.tensor(name)?;
        let blocks = view.shard.header.blocks.get(&view.spec.name)?;
        Some((blocks.kind, blocks.shape.clone()))
    }

    /// A value of the metadata of the model's files.
    pub(super) fn metadata(&self, name: &str, key: &str) -> Option<&'a str> {
        let view = self.checkpoint.tensor(name)?;
        view.shard.header.metadata.as_ref()?.get(key).map(String::as_str)
    }

    /// A scheme that is known and not read.
    pub(super) fn unsupported(of: &Stored, what: impl Into<String>) -> Error {
        of.error(QuantError::Unsupported { what: what.into() })
    }
}
