//! Small models of the layouts that adapters are for, and adapters for them in every convention.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lora_tool::format::{Dtype, gguf};
use serde_json::{Value, json};

use super::samples::{Layer, Sample};
use super::{Bench, Random, Tensors};

/// A model: its layers, and where its checkpoint lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Llama, as transformers has it.
    Language,
    /// A pipeline's U-Net and text encoder, as diffusers has them.
    Pipeline,
    /// The same U-Net alone.
    Unet,
    /// A denoiser of no known kind, as ComfyUI loads its checkpoint.
    Checkpoint,
    /// Flux, as its checkpoint has it.
    Flux,
}

pub const LINEAR: Layer = Layer { outputs: 16, inputs: 8, kernel: &[] };
pub const WIDE: Layer = Layer { outputs: 8, inputs: 12, kernel: &[] };
pub const CONV: Layer = Layer { outputs: 6, inputs: 4, kernel: &[3, 3] };
pub const NORM: Layer = Layer { outputs: 6, inputs: 1, kernel: &[] };
pub const FUSED: Layer = Layer { outputs: 24, inputs: 8, kernel: &[] };
pub const WORDS: Layer = Layer { outputs: 24, inputs: 8, kernel: &[] };

/// Layers by their place in a model: a linear one, another, three in one, a convolution, a norm, an
/// embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Linear,
    Wide,
    Fused,
    Conv,
    Norm,
    Words,
}

impl Site {
    pub fn layer(self) -> Layer {
        match self {
            Site::Linear => LINEAR,
            Site::Wide => WIDE,
            Site::Fused => FUSED,
            Site::Conv => CONV,
            Site::Norm => NORM,
            Site::Words => WORDS,
        }
    }
}

impl Model {
    /// Its layers' tensors without `.weight`: (site, file, name).
    pub fn layers(self) -> Vec<(Site, &'static str, &'static str)> {
        match self {
            Model::Language => vec![
                (Site::Linear, "model.safetensors", "model.layers.0.self_attn.q_proj"),
                (Site::Wide, "model.safetensors", "model.layers.1.mlp.down_proj"),
                (Site::Words, "model.safetensors", "model.embed_tokens"),
            ],
            Model::Pipeline | Model::Unet => vec![
                (
                    Site::Linear,
                    "unet/diffusion_pytorch_model.safetensors",
                    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
                ),
                (
                    Site::Conv,
                    "unet/diffusion_pytorch_model.safetensors",
                    "down_blocks.0.resnets.0.conv1",
                ),
                (
                    Site::Norm,
                    "unet/diffusion_pytorch_model.safetensors",
                    "down_blocks.0.resnets.0.norm1",
                ),
                (
                    Site::Wide,
                    "text_encoder/model.safetensors",
                    "text_model.encoder.layers.0.mlp.fc2",
                ),
            ],
            Model::Checkpoint => vec![
                (Site::Linear, "model.safetensors", "model.diffusion_model.trunk.0.attn.query"),
                (Site::Conv, "model.safetensors", "model.diffusion_model.trunk.0.conv"),
                (Site::Norm, "model.safetensors", "model.diffusion_model.trunk.0.norm"),
            ],
            Model::Flux => vec![
                (Site::Linear, "model.safetensors", "double_blocks.0.img_attn.proj"),
                (Site::Wide, "model.safetensors", "single_blocks.0.linear2"),
                (Site::Fused, "model.safetensors", "double_blocks.0.img_attn.qkv"),
            ],
        }
    }

    /// Writes its checkpoint, in f64 so that small updates can be seen in it.
    pub fn save(self, bench: &Bench) -> PathBuf {
        let mut files: BTreeMap<&str, Tensors> = BTreeMap::new();
        let mut random = Random::new(41);
        for (site, file, name) in self.layers() {
            let layer = site.layer();
            let shape = if site == Site::Norm { vec![layer.outputs] } else { layer.shape() };
            let mut values = |count: usize| random.values(count, 0.5);
            let weight = values(shape.iter().product());
            let mut tensors = files.remove(file).unwrap_or_default();
            tensors = tensors.float(&format!("{name}.weight"), Dtype::F64, &shape, &weight);
            if site != Site::Words {
                let bias = values(layer.outputs);
                let name = format!("{name}.bias");
                tensors = tensors.float(&name, Dtype::F64, &[layer.outputs], &bias);
            }
            files.insert(file, tensors);
        }
        let root = bench.path("base");
        for (file, tensors) in files {
            tensors.save(&root.join(file));
        }
        let config = json!({
            "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2,
        });
        if self == Model::Language {
            std::fs::write(root.join("config.json"), config.to_string()).expect("written");
        }
        if self == Model::Unet { root.join("unet") } else { root }
    }

    /// The tensor of a site, as the merged checkpoint names it, without `.weight`.
    pub fn tensor(self, site: Site) -> String {
        let (_, file, name) =
            self.layers().into_iter().find(|layer| layer.0 == site).expect("the model has it");
        match file.split_once('/') {
            Some((component, _)) if self == Model::Pipeline => format!("{component}/{name}"),
            _ => name.to_owned(),
        }
    }

