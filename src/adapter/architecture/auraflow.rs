//! AuraFlow: its last modulation has shift before scale as published (diffusers
//! `convert_auraflow_transformer_checkpoint_to_diffusers`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "auraflow", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
joint_transformer_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0}  double_layers.{i}.attn.{w2q,w2k,w2v,w2o}
joint_transformer_blocks.{i}.attn.{add_q_proj,add_k_proj,add_v_proj,to_add_out}  double_layers.{i}.attn.{w1q,w1k,w1v,w1o}
joint_transformer_blocks.{i}.{ff,ff_context}.{linear_1,linear_2,out_projection}  double_layers.{i}.{mlpX,mlpC}.{c_fc1,c_fc2,c_proj}
joint_transformer_blocks.{i}.{norm1,norm1_context}.linear      double_layers.{i}.{modX,modC}.1
single_transformer_blocks.{i}.attn.{to_q,to_k,to_v,to_out.0}   single_layers.{i}.attn.{w1q,w1k,w1v,w1o}
single_transformer_blocks.{i}.ff.{linear_1,linear_2,out_projection}  single_layers.{i}.mlp.{c_fc1,c_fc2,c_proj}
single_transformer_blocks.{i}.norm1.linear                     single_layers.{i}.modCX.1
time_step_proj.{linear_1,linear_2}                             t_embedder.mlp.{0,2}
context_embedder                                               cond_seq_linear
pos_embed.proj                                                 init_x_linear
proj_out                                                       final_linear
norm_out.linear                                                modF.1  swapped
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let named = seen.starts(&[
        "joint_transformer_blocks",
        "double_layers",
        "single_layers",
        "cond_seq_linear",
        "init_x_linear",
    ]) || seen.any(&[
        "single_transformer_blocks.{i}.norm1.linear",
        "single_transformer_blocks.{i}.ff.linear_1",
        "single_transformer_blocks.{i}.ff.linear_2",
        "single_transformer_blocks.{i}.ff.out_projection",
    ]);
    named.then(|| Detected::published(rules_of(TABLE)))
}
