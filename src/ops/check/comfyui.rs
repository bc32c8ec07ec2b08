//! ComfyUI (`comfy/lora.py`, `comfy/weight_adapter/`): single files, alphas as tensors, no config.

use super::{Rule, Severity, Target, modules, replaced};
use crate::adapter::convention::ScalePlace;
use crate::adapter::module::{Module, Side};
use crate::adapter::{Adapter, layout};

pub(super) static TARGET: Target = Target {
    name: "comfyui",
    reads: &["comfyui", "kohya", "diffusers", "xlabs", "bfl"],
    convert: "--for comfyui --reference BASE",
    rules: &[
        Rule {
            severity: Severity::Changes,
            says: "it passes over these names of diffusers",
            mends: true,
            finds: unmapped,
        },
        Rule {
            severity: Severity::Changes,
            says: "it reads no scale but alpha tensors, so these modules get scale 1",
            mends: true,
            finds: unscaled,
        },
        Rule {
            severity: Severity::Changes,
            says: "it divides DoRA's magnitudes of outputs by lengths of the base's rows, not of the changed ones; merge them instead",
            mends: false,
            finds: decomposed,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores `rescale` of OFT; merge them instead",
            mends: false,
            finds: rescaled,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores tensors that replace the base's",
            mends: false,
            finds: ignored,
        },
        Rule {
            severity: Severity::Changes,
            says: "it ignores IA3 modules",
            mends: false,
            finds: ia3,
        },
        Rule {
            severity: Severity::Changes,
            says: "it keeps rotations to another constraint than they were trained with",
            mends: true,
            finds: constrained,
        },
        Rule {
            severity: Severity::Changes,
            says: "it does not know the names of kohya's own OFT, and ignores them",
            mends: true,
            finds: prefixed,
        },
    ],
};

/// Where its map of keys has no name of diffusers' (`model_lora_keys_unet`, `model_lora_keys_clip`).
fn unmapped(adapter: &Adapter) -> Vec<String> {
    if adapter.convention.name != "diffusers" {
        return Vec::new();
    }
    let models = layout::architectures(adapter);
    modules(adapter, |module| {
        let Some((component, path)) = module.name.split_once('.') else { return false };
        match component {
            // It has attention's projections as the first release of diffusers spelled them.
            "unet" => {
                path.contains(".to_")
                    && !module.tensors().any(|tensor| tensor.contains(".processor."))
            }
            "transformer" if models.contains("lumina") => !path.contains(".attention."),
            "transformer" => ["hunyuan_video", "wan"].iter().any(|own| models.contains(own)),
            "text_encoder" | "text_encoder_2" => !path.starts_with("text_model.encoder.layers."),
            _ => true,
        }
    })
}

/// Its `weight_decompose` takes the lengths of the changed weight for inputs only.
fn decomposed(adapter: &Adapter) -> Vec<String> {
    let by_outputs = |module: &Module| {
        module.magnitude.as_ref().is_some_and(|lengths| lengths.side == Side::Outputs)
    };
    modules(adapter, by_outputs)
}

/// Its BOFT applies them.
fn rescaled(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| {
        module.family == "diag-oft" && module.tensors().any(|tensor| tensor.ends_with(".rescale"))
    })
}

/// What replaces the base's, but for the norms of control LoRAs.
fn ignored(adapter: &Adapter) -> Vec<String> {
    if adapter.convention.name == "bfl" { Vec::new() } else { replaced(adapter) }
}

/// Modules with a scale that only a config or header says.
fn unscaled(adapter: &Adapter) -> Vec<String> {
    let elsewhere = adapter.convention.scale != ScalePlace::Tensor;
    modules(adapter, |module| elsewhere && module.scale.value != 1.0)
}

/// Rotations with an alpha, which ComfyUI does not multiply by the outputs; of BOFT also without any.
fn constrained(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| match (module.family, module.scale.alpha) {
        ("oft" | "diag-oft" | "boft", Some(alpha)) => alpha != 0.0,
        ("boft", None) => true,
        _ => false,
    })
}

fn prefixed(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| module.name.starts_with("oft_unet_"))
}

fn ia3(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| module.family == "ia3")
}
