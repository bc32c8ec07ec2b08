//! The parts of a diffusion model: by which prefixes adapters name them, and below which roots bases
//! keep them.

/// Prefixes of adapters' names, and the part of a model they belong to. `lycoris_` and bare names may
/// belong to any.
const SCOPES: [(&str, Scope); 21] = [
    (FLAT_CONNECTORS, Scope::Connectors),
    ("lora_unet_llm_adapter_", Scope::Conditioner),
    ("text_conditioner.", Scope::Conditioner),
    ("llm_adapter.", Scope::Conditioner),
    ("lora_unet_", Scope::Denoiser),
    ("lora_prior_unet_", Scope::Denoiser),
    (PRIOR_ENCODER, Scope::TextEncoder(1)),
    ("lora_transformer_", Scope::Denoiser),
    ("oft_unet_", Scope::Denoiser),
    ("lora_te1_", Scope::TextEncoder(1)),
    ("lora_te2_", Scope::TextEncoder(2)),
    ("lora_te3_", Scope::TextEncoder(3)),
    ("lora_te_", Scope::TextEncoder(1)),
    ("lycoris_", Scope::Any),
    ("unet.", Scope::Denoiser),
    ("transformer.", Scope::Denoiser),
    ("prior.", Scope::Denoiser),
    ("text_encoder.", Scope::TextEncoder(1)),
    ("text_encoder_2.", Scope::TextEncoder(2)),
    ("text_encoder_3.", Scope::TextEncoder(3)),
    ("connectors.", Scope::Connectors),
];

/// Stable Cascade's text encoder: its pipeline's only one, and a checkpoint's CLIP-G.
pub(super) const PRIOR_ENCODER: &str = "lora_prior_te_";

/// Roots of known single-file checkpoints and pipeline components, and what stands below them.
const ROOTS: [(&str, Scope); 22] = [
    (CONDITIONER, Scope::Conditioner),
    ("model.diffusion_model.llm_adapter.", Scope::Conditioner),
    ("net.llm_adapter.", Scope::Conditioner),
    ("model.diffusion_model.", Scope::Denoiser),
    ("diffusion_model.", Scope::Denoiser),
    ("unet/", Scope::Denoiser),
    ("transformer/", Scope::Denoiser),
    ("prior/", Scope::Denoiser),
    ("cond_stage_model.transformer.", Scope::TextEncoder(1)),
    ("cond_stage_model.model.", Scope::TextEncoder(1)),
    ("conditioner.embedders.0.transformer.", Scope::TextEncoder(1)),
    ("conditioner.embedders.1.model.", Scope::TextEncoder(2)),
    ("text_encoders.clip_l.transformer.", Scope::TextEncoder(1)),
    ("text_encoders.clip_g.transformer.", Scope::TextEncoder(2)),
    ("text_encoders.t5xxl.transformer.", Scope::TextEncoder(3)),
    ("text_encoder/", Scope::TextEncoder(1)),
    ("text_encoder_2/", Scope::TextEncoder(2)),
    ("text_encoder_3/", Scope::TextEncoder(3)),
    // What NVIDIA's Cosmos and its relatives are called in their checkpoints.
    ("net.", Scope::Denoiser),
    (CONNECTORS, Scope::Connectors),
    ("connectors/", Scope::Connectors),
    ("text_conditioner/", Scope::Conditioner),
];

/// The prefix of LTX-2's connectors in names that kohya's scripts flatten.
pub(super) const FLAT_CONNECTORS: &str = "lora_unet_text_embedding_projection_";

/// The published root of LTX-2's connectors.
pub(super) const CONNECTORS: &str = "text_embedding_projection.";

/// The published root of Anima's text conditioner.
pub(super) const CONDITIONER: &str = "diffusion_model.llm_adapter.";

/// A part of a diffusion model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Whichever the base holds.
    Any,
    /// The U-Net or transformer.
    Denoiser,
    /// What brings LTX-2's text encoder's states to its transformer.
    Connectors,
    /// What brings Anima's text encoder's states to its transformer.
    Conditioner,
    /// A text encoder, by number.
    TextEncoder(u8),
}

/// The root of a base's name; empty if it has none that is known.
pub(super) fn root_of(name: &str) -> &str {
    let root = ROOTS.iter().find(|(root, _)| name.starts_with(root));
    root.and_then(|(root, _)| name.get(..root.len())).unwrap_or_default()
}

/// The part of a model that a base's name belongs to, and the name below its root.
pub(super) fn scope_of(name: &str) -> (Scope, &str) {
    let found = ROOTS.iter().find_map(|(root, scope)| Some((*scope, name.strip_prefix(root)?)));
    found.unwrap_or((Scope::Any, name))
}

/// The part of a model that an adapter's name belongs to, and the name below the prefix that says it.
pub(super) fn located(name: &str) -> (Scope, &str) {
    let known = SCOPES.iter().chain(&ROOTS);
    let mut found = known.filter_map(|(prefix, scope)| Some((*scope, name.strip_prefix(prefix)?)));
    // Wan-Fun's trainer leaves two underscores.
    found.next().map_or((Scope::Any, name), |(scope, rest)| (scope, rest.trim_start_matches('_')))
}

/// A name as kohya flattens it: dots and slashes to underscores, without `.weight`.
pub(crate) fn flatten(name: &str) -> String {
    name.strip_suffix(".weight").unwrap_or(name).replace(['.', '/'], "_")
}

/// What an adapter's name may be below a root, and of which part of a model, the likeliest first.
pub(super) fn readings(name: &str) -> Vec<(Scope, String)> {
    let known = SCOPES.iter().chain(&ROOTS);
    let mut found: Vec<(Scope, String)> = known
        .filter_map(|(prefix, scope)| Some((*scope, name.strip_prefix(prefix)?.to_owned())))
        .take(1)
        .collect();
    found.push((Scope::Any, name.to_owned()));
    // What older writers of diffusers called the layers that they swapped in.
    let plain = |name: &str| {
        let name = name.replace(".processor.", ".");
        if name.ends_with(".to_out") { format!("{name}.0") } else { name }
    };
    let mut more: Vec<_> = found.iter().map(|(scope, name)| (*scope, plain(name))).collect();
    for (scope, name) in &found {
        // Wan-Fun's trainer leaves two underscores; T5 has number 2 or 3.
        more.push((*scope, name.trim_start_matches('_').to_owned()));
        if name.starts_with("encoder_block") || name.starts_with("encoder.block") {
            more.extend([2, 3].map(|number| (Scope::TextEncoder(number), name.clone())));
        }
    }
    if let Some(below) = name.strip_prefix(PRIOR_ENCODER) {
        more.push((Scope::TextEncoder(2), below.to_owned()));
    }
    more.retain(|reading| !found.contains(reading));
    found.extend(more);
    found
}
