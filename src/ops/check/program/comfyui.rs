//! ComfyUI (`comfy/lora.py`, `comfy/lora_convert.py`, `comfy/weight_adapter/`), read as of 2025-10 and
//! 2026: single files, alphas as tensors, no config.

use std::collections::BTreeSet;

use super::comfyui_names as names;
use super::{Field, Program, Takes, nothing};
use crate::adapter::layout;
use crate::adapter::module::{Module, Side};
use crate::adapter::target::flat_module;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{adapter_named, biased_factors, misfits, replaced, unscaled};
use crate::ops::check::subject::{Subject, named, some, whole};

pub(super) static PROGRAM: Program = Program {
    name: "comfyui",
    aliases: &["comfy"],
    version: "2026",
    oldest: "2025",
    field: Field::Image,
    reads: &["comfyui", "kohya", "diffusers", "xlabs", "bfl"],
    converts: &[],
    takes: Takes::convention(&["comfyui"]),
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const MAP: &str = "comfy/lora.py, model_lora_keys_unet and model_lora_keys_clip";
const ADAPTERS: &str = "comfy/weight_adapter";

pub(super) static RULES: &[Rule] = &[
    Rule::new(
        "names",
        Effect::Ignored,
        "it passes over these names of diffusers, or of another layout than its own",
        MAP,
        unmapped,
    )
    .converts(),
    Rule::new(
        "base-names",
        Effect::Ignored,
        "it finds no weight of the base under these names (\"lora key not loaded\")",
        MAP,
        not_in_base,
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it reads no scale but alpha tensors, so these modules get scale 1",
        ADAPTERS,
        unscaled,
    )
    .converts(),
    Rule::new(
        "dora",
        Effect::Changed,
        "it divides DoRA's magnitudes of outputs by lengths of the base's rows, not of the changed ones; merge them instead",
        "comfy/weight_adapter/base.py, weight_decompose",
        decomposed,
    ),
    Rule::new(
        "rescale",
        Effect::Changed,
        "it ignores `rescale` of OFT; merge them instead",
        ADAPTERS,
        rescaled,
    ),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's",
        MAP,
        ignored,
    ),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B", MAP, biased_factors),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names another adapter's name than default stands",
        MAP,
        |subject| {
            let found = adapter_named(subject)?.into_iter();
            some(found.filter(|place| !place.name.contains(".default.")).collect())
        },
    )
    .converts(),
    Rule::new(
        "quantised",
        Effect::Note,
        "it adds the update to the decoded weights of this base and rounds the sum again, which loses what is weak",
        "comfy/model_patcher.py",
        |subject| whole(subject.base.is_some_and(|base| base.quantised)),
    ),
    Rule::new("ia3", Effect::Ignored, "it ignores IA3 modules", ADAPTERS, |subject| {
        subject.modules(|module| module.family == "ia3")
    }),
    Rule::new(
        "constraint",
        Effect::Changed,
        "it keeps rotations to another constraint than they were trained with",
        ADAPTERS,
        constrained,
    )
    .converts(),
    Rule::new(
        "oft-names",
        Effect::Ignored,
        "it does not know the names of kohya's own OFT, and ignores them",
        MAP,
        |subject| subject.modules(|module| module.name.starts_with("oft_unet_")),
    )
    .converts(),
    Rule::new(
        "model",
        Effect::Unknown,
        "nothing tells which model they are of, and whether it maps their names",
        MAP,
        unknown,
    ),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        ADAPTERS,
        misfits,
    ),
];

/// Where its map of keys has no such name (`model_lora_keys_unet`, `model_lora_keys_clip`).
fn unmapped(subject: &Subject<'_>) -> Found {
    let mut found = names::lost(subject).unwrap_or_default();
    if subject.adapter.convention.name == "diffusers" {
        let old = subject.modules(|module| match module.name.split_once('.') {
            // It has attention's projections as the first release of diffusers spelled them.
            Some(("unet", path)) => {
                path.contains(".to_")
                    && !module.tensors().any(|tensor| tensor.contains(".processor."))
            }
            Some(("text_encoder" | "text_encoder_2", path)) => {
                !path.starts_with("text_model.encoder.layers.")
            }
            Some(("transformer", _)) | None => false,
            Some(_) => !found.iter().any(|place| place.name == module.name),
        });
        found.extend(old.into_iter().flatten());
    }
    some(found)
}

