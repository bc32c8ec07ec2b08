//! What the rules of several programs look for.

use super::place::Found;
use super::subject::{Subject, named, some, whole};
use crate::adapter::module::{Kind, Module, Nature, Replacement};

/// Modules with magnitudes (DoRA).
pub(super) fn decomposed(subject: &Subject<'_>) -> Found {
    subject.modules(|module| module.magnitude.is_some())
}

/// Modules that are no plain factors, and have exact ones.
pub(super) fn factorable(subject: &Subject<'_>) -> Found {
    subject.modules(|module| !is_plain(module) && matches!(module.nature(), Nature::LowRank(_)))
}

/// Modules that are no factors, or change with the weight they are for.
pub(super) fn unfactorable(subject: &Subject<'_>) -> Found {
    subject.modules(|module| !is_plain(module) && !matches!(module.nature(), Nature::LowRank(_)))
}

/// Modules of other families than LoRA.
pub(super) fn other_families(subject: &Subject<'_>) -> Found {
    subject.modules(|module| !is_plain(module))
}

fn is_plain(module: &Module) -> bool {
    ["lora", "dora"].contains(&module.family)
}

/// Modules that change a bias.
pub(super) fn biased(subject: &Subject<'_>) -> Found {
    subject.modules(|module| module.bias.is_some())
}

/// Tensors that replace the base's.
pub(super) fn replaced(subject: &Subject<'_>) -> Found {
    let labels: Vec<String> = subject.adapter.replacements.iter().map(Replacement::label).collect();
    named(labels.iter().map(String::as_str))
}

/// Factors of embeddings and of the head.
pub(super) fn embeddings(subject: &Subject<'_>) -> Found {
    subject.modules(is_embedding)
}

pub(super) fn is_embedding(module: &Module) -> bool {
    let head = module.name == "lm_head" || module.name.ends_with(".lm_head");
    module.kind == Kind::Embedding || head || module.name.ends_with("embed_tokens")
}

/// An initialisation that changed the base before training, whose adapter was not converted after it.
pub(super) fn changed_base(subject: &Subject<'_>) -> Found {
    const MUTATING: [&str; 5] = ["pissa", "olora", "corda", "lora_ga", "loftq"];
    let init = subject.text("init_lora_weights").map(str::to_lowercase);
    let field = ["init_lora_weights"];
    init.filter(|init| MUTATING.iter().any(|name| init.starts_with(name)))
        .and_then(|_| named(field))
}

/// Fields of PEFT's config that mean other mathematics than a program does.
pub(super) fn variants(subject: &Subject<'_>) -> Found {
    const FIELDS: [&str; 4] =
        ["alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"];
    named(FIELDS.into_iter().filter(|field| subject.flag(field)))
}

/// `lora_alpha / r` of the config is taken for every module.
pub(super) fn config_scale(subject: &Subject<'_>) -> Found {
    subject.config()?;
    let common = subject.common_scale();
    subject.scaled(|_| common)
}

/// `lora_alpha` of the config over the rank of each module's factors.
pub(super) fn config_alpha(subject: &Subject<'_>) -> Found {
    subject.config()?;
    let alpha = subject.common_alpha();
    subject.scaled(|module| alpha / module.rank.max(1) as f64)
}

/// PEFT's stacks of experts.
pub(super) fn stacks(subject: &Subject<'_>) -> Found {
    subject.stacks()
}

/// Modules whose rank is not the config's.
pub(super) fn other_ranks(subject: &Subject<'_>) -> Found {
    subject.config()?;
    let common = subject.common_rank();
    subject.modules(|module| module.rank != common)
}

/// A file of factors where a PEFT directory is wanted.
pub(super) fn no_directory(subject: &Subject<'_>) -> Found {
    let named =
        subject.adapter.path.file_name().is_some_and(|name| name == "adapter_model.safetensors");
    whole(subject.adapter.path.is_file() && !named)
}

/// Modules that no tensor of the base is for.
pub(super) fn unplaced(subject: &Subject<'_>) -> Found {
    named(subject.unplaced().into_iter().map(|module| module.name.as_str()))
}

/// Modules that are in the base under another name.
pub(super) fn respelled(subject: &Subject<'_>) -> Found {
    named(subject.respelled().into_iter().map(|module| module.name.as_str()))
}

/// Experts of a layer that have no factors, or not for all three matrices, while others have.
pub(super) fn incomplete_experts(subject: &Subject<'_>) -> Found {
    use std::collections::{BTreeMap, BTreeSet};
    let mut layers: BTreeMap<&str, BTreeSet<(usize, &str)>> = BTreeMap::new();
    for (_, (holder, number, matrix)) in subject.single_experts() {
        layers.entry(holder).or_default().insert((number, matrix));
    }
    let known = subject.base.and_then(|base| {
        ["num_experts", "num_local_experts", "n_routed_experts"]
            .iter()
            .find_map(|field| base.number(field))
    });
    let incomplete = layers.into_iter().filter(|(_, found)| {
        let last = found.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
        found.len() != 3 * known.unwrap_or(last)
    });
    some(incomplete.map(|(holder, _)| holder.into()).collect())
}

/// Modules that are not of a language model, as far as their names tell.
pub(super) fn not_language(subject: &Subject<'_>) -> Found {
    let known = subject.base.is_some_and(|base| base.model_type().is_some());
    if known { None } else { subject.modules(|module| !Subject::is_language(module)) }
}

/// Modules whose update has another shape than the base's weight.
pub(super) fn misfits(subject: &Subject<'_>) -> Found {
    named(subject.base?.misfits.iter().map(String::as_str))
}
