//! GLM-Image: it has one layout, diffusers' own (diffusers `transformer_glm_image.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "glm_image", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
image_projector.proj
{glyph_projector,prior_projector}.net.{0.proj,2}
prior_token_embedding
time_condition_embed.{timestep_embedder,condition_embedder}.{linear_1,linear_2}
transformer_blocks.{i}.{norm1.linear,attn1.to_q,attn1.to_k,attn1.to_v,attn1.to_out.0,ff.net.0.proj,ff.net.2}
norm_out.linear
proj_out
";

/// Its blocks alone have CogVideoX' names.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let own = ["image_projector", "glyph_projector", "prior_projector", "prior_token_embedding"];
    seen.starts(&own).then(|| Detected::published(rules_of(TABLE)))
}
