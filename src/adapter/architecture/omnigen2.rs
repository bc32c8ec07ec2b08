//! OmniGen 2: Lumina-Image 2's names in diffusers, which are the published ones here.

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "omnigen2", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
x_embedder
ref_image_patch_embedder
time_caption_embed.timestep_embedder.{linear_1,linear_2}
time_caption_embed.caption_embedder.1
noise_refiner.{i}.attn.{to_q,to_k,to_v,to_out.0}
noise_refiner.{i}.feed_forward.{linear_1,linear_2,linear_3}
noise_refiner.{i}.norm1.linear
ref_image_refiner.{i}.attn.{to_q,to_k,to_v,to_out.0}
ref_image_refiner.{i}.feed_forward.{linear_1,linear_2,linear_3}
ref_image_refiner.{i}.norm1.linear
context_refiner.{i}.attn.{to_q,to_k,to_v,to_out.0}
context_refiner.{i}.feed_forward.{linear_1,linear_2,linear_3}
layers.{i}.attn.{to_q,to_k,to_v,to_out.0}
layers.{i}.feed_forward.{linear_1,linear_2,linear_3}
layers.{i}.norm1.linear
norm_out.{linear_1,linear_2}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["ref_image_refiner", "ref_image_patch_embedder"]);
    let attention = ["layers.{i}.attn.to_q", "layers.{i}.attn.to_k", "layers.{i}.attn.to_out.0"];
    let sized = attention.iter().any(|name| seen.width(name, &[2520]));
    (named || sized).then(|| Detected::published(rules_of(TABLE)))
}
