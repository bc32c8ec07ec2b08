//! A module's name in another convention. Dots are never guessed back into a flattened name: they come
//! from the name of the base tensor that flattens to it, or not at all.

use super::architecture::{ANIMA_CONDITIONER, Detected, LTX2_CONNECTORS};
use super::convention::gguf_names::Architecture;
use super::convention::mlx_classes::Stacks;
use super::convention::{Convention, Names, of_class, one_by_one, split_component};
use super::scope::{
    CONDITIONER, CONNECTORS, FLAT_CONNECTORS, PRIOR_ENCODER, Scope, flatten, scope_of,
};
use crate::error::{ConvertError, Error, Result};

/// All that names are made of.
#[derive(Debug, Clone, Copy)]
pub struct Renamer<'a> {
    /// The convention the names are of.
    pub from: &'a Convention,
    /// The convention they shall be of.
    pub to: &'a Convention,
    /// Whether the model has two text encoders, which kohya numbers then.
    pub two_encoders: bool,
    /// Which of diffusers' text encoders is a T5, where there is one.
    pub t5: Option<u8>,
    /// Whether it is an adapter of Stable Cascade's prior, whose text encoder kohya's scripts call by it.
    pub prior: bool,
    /// llama.cpp's name of the base's architecture.
    pub architecture: Option<&'static Architecture>,
    /// Where mlx-lm's class of the base has its experts.
    pub stacks: Option<Stacks>,
}

/// Roots of checkpoints that ComfyUI loads, and kohya's prefix for what is below.
const ROOTS: [(&str, &str); 4] = [
    ("diffusion_model.", "lora_unet_"),
    ("text_encoders.clip_l.transformer.", "lora_te1_"),
    ("text_encoders.clip_g.transformer.", "lora_te2_"),
    ("text_encoders.t5xxl.transformer.", "lora_te3_"),
];

/// First parts of paths that only one component of a diffusers pipeline has.
const COMPONENT_OF: [(&[&str], &str); 3] = [
    (&["text_model"], "text_encoder"),
    (&["down_blocks", "mid_block", "up_blocks", "time_embedding", "add_embedding"], "unet"),
    (&["transformer_blocks", "single_transformer_blocks", "time_text_embed"], "transformer"),
];

