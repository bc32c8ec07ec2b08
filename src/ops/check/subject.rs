//! What is judged: an adapter, for a version of a program, against a base where one is given; and the
//! questions that rules ask of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::base::Base;
use super::place::{Found, Place};
use crate::adapter::module::Module;
use crate::adapter::{Adapter, layout};

/// An adapter and all that is known of where it shall go.
pub(super) struct Subject<'a> {
    pub(super) adapter: &'a Adapter,
    pub(super) base: Option<&'a Base>,
    /// The highest rank that the server was started for.
    pub(super) max_rank: Option<usize>,
    /// The image or video models that the adapter or the base tell they are.
    pub(super) models: &'a BTreeSet<&'static str>,
}

/// Image and video models by diffusers' class, and by parts of names that only they have.
const MODELS: [(&str, &[&str], &[&str]); 14] = [
    (
        "flux2",
        &["Flux2Transformer2DModel"],
        &["stream_modulation", "to_qkv_mlp_proj", "time_guidance_embed"],
    ),
    (
        "ltx2",
        &["LTX2VideoTransformer3DModel"],
        &["audio_to_video_attn", "audio_patchify_proj", "audio_proj_in", "av_ca_", "av_cross_attn"],
    ),
    ("ltx", &["LTXVideoTransformer3DModel"], &[]),
    ("auraflow", &["AuraFlowTransformer2DModel"], &[]),
    ("flux", &["FluxTransformer2DModel"], &[]),
    ("chroma", &["ChromaTransformer2DModel"], &["distilled_guidance_layer"]),
    ("wan", &["WanTransformer3DModel", "WanVACETransformer3DModel"], &[]),
    ("qwen_image", &["QwenImageTransformer2DModel"], &[]),
    ("hunyuan_video", &["HunyuanVideoTransformer3DModel"], &[]),
    ("lumina", &["ZImageTransformer2DModel", "Lumina2Transformer2DModel"], &[]),
    ("sd3", &["SD3Transformer2DModel"], &[]),
    ("hidream", &["HiDreamImageTransformer2DModel"], &["double_stream_blocks"]),
    ("unet", &["UNet2DConditionModel"], &[]),
    ("pixart", &["PixArtTransformer2DModel"], &[]),
];

/// The models that an adapter's names or a base's class tell. A class that says one has the last word.
pub(super) fn models(adapter: &Adapter, base: Option<&Base>) -> BTreeSet<&'static str> {
    let class = base.and_then(Base::class);
    let by_class = MODELS.iter().find(|known| class.is_some_and(|class| known.1.contains(&class)));
    if let Some((name, ..)) = by_class {
        return BTreeSet::from([*name]);
    }
    let told = layout::architectures(adapter);
    let has = |part: &&str| adapter.modules.iter().any(|module| module.name.contains(part));
    let by_parts = || MODELS.iter().find(|(_, _, parts)| parts.iter().any(has));
    if told.is_empty() { by_parts().map(|(name, ..)| *name).into_iter().collect() } else { told }
}

/// Layers of language models: what stands before a layer's number.
const LAYERS: [&str; 5] = ["layers", "h", "layer", "block", "blocks"];

/// Parts of paths of towers and connectors beside a language model.
const TOWERS: [&str; 14] = [
    "visual",
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "vision_embed_tokens",
    "image_newline",
    "audio_tower",
    "audio_encoder",
    "multi_modal_projector",
    "mm_projector",
    "embed_vision",
    "embed_audio",
    "connector",
    "merger",
];