/// Names that the generic map makes of the base's own: dotted below `diffusion_model.`, or flattened.
fn not_in_base(subject: &Subject<'_>) -> Found {
    let base = subject.base.filter(|base| !base.is_diffusers() && base.checkpoint.is_some())?;
    let denoiser = |name: &str| {
        ["model.diffusion_model.", "diffusion_model."]
            .iter()
            .find_map(|root| name.strip_prefix(root).map(str::to_owned))
            .unwrap_or_else(|| name.to_owned())
    };
    let dotted: BTreeSet<String> = base.names().into_iter().map(denoiser).collect();
    let flat: BTreeSet<String> = base.names().iter().map(|name| flat_module(name, true)).collect();
    let known = subject.unplaced();
    let missing = |module: &Module| {
        let name = module.name.as_str();
        if let Some(path) = name.strip_prefix("diffusion_model.") {
            return !dotted.contains(&format!("{path}.weight")) && !dotted.contains(path);
        }
        if let Some(path) = name.strip_prefix("lora_unet_") {
            let own = [format!("lora_unet_{path}"), name.to_owned()];
            return !own.iter().any(|name| flat.contains(name))
                && known.iter().any(|module| module.name == name);
        }
        known.iter().any(|module| module.name == name)
    };
    let unmapped: BTreeSet<String> =
        unmapped(subject).into_iter().flatten().map(|place| place.name).collect();
    // diffusers' names of models whose layout is in no table are a question, not a no.
    let own = subject.adapter.convention.name == "diffusers";
    if own && !layout::is_known(subject.adapter) {
        return None;
    }
    subject.modules(|module| missing(module) && !unmapped.contains(&module.name))
}

/// Flattened names of published blocks, and text encoders', which are every model's that has them.
const EVERY_MODELS: [&str; 4] =
    ["lora_te", "text_encoders.", "lora_unet_double_blocks_", "lora_unet_single_blocks_"];

/// Names that no table has, without a base that would have the last word.
fn unknown(subject: &Subject<'_>) -> Found {
    let own = subject.adapter.convention.name == "diffusers";
    let judged = subject.base.is_some_and(|base| !base.is_diffusers() && !own);
    let pictures = ["unet", "clip", "t5"].iter().any(|model| subject.models.contains(model));
    if judged || pictures || names::is_known(subject) {
        return None;
    }
    let mapped = unmapped(subject).unwrap_or_default();
    let generic = |module: &Module| {
        let name = module.name.as_str();
        EVERY_MODELS.iter().any(|start| name.starts_with(start))
            || mapped.iter().any(|place| place.name == name)
    };
    let lost = subject.adapter.modules.iter().filter(|module| !generic(module));
    named(lost.map(|module| module.name.as_str()))
}

/// Its `weight_decompose` takes the lengths of the changed weight for inputs only.
fn decomposed(subject: &Subject<'_>) -> Found {
    let by_outputs = |module: &Module| {
        module.magnitude.as_ref().is_some_and(|lengths| lengths.side == Side::Outputs)
    };
    subject.modules(by_outputs)
}

/// Its BOFT applies them.
fn rescaled(subject: &Subject<'_>) -> Found {
    subject.modules(|module| {
        module.family == "diag-oft" && module.tensors().any(|tensor| tensor.ends_with(".rescale"))
    })
}

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(subject: &Subject<'_>) -> Found {
    if subject.adapter.convention.name == "bfl" { None } else { replaced(subject) }
}

/// Rotations with an alpha, which ComfyUI does not multiply by the outputs; of BOFT also without any.
fn constrained(subject: &Subject<'_>) -> Found {
    subject.modules(|module| match (module.family, module.scale.alpha) {
        ("oft" | "diag-oft" | "boft", Some(alpha)) => alpha != 0.0,
        ("boft", None) => true,
        _ => false,
    })
}