impl Renamer<'_> {
    /// The name in the other convention. `base_tensor` is the tensor of a reference that the module
    /// lands on, where there is one.
    ///
    /// # Errors
    /// [`ConvertError::Name`], if the name does not tell; with what would.
    pub fn rename(&self, name: &str, base_tensor: Option<&str>) -> Result<String> {
        if name.contains(".experts.") {
            // Of a base whose class is not known, its own names stay.
            let known =
                self.from != self.to || self.architecture.is_some() && self.stacks.is_some();
            if self.to.has_stacks() && self.to.names == Names::Dotted && known {
                return self.in_stack(name);
            }
            if self.from != self.to && self.from.has_stacks() && self.from.names == Names::Dotted {
                let from = &crate::adapter::convention::peft();
                return Renamer { from, ..*self }.rename(&one_by_one(name), base_tensor);
            }
        }
        let in_checkpoint =
            |to: Names| base_tensor.filter(|_| to == Names::Checkpoint).and_then(of_checkpoint);
        let found = match (self.kind(name), self.to.names) {
            (from, to) if from == to => Some(name.to_owned()),
            // ComfyUI reads kohya's names, but for the prefix that kohya's own OFT has.
            (Names::Flattened, Names::Checkpoint) => Some(match name.strip_prefix("oft_unet_") {
                Some(path) => format!("lora_unet_{path}"),
                None => name.to_owned(),
            }),
            (Names::Flattened, to) => base_tensor.and_then(|base| self.based(base, to)),
            (Names::Component, to) => self.componentwise(name, to).or_else(|| in_checkpoint(to)),
            (Names::Checkpoint, Names::Flattened) => from_root(name),
            // The part of a model alone is what PEFT wraps.
            (Names::Checkpoint, Names::Dotted) => below_root(name).map(str::to_owned),
            (Names::Checkpoint | Names::Gguf, _) => None,
            (Names::Dotted, to) => self.pathwise(name, to).or_else(|| in_checkpoint(to)),
        };
        found.ok_or_else(|| {
            let reason = match (self.kind(name), base_tensor) {
                (Names::Flattened, None) => {
                    "its dots are flattened; only a reference base can say where they were"
                }
                (Names::Dotted, _) if self.to.names == Names::Gguf => {
                    "llama.cpp's table of the base's architecture does not have it"
                }
                _ => "no table of that convention has this module of this model",
            };
            ConvertError::Name { to: self.to.name, reason }.into()
        })
    }

    /// The name of an expert's matrix that mlx-lm has in a stack.
    fn in_stack(&self, name: &str) -> Result<String> {
        let of_class = |architecture: &Architecture| {
            of_class(&architecture.expert(&one_by_one(name))?, self.stacks?)
        };
        self.architecture.and_then(of_class).ok_or_else(|| {
            let reason = match self.stacks {
                Some(Stacks::Unnamed) => "mlx-lm's class of the base has no such experts",
                _ => {
                    "mlx-lm has a layer's experts in stacks, which its class of the base names; no class is \
                     known for this base, or none was given (--reference BASE)"
                }
            };
            ConvertError::Name { to: self.to.name, reason }.into()
        })
    }

    /// The name of a module whose path in the wanted layout is known.
    pub(super) fn spell(&self, scope: Scope, path: &str, detected: &Detected) -> Option<String> {
        let encoder = match scope {
            Scope::TextEncoder(number) => Some(number),
            Scope::Any if detected.component == "text_encoder" => Some(1),
            Scope::Any | Scope::Denoiser | Scope::Connectors | Scope::Conditioner => None,
        };
        let t5 = path.starts_with("encoder.block.");
        let connectors = detected.component == LTX2_CONNECTORS;
        let conditioner = detected.component == ANIMA_CONDITIONER;
        match (self.to.names, encoder) {
            (Names::Gguf, _) => None,
            (Names::Checkpoint, None) if connectors => Some(format!("{CONNECTORS}{path}")),
            (Names::Checkpoint, None) if conditioner => Some(format!("{CONDITIONER}{path}")),
            (Names::Flattened, None) if conditioner => {
                Some(format!("lora_unet_llm_adapter_{}", flatten(path)))
            }
            (Names::Flattened, None) if connectors => {
                Some(format!("{FLAT_CONNECTORS}{}", flatten(path)))
            }
            (Names::Dotted, _) => Some(path.to_owned()),
            (Names::Component, None) => Some(format!("{}.{path}", detected.component)),
            (Names::Checkpoint, None) => Some(format!("diffusion_model.{path}")),
            (Names::Flattened, None) => {
                let prefix = self.prefix(detected.component).unwrap_or("lora_unet_");
                Some(format!("{prefix}{}", flatten(path)))
            }
            (Names::Component, Some(number)) => {
                let number = if t5 { self.t5.unwrap_or(number) } else { number };
                let ending = if number < 2 { String::new() } else { format!("_{number}") };
                Some(format!("text_encoder{ending}.{path}"))
            }
            // ComfyUI reads kohya's names, whose T5 is the third whatever there is beside it.
            (Names::Checkpoint | Names::Flattened, Some(_)) if self.prior => {
                Some(format!("{PRIOR_ENCODER}{}", flatten(path)))
            }
            (Names::Checkpoint | Names::Flattened, Some(number)) => {
                let third = t5 && self.t5.unwrap_or(number) > 1;
                let number = match (third, number, self.two_encoders) {
                    (true, ..) => "3".to_owned(),
                    (false, 1, false) => String::new(),
                    (false, number, _) => number.to_string(),
                };
                Some(format!("lora_te{number}_{}", flatten(path)))
            }
        }
    }

    /// The error of a name that no layout of its model has.
    pub(super) fn unknown(&self) -> Error {
        let reason = "no layout of its model that is known has this name";
        ConvertError::Name { to: self.to.name, reason }.into()
    }

    /// The error of rows that are not what a layout says they are.
    pub(super) fn indivisible(&self) -> Error {
        let reason = "its rows do not divide as the layouts of its model do";
        ConvertError::Name { to: self.to.name, reason }.into()
    }

    /// How a name is really built: kohya's readers take dotted names too.
    fn kind(&self, name: &str) -> Names {
        match self.from.names {
            // A reader has given them transformers' names.
            Names::Gguf => Names::Dotted,
            Names::Flattened if name.contains('.') => {
                if split_component(name).is_some() {
                    Names::Component
                } else if ROOTS.iter().any(|(root, _)| name.starts_with(root)) {
                    Names::Checkpoint
                } else {
                    Names::Dotted
                }
            }
            names => names,
        }
    }

    fn based(&self, base: &str, to: Names) -> Option<String> {
        let base = base.strip_suffix(".weight").unwrap_or(base);
        match (base.split_once('/'), to) {
            (Some((component, path)), Names::Component) => Some(format!("{component}.{path}")),
            (Some((_, path)), _) => self.pathwise(path, to),
            (None, Names::Dotted) => Some(scope_of(base).1.to_owned()),
            (None, _) => self.pathwise(base, to),
        }
    }

    fn pathwise(&self, path: &str, to: Names) -> Option<String> {
        let first = path.split('.').next().unwrap_or_default();
        let component = COMPONENT_OF.iter().find(|(parts, _)| parts.contains(&first));
        let component = component.map(|(_, component)| *component);
        match to {
            Names::Dotted => Some(path.to_owned()),
            Names::Component => Some(format!("{}.{path}", component?)),
            Names::Gguf => self.architecture?.to_gguf(path),
            Names::Checkpoint => self.componentwise(&format!("{}.{path}", component?), to),
            Names::Flattened => {
                let prefix = component.and_then(|component| self.prefix(component));
                Some(format!("{}{}", prefix.unwrap_or("lora_unet_"), flatten(path)))
            }
        }
    }

    fn componentwise(&self, name: &str, to: Names) -> Option<String> {
        let (component, path) = split_component(name)?;
        match to {
            Names::Dotted => Some(path.to_owned()),
            Names::Component => Some(name.to_owned()),
            // A layout's table says what ComfyUI calls these, or a base does.
            Names::Checkpoint if component == "transformer" => None,
            Names::Checkpoint | Names::Flattened => {
                Some(format!("{}{}", self.prefix(component)?, flatten(path)))
            }
            Names::Gguf => None,
        }
    }

    /// kohya's prefix of a component.
    fn prefix(&self, component: &str) -> Option<&'static str> {
        Some(match component {
            "unet" => "lora_unet_",
            "transformer" => "lora_unet_",
            "text_encoder" if self.prior => PRIOR_ENCODER,
            "text_encoder" if self.two_encoders => "lora_te1_",
            "text_encoder" => "lora_te_",
            "text_encoder_2" => "lora_te2_",
            "text_encoder_3" => "lora_te3_",
            "prior" => "lora_prior_unet_",
            _ => return None,
        })
    }
}