    /// What a convention calls the layer at a site.
    pub fn name(self, site: Site, convention: &str, own_oft: bool) -> String {
        let tensor = self.tensor(site);
        let path = tensor.strip_prefix("model.diffusion_model.").unwrap_or(&tensor);
        let (component, path) = path.split_once('/').unwrap_or(("", path));
        let flat = path.replace('.', "_");
        match (convention, self) {
            // kohya's own OFT has a prefix of its own.
            ("kohya", _) if own_oft => format!("oft_unet_{flat}"),
            ("peft", _) => format!("base_model.model.{path}"),
            ("mlx", _) => path.to_owned(),
            ("gguf", _) => match site {
                Site::Linear => "blk.0.attn_q.weight".to_owned(),
                _ => "blk.1.ffn_down.weight".to_owned(),
            },
            ("diffusers", _) => format!("{component}.{path}"),
            ("comfyui", _) => format!("diffusion_model.{path}"),
            ("xlabs", _) if site == Site::Linear => {
                "double_blocks.0.processor.proj_lora1".to_owned()
            }
            ("xlabs", _) if site == Site::Fused => "double_blocks.0.processor.qkv_lora1".to_owned(),
            ("xlabs", _) => "single_blocks.0.processor.proj_lora".to_owned(),
            _ if component == "text_encoder" => format!("lora_te_{flat}"),
            _ => format!("lora_unet_{flat}"),
        }
    }
}

/// An adapter in the making: its name in the table, its model, and its modules.
pub struct Fixture {
    /// Convention and family.
    pub name: &'static str,
    pub model: Model,
    pub modules: Vec<(Site, Sample)>,
}

impl Fixture {
    pub fn convention(&self) -> &'static str {
        self.name.split_once('/').expect("convention/family").0
    }

    /// What the tool calls its modules.
    pub fn names(&self) -> Vec<String> {
        let own = |site| self.model.name(site, self.convention(), self.name == "kohya/oft");
        let names = self.modules.iter().map(|(site, _)| own(*site));
        names.map(|name| name.trim_start_matches("base_model.model.").to_owned()).collect()
    }

    /// Whether a convention has names for its model's layers.
    pub fn is_known_in(&self, convention: &str) -> bool {
        match self.model {
            Model::Language => ["peft", "mlx", "gguf", "kohya"].contains(&convention),
            Model::Pipeline | Model::Unet => !["mlx", "gguf"].contains(&convention),
            Model::Checkpoint | Model::Flux => !["mlx", "gguf"].contains(&convention),
        }
    }

    pub fn save(&self, bench: &Bench) -> PathBuf {
        let convention = self.convention();
        let mut tensors = Tensors::new();
        for (site, sample) in &self.modules {
            let name = self.model.name(*site, convention, self.name == "kohya/oft");
            tensors = sample.save_in(tensors, &name, "base_model");
        }
        let config = self.modules.first().map(|(_, sample)| &sample.config);
        match convention {
            "peft" => {
                directory(bench, "adapter_model.safetensors", &tensors, config.expect("a config"))
            }
            "mlx" => directory(bench, "adapters.safetensors", &tensors, config.expect("a config")),
            "diffusers" => {
                let dora = self.name.ends_with("dora");
                let entry = json!({"unet.r": 4, "unet.lora_alpha": 6, "unet.use_dora": dora});
                let metadata = tensors.metadata.as_mut().expect("metadata");
                metadata.insert("lora_adapter_metadata".to_owned(), entry.to_string());
                tensors.save(&bench.path("adapter.safetensors"))
            }
            "gguf" => {
                let path = bench.path("adapter.gguf");
                std::fs::write(&path, in_gguf(&tensors)).expect("written");
                path
            }
            _ => tensors.save(&bench.path("adapter.safetensors")),
        }
    }
}

fn directory(bench: &Bench, file: &str, tensors: &Tensors, config: &Value) -> PathBuf {
    let directory = bench.path("adapter");
    tensors.save(&directory.join(file));
    std::fs::write(directory.join("adapter_config.json"), config.to_string()).expect("written");
    directory
}

/// A GGUF adapter for Llama with alpha 6.
fn in_gguf(tensors: &Tensors) -> Vec<u8> {
    let text = |key: &str, value: &str| (key.to_owned(), gguf::Value::Text(value.to_owned()));
    let pairs = [
        text("general.type", "adapter"),
        text("general.architecture", "llama"),
        text("adapter.type", "lora"),
        ("adapter.lora.alpha".to_owned(), gguf::Value::Float(6.0)),
    ];
    let specs = tensors.entries.iter().map(|(n, d, s, _)| (n.clone(), *d, s.clone()));
    let (mut file, places) = gguf::encode(&pairs, &specs.collect::<Vec<_>>()).expect("a header");
    let start = file.len();
    for (place, (_, _, _, bytes)) in places.iter().zip(&tensors.entries) {
        file.resize(start + *place as usize, 0);
        file.extend_from_slice(bytes);
    }
    file
}
