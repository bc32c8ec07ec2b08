//! Ovis-Image, LongCat-Image and Bria 3.2 and Fibo: FLUX.1's design and names in diffusers, which is all that
//! adapters of them have (diffusers `transformer_ovis_image.py`, `transformer_longcat_image.py`,
//! `transformer_bria.py`). The blocks of the latter two alone are not to be told from FLUX.1's.

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ovis_image", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
transformer_blocks.{i}.{norm1,norm1_context}.linear
transformer_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}
transformer_blocks.{i}.{ff,ff_context}.net.{0.proj,2}
single_transformer_blocks.{i}.{norm.linear,proj_mlp,proj_out,attn.to_q,attn.to_k,attn.to_v}
{x_embedder,context_embedder,norm_out.linear,proj_out}
timestep_embedder.{linear_1,linear_2}
time_embed.timestep_embedder.{linear_1,linear_2}
caption_projection.{i}.linear
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let flux = seen.starts(&["single_transformer_blocks", "transformer_blocks"]);
    let named = seen.starts(&["time_embed.timestep_embedder", "timestep_embedder"])
        || seen.any(&["caption_projection.{i}.linear"]);
    // Ovis' layers are gated.
    let gated = seen.sized("transformer_blocks.{i}.ff.net.0.proj", (24576, 3072))
        || seen.sized("transformer_blocks.{i}.ff_context.net.0.proj", (24576, 3072))
        || seen.sized("single_transformer_blocks.{i}.proj_mlp", (24576, 3072));
    let single = seen.starts(&["single_transformer_blocks"])
        && !seen.any(&["single_transformer_blocks.{i}.attn.to_out.0"]);
    (gated || flux && named && single).then(|| Detected::published(rules_of(TABLE)))
}
