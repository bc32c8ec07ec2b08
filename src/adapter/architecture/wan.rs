//! Wan 2.1 and 2.2 and what is made of them (VACE, Animate, S2V, SkyReels 2, ChronoEdit, Helios): the layouts differ in
//! names alone (diffusers `convert_wan_transformer_to_diffusers`).

use super::{Architecture, Detected, Evidence, Names, OfBase, Rule, has, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "wan", tables: &[TABLE], rules: OfBase::Names(rules), detect };

const TABLE: &str = "
blocks.{i}.attn1.{to_q,to_k,to_v,to_out.0,norm_q,norm_k}      blocks.{i}.self_attn.{q,k,v,o,norm_q,norm_k}
blocks.{i}.attn2.{to_q,to_k,to_v,to_out.0,norm_q,norm_k,add_k_proj,add_v_proj}  blocks.{i}.cross_attn.{q,k,v,o,norm_q,norm_k,k_img,v_img}
blocks.{i}.attn2.norm_added_k                                 blocks.{i}.cross_attn.norm_k_img
blocks.{i}.ffn.net.{0.proj,2}                                 blocks.{i}.ffn.{0,2}
blocks.{i}.norm2                                              blocks.{i}.norm3
condition_embedder.text_embedder.{linear_1,linear_2}          text_embedding.{0,2}
condition_embedder.time_embedder.{linear_1,linear_2}          time_embedding.{0,2}
condition_embedder.time_proj                                  time_projection.1
condition_embedder.image_embedder.norm1                       img_emb.proj.0
condition_embedder.image_embedder.ff.net.{0.proj,2}           img_emb.proj.{1,3}
condition_embedder.image_embedder.norm2                       img_emb.proj.4
proj_out                                                      head.head
patch_embedding
vace_blocks.{i}.{attn1,attn2}.{to_q,to_k,to_v,to_out.0}  vace_blocks.{i}.{self_attn,cross_attn}.{q,k,v,o}
vace_blocks.{i}.{attn1,attn2}.{norm_q,norm_k}  vace_blocks.{i}.{self_attn,cross_attn}.{norm_q,norm_k}
vace_blocks.{i}.ffn.net.{0.proj,2}  vace_blocks.{i}.ffn.{0,2}
vace_blocks.{i}.{proj_in,proj_out,norm2}  vace_blocks.{i}.{before_proj,after_proj,norm3}
vace_patch_embedding
{patch_short,patch_mid,patch_long}
pose_patch_embedding
face_adapter.{i}.{to_q,to_out}  face_adapter.fuser_blocks.{i}.{linear1_q,linear2}
face_adapter.{i}.{to_k,to_v}  face_adapter.fuser_blocks.{i}.linear1_kv  1:1  any
face_encoder.{conv1_local,conv2,conv3}  face_encoder.{conv1_local.conv,conv2.conv,conv3.conv}
face_encoder.out_proj
motion_encoder.{conv_in,conv_out}  motion_encoder.enc.net_app.convs.{0.0,8}
motion_encoder.res_blocks.{0,1,2,3,4,5,6}.{conv1,conv2,conv_skip}  motion_encoder.enc.net_app.convs.{1,2,3,4,5,6,7}.{conv1.0,conv2.1,skip.1}
motion_encoder.motion_network.{0,1,2,3,4}  motion_encoder.enc.fc.{0,1,2,3,4}
casual_audio_encoder.encoder.{conv1_local.conv,conv1_global.conv,conv2.conv,conv3.conv,final_linear}
audio_injector.injector.{i}.{q,k,v,o}
audio_injector.injector_adain_layers.{i}.linear
{cond_encoder,trainable_cond_mask}
frame_packer.{proj,proj_2x,proj_4x}
";

fn rules(names: &Names<'_>) -> Vec<Rule> {
    let published = has(names, "blocks.0.self_attn.q") && has(names, "time_projection.1");
    let split = has(names, "blocks.0.attn1.to_q") && has(names, "condition_embedder.time_proj");
    if published || split { rules_of(TABLE) } else { Vec::new() }
}

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let own = |Rule { split, published, .. }: &Rule| {
        split.contains("blocks.{i}.") && split != published && seen.any(&[split, published])
    };
    let speech = seen.starts(&["audio_injector", "casual_audio_encoder"]);
    (speech || rules_of(TABLE).iter().any(own)).then(|| Detected::published(rules_of(TABLE)))
}
