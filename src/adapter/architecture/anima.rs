//! Anima's text conditioner: a component of its own in diffusers, the denoiser's `llm_adapter` in the
//! published checkpoint, whose body is Cosmos-Predict 2's (diffusers `condition_embedder_anima.py`).

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "anima", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
embed
{in_proj,out_proj}
blocks.{i}.{self_attn,cross_attn}.{q_proj,k_proj,v_proj,o_proj}
blocks.{i}.mlp.{0,2}
";

/// diffusers' name of the component.
pub(in crate::adapter) const ANIMA_CONDITIONER: &str = "text_conditioner";

/// The prefix says what it is; a language model's layers are not called so.
fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let own = ["blocks.{i}.self_attn.o_proj", "blocks.{i}.cross_attn.o_proj", "blocks.{i}.mlp.0"];
    let theirs = rules_of(TABLE);
    let all =
        seen.0.iter().all(|body| theirs.iter().any(|rule| body.capture(&rule.split).is_some()));
    let named = all && (seen.any(&own) || seen.any(&["blocks.{i}.cross_attn.q_proj"]));
    named.then(|| Detected { component: ANIMA_CONDITIONER, ..Detected::published(theirs) })
}