fn from_root(name: &str) -> Option<String> {
    let (root, prefix) = ROOTS.iter().find(|(root, _)| name.starts_with(root))?;
    Some(format!("{prefix}{}", flatten(name.strip_prefix(root)?)))
}

/// The path below a root that ComfyUI loads.
fn below_root(name: &str) -> Option<&str> {
    ROOTS.iter().find_map(|(root, _)| name.strip_prefix(root))
}

/// ComfyUI's name of a denoiser's tensor.
fn of_checkpoint(base: &str) -> Option<String> {
    let (scope, path) = scope_of(base);
    let path = path.strip_suffix(".weight").unwrap_or(path);
    (scope == Scope::Denoiser).then(|| format!("diffusion_model.{path}"))
}

#[cfg(test)]
mod tests {
    use super::super::convention::by_name;
    use super::*;

    fn renamed(from: &str, to: &str, name: &str, base: Option<&str>) -> Option<String> {
        let renamer = Renamer {
            from: by_name(from).expect("known"),
            to: by_name(to).expect("known"),
            two_encoders: false,
            t5: None,
            prior: false,
            architecture: Architecture::by_name("qwen2"),
            stacks: None,
        };
        renamer.rename(name, base).ok()
    }

    #[test]
    fn names_change_without_a_guess() {
        let q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
        let flat = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
        let with = |name: &str| format!("unet.{name}");
        for (from, to, name, base, expected) in [
            ("diffusers", "kohya", with(q), None, Some(flat.to_owned())),
            ("diffusers", "comfyui", with(q), None, Some(flat.to_owned())),
            ("diffusers", "peft", with(q), None, Some(q.to_owned())),
            ("peft", "diffusers", q.to_owned(), None, Some(with(q))),
            ("kohya", "diffusers", flat.to_owned(), None, None),
            (
                "kohya",
                "diffusers",
                flat.to_owned(),
                Some(format!("unet/{q}.weight")),
                Some(with(q)),
            ),
            ("kohya", "comfyui", flat.to_owned(), None, Some(flat.to_owned())),
            ("comfyui", "kohya", "diffusion_model.a.b".into(), None, Some("lora_unet_a_b".into())),
            ("comfyui", "diffusers", "diffusion_model.a.b".into(), None, None),
            ("comfyui", "peft", "diffusion_model.a.b".into(), None, Some("a.b".into())),
            ("peft", "comfyui", "a.b".into(), None, None),
            (
                "peft",
                "comfyui",
                "a.b".into(),
                Some("model.diffusion_model.a.b.weight".to_owned()),
                Some("diffusion_model.a.b".into()),
            ),
            (
                "mlx",
                "peft",
                "model.layers.0.mlp.up_proj".into(),
                None,
                Some("model.layers.0.mlp.up_proj".into()),
            ),
            (
                "peft",
                "gguf",
                "model.layers.0.mlp.up_proj".into(),
                None,
                Some("blk.0.ffn_up".into()),
            ),
            ("peft", "gguf", "model.layers.0.mlp.experts.up".into(), None, None),
        ] {
            assert_eq!(renamed(from, to, &name, base.as_deref()), expected, "{name} to {to}");
        }
    }
}
