//! LTX-2's connectors, which bring the text encoder's states to the transformer: a component of their own in
//! diffusers, beside the denoiser in the published checkpoint.

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "ltx2_connectors", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
text_proj_in  aggregate_embed
{video_text_proj_in,audio_text_proj_in}  {video_aggregate_embed,audio_aggregate_embed}
";

/// diffusers' name of the component.
pub(in crate::adapter) const LTX2_CONNECTORS: &str = "connectors";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let own = rules_of(TABLE).into_iter().any(|r| seen.any(&[&r.split, &r.published]));
    own.then(|| Detected { component: LTX2_CONNECTORS, ..Detected::published(rules_of(TABLE)) })
}