impl<'a> Subject<'a> {
    /// PEFT's config, where the adapter has one.
    pub(super) fn config(&self) -> Option<&'a Map<String, Value>> {
        self.adapter.config.as_ref().map(|config| &config.document)
    }

    /// Whether a field of the config is set: true, and not 0 or empty.
    pub(super) fn flag(&self, field: &str) -> bool {
        self.adapter.config.as_ref().is_some_and(|config| config.flag(field))
    }

    /// A text of the config.
    pub(super) fn text(&self, field: &str) -> Option<&'a str> {
        self.config()?.get(field)?.as_str()
    }

    fn number(&self, field: &str, default: f64) -> f64 {
        let found = self.config().and_then(|config| config.get(field)).and_then(Value::as_f64);
        found.unwrap_or(default)
    }

    /// `lora_alpha / r` of the config, which several programs take for all modules.
    pub(super) fn common_scale(&self) -> f64 {
        self.common_alpha() / self.number("r", 8.0)
    }

    /// `lora_alpha` of the config.
    pub(super) fn common_alpha(&self) -> f64 {
        self.number("lora_alpha", 8.0)
    }

    /// `r` of the config.
    pub(super) fn common_rank(&self) -> usize {
        self.number("r", 8.0) as usize
    }

    /// The highest rank of any module.
    pub(super) fn rank(&self) -> usize {
        self.adapter.modules.iter().map(|module| module.rank).max().unwrap_or(0)
    }

    /// The highest rank that the config says or any module has.
    pub(super) fn declared_rank(&self) -> usize {
        let said = self.config().map_or(0, |_| self.common_rank());
        let pattern = self.config().and_then(|config| config.get("rank_pattern"));
        let pattern = pattern.and_then(Value::as_object).into_iter().flat_map(Map::values);
        let pattern = pattern.filter_map(Value::as_u64).max().unwrap_or(0);
        self.rank().max(said).max(usize::try_from(pattern).unwrap_or(usize::MAX))
    }

    /// The highest rank that any module's weight can have.
    pub(super) fn possible_rank(&self) -> usize {
        let possible = |module: &Module| match (module.outputs, module.inputs) {
            (0, _) | (_, 0) => module.rank,
            (outputs, inputs) => module.rank.min(outputs).min(inputs),
        };
        self.adapter.modules.iter().map(possible).max().unwrap_or(0)
    }

    /// Modules that something holds of.
    pub(super) fn modules(&self, holds: impl Fn(&Module) -> bool) -> Found {
        let found = self.adapter.modules.iter().filter(|module| holds(module));
        some(found.map(|module| Place::from(module.name.as_str())).collect())
    }

    /// Modules whose scale is another than a program's, and by how much.
    pub(super) fn scaled(&self, by: impl Fn(&Module) -> f64) -> Found {
        let place = |module: &Module| {
            let (own, theirs) = (module.scale.value, by(module));
            let wrong = (theirs - own).abs() > own.abs() * 1e-6;
            let factor = (own != 0.0).then(|| theirs / own);
            wrong.then(|| Place { name: module.name.clone(), factor })
        };
        some(self.adapter.modules.iter().filter_map(place).collect())
    }

    /// The class of the base, where one is given and says it.
    pub(super) fn class(&self) -> Option<&'a str> {
        self.base.and_then(Base::class)
    }

    /// Whether the module is of a language model's layer, its embeddings or its head.
    pub(super) fn is_language(module: &Module) -> bool {
        let parts: Vec<&str> = module.name.split('.').collect();
        let numbered = parts.windows(2).any(|pair| match pair {
            [above, number] => LAYERS.contains(above) && number.bytes().all(|b| b.is_ascii_digit()),
            _ => false,
        });
        let image = ["to_q", "to_k", "to_v", "to_out", "attn1", "attn2", "img_attn", "txt_attn"];
        let ends = ["lm_head", "embed_tokens", "wte", "score", "classifier", "embed_out"];
        let ends = parts.last().is_some_and(|last| ends.contains(last));
        (numbered || ends || Self::is_tower(&module.name))
            && !parts
                .iter()
                .any(|part| image.contains(part) || part.ends_with("transformer_blocks"))
    }

    /// Whether a path is of a vision or audio tower, or of what connects it.
    pub(super) fn is_tower(name: &str) -> bool {
        name.split('.').any(|part| TOWERS.contains(&part))
    }

    /// Modules that no tensor of the base is for.
    pub(super) fn unplaced(&self) -> Vec<&'a Module> {
        let Some(targets) = self.base.and_then(|base| base.targets.as_ref()) else {
            return Vec::new();
        };
        let pairs = self.adapter.modules.iter().zip(&targets.modules);
        pairs.filter(|(_, places)| places.is_empty()).map(|(module, _)| module).collect()
    }

    /// Modules that are in the base under another name, or as a part of a tensor.
    pub(super) fn respelled(&self) -> Vec<&'a Module> {
        let Some(base) = self.base else { return Vec::new() };
        let Some(targets) = &base.targets else { return Vec::new() };
        let pairs = self.adapter.modules.iter().zip(&targets.modules);
        let found = pairs.filter(|(module, places)| {
            let in_stack = places.iter().any(|place| place.expert.is_some());
            !places.is_empty() && !in_stack && !base.has(&module.name)
        });
        found.map(|(module, _)| module).collect()
    }

    /// Names of modules below one layer's projection, by what stands before a last part:
    /// `model.layers.0.self_attn` → `q_proj`, `v_proj`.
    pub(super) fn siblings(&self) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a Module>> {
        let mut found: BTreeMap<&str, BTreeMap<&str, &Module>> = BTreeMap::new();
        for module in &self.adapter.modules {
            if let Some((above, last)) = module.name.rsplit_once('.') {
                found.entry(above).or_default().insert(last, module);
            }
        }
        found
    }

    /// Where an adapter's PEFT stacks of experts are, by the parameter's name.
    pub(super) fn stacks(&self) -> Found {
        some(self.adapter.stacks.keys().map(|name| Place::from(name.as_str())).collect())
    }

    /// Modules of single experts that were no stack in the file.
    pub(super) fn single_experts(&self) -> Vec<(&'a Module, Expert<'a>)> {
        if !self.adapter.stacks.is_empty() {
            return Vec::new();
        }
        let found = self.adapter.modules.iter();
        found.filter_map(|module| Some((module, expert_of(&module.name)?))).collect()
    }
}

/// A matrix of a layer's experts: what stands before the number, the number, and the matrix's name.
pub(super) type Expert<'a> = (&'a str, usize, &'a str);

/// The expert of a name such as `…mlp.experts.3.gate_proj`.
pub(super) fn expert_of(name: &str) -> Option<Expert<'_>> {
    let (above, last) = name.rsplit_once('.')?;
    let (holder, expert) = above.rsplit_once('.')?;
    let number = expert.parse().ok().filter(|_| holder.ends_with("experts"))?;
    Some((holder, number, last))
}

/// The places, if there are any.
pub(super) fn some(places: Vec<Place>) -> Found {
    (!places.is_empty()).then_some(places)
}

/// The adapter as a whole, if something holds of it.
pub(super) fn whole(holds: bool) -> Found {
    holds.then(Vec::new)
}

/// Names as places.
pub(super) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Found {
    some(names.into_iter().map(Place::from).collect())
}
