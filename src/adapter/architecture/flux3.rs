//! FLUX.3: blocks by kind of input, whose projections have other names as published (diffusers
//! `_convert_non_diffusers_flux3_lora_to_diffusers`, the one source of the published names).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "flux3", tables: &[TABLE, OLDER], rules: OfBase::Detected, detect };

const TABLE: &str = "
mode_blocks.{image,image_cond}.{i}.{attn.to_q,attn.to_k,attn.to_v,attn.to_out.0}  mode_blocks.{image,image_cond}.{i}.{q_proj,k_proj,v_proj,attn_out}
mode_blocks.{image,image_cond}.{i}.ff.{linear_in,linear_out}  mode_blocks.{image,image_cond}.{i}.{mlp_in,mlp_out}
txt_mode_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,attn.to_out.0,ff.linear_in,ff.linear_out}  txt_mode_blocks.{i}.{q_proj,k_proj,v_proj,attn_out,mlp_in,mlp_out}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,attn.to_out.0,ff.linear_in,ff.linear_out}  single_transformer_blocks.{i}.{q_proj,k_proj,v_proj,attn_out,mlp_in,mlp_out}
{context_embedder,norm_out.linear,proj_out}
x_embedders.{image,image_cond}
{early_stream_modulations,single_stream_modulations}.{image,image_cond,txt}.linear
timestep_embedder.{linear_1,linear_2}
";

/// What the blocks were called before.
const OLDER: &str = "
mode_blocks.{image,image_cond}.{i}.{attn.to_q,attn.to_k,attn.to_v,attn.to_out.0}  content_mode_blocks.{image,image_cond}.{i}.{q_proj,k_proj,v_proj,attn_out}
mode_blocks.{image,image_cond}.{i}.ff.{linear_in,linear_out}  content_mode_blocks.{image,image_cond}.{i}.{mlp_in,mlp_out}
single_transformer_blocks.{i}.{attn.to_q,attn.to_k,attn.to_v,attn.to_out.0,ff.linear_in,ff.linear_out}  single_blocks.{i}.{q_proj,k_proj,v_proj,attn_out,mlp_in,mlp_out}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&["mode_blocks", "txt_mode_blocks", "content_mode_blocks"])
        || seen.any(&[
            "single_transformer_blocks.{i}.q_proj",
            "single_transformer_blocks.{i}.mlp_in",
            "single_transformer_blocks.{i}.ff.linear_in",
        ]);
    let rules = || rules_of(TABLE).into_iter().chain(rules_of(OLDER)).collect();
    named.then(|| Detected::published(rules()))
}
