//! What the rules of several programs look for.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{Found, Place};
use super::subject::{Subject, named, some, whole};
use crate::adapter::Adapter;
use crate::adapter::convention::gguf_names::Architecture;
use crate::adapter::convention::mlx_classes::stacks_of;
use crate::adapter::convention::{Names, ScalePlace, of_class, one_by_one};
use crate::adapter::module::{Kind, Module, Nature};
use crate::adapter::scale::ScaleSource;
use crate::format::json::expert_count;

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

fn is_plain(module: &Module) -> bool {
    ["lora", "dora"].contains(&module.family)
}

/// Tensors that change a bias; the modules that they are of may be taken without them.
pub(super) fn biased(subject: &Subject<'_>) -> Found {
    named(biases(subject))
}

fn biases<'a>(subject: &Subject<'a>) -> impl Iterator<Item = &'a str> {
    let biases = subject.adapter.modules.iter().filter_map(|module| module.bias.as_ref());
    biases.map(|bias| bias.tensor.as_str())
}

/// Biases of B, spelled as PEFT spells them.
pub(super) fn biased_factors(subject: &Subject<'_>) -> Found {
    let of_factor =
        |name: &&str| [".lora_B.bias", ".lora_up.bias"].iter().any(|end| name.ends_with(end));
    named(biases(subject).filter(of_factor))
}

/// Tensors that replace the base's.
pub(super) fn replaced(subject: &Subject<'_>) -> Found {
    labels(subject, |_| true)
}

/// The same, but for what PEFT saved beside factors (`base_layer`).
pub(super) fn replaced_alone(subject: &Subject<'_>) -> Found {
    labels(subject, |tensor| !tensor.contains(BASE_LAYER))
}

/// Replacements by name; not those beside factors that are the base's own values.
fn labels(subject: &Subject<'_>, wanted: impl Fn(&str) -> bool) -> Found {
    let all = subject.adapter.replacements.iter();
    let found = all.filter(|own| wanted(&own.tensor) && !is_copy(subject, &own.tensor));
    some(found.map(|replacement| Place::from(replacement.label().as_str())).collect())
}

/// What stands in the names of weights that PEFT saves beside their factors.
pub(super) const BASE_LAYER: &str = ".base_layer.";

fn is_copy(subject: &Subject<'_>, tensor: &str) -> bool {
    tensor.contains(BASE_LAYER) && subject.base.is_some_and(|base| base.copies.contains(tensor))
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

/// A file of factors where a PEFT directory is wanted, and a directory with the adapter one level below.
pub(super) fn no_directory(subject: &Subject<'_>) -> Found {
    let (given, file) = (&subject.adapter.path, &subject.adapter.file.path);
    let named = file.file_name().is_some_and(|name| name == "adapter_model.safetensors");
    let below = given.is_dir() && file.parent() != Some(given);
    whole(!named || below || subject.config().is_none())
}

/// The endings of PEFT's factors, as it writes them itself.
const ENDINGS: [&str; 4] =
    [".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B"];

/// Tensors in whose names an adapter's stands (`.lora_A.default.weight`).
pub(super) fn adapter_named(subject: &Subject<'_>) -> Found {
    let factor = |name: &str| {
        [".lora_A.", ".lora_B.", ".lora_embedding_A.", ".lora_embedding_B."]
            .iter()
            .any(|part| name.contains(part))
    };
    let own = |name: &str| ENDINGS.iter().any(|end| name.ends_with(end)) || is_bias(name);
    named(subject.adapter.file.names().filter(|name| factor(name) && !own(name)))
}

fn is_bias(name: &str) -> bool {
    name.ends_with(".lora_B.bias")
}

/// The same, alphas of single modules, and what nobody knows, for programs that take nothing but factors.
pub(super) fn strange_factors(subject: &Subject<'_>) -> Found {
    let alphas = subject.adapter.file.names().filter(|name| name.ends_with(".alpha"));
    let unknown = subject.adapter.unknown.iter().map(String::as_str);
    let named = adapter_named(subject).into_iter().flatten();
    some(named.chain(alphas.chain(unknown).map(Place::from)).collect())
}

/// Tensors without `base_model.model.` before their names, or with two of them. What all modules share
/// (`base_model.vera_A`) is of none.
pub(super) fn unprefixed(subject: &Subject<'_>) -> Found {
    const PREFIX: &str = "base_model.model.";
    // What all modules share has a name, and of several a number.
    let is_shared = |name: &str| {
        let rest = name.strip_prefix("base_model.");
        rest.is_some_and(|rest| rest.split('.').skip(1).all(|part| part.parse::<usize>().is_ok()))
    };
    let is_own = |name: &str| {
        name.strip_prefix(PREFIX).is_some_and(|rest| !rest.starts_with(PREFIX)) || is_shared(name)
    };
    named(subject.adapter.file.names().filter(|name| !is_own(name)))
}

/// Whole embeddings and heads that PEFT saved beside their factors, unless they are the base's own.
pub(super) fn base_layers(subject: &Subject<'_>) -> Found {
    let saved = [".embed_tokens.base_layer.weight", "lm_head.base_layer.weight"];
    let is_one = |name: &&str| saved.iter().any(|end| name.ends_with(end));
    named(subject.adapter.file.names().filter(is_one).filter(|name| !is_copy(subject, name)))
}

/// `use_dora` of a config without any magnitudes.
pub(super) fn dora_flag(subject: &Subject<'_>) -> Found {
    named(is_promised_dora(subject.adapter).then_some("use_dora"))
}

/// The same of an adapter.
pub(super) fn is_promised_dora(adapter: &Adapter) -> bool {
    adapter.config.as_ref().is_some_and(|config| config.flag("use_dora"))
        && adapter.modules.iter().all(|module| module.magnitude.is_none())
}

/// Tensors that replace the base's, but for the norms that run times pass over.
pub(super) fn replaced_norms(subject: &Subject<'_>, norms: bool) -> Found {
    let is_norm = |label: &str| label.contains("_layernorm") || label.contains("norm.");
    let found = replaced_alone(subject)?.into_iter().filter(|place| is_norm(&place.name) == norms);
    some(found.collect())
}

/// Modules of single experts, of stacks that the file has or of none.
pub(super) fn single_experts(subject: &Subject<'_>) -> Found {
    some(subject.single_experts().iter().map(|(module, _)| module.name.as_str().into()).collect())
}

/// Stacks whose A is on the side of the outputs, as PEFT before 0.19 has them of stacks outputs × inputs.
pub(super) fn crossed_stacks(subject: &Subject<'_>) -> Found {
    let crossed = subject.adapter.stacks.iter().filter(|(_, stack)| stack.crossed);
    named(crossed.map(|(name, _)| name.as_str()))
}

/// Modules with a scale that only a config or header says, for programs that read alpha tensors only.
pub(super) fn unscaled(subject: &Subject<'_>) -> Found {
    let elsewhere = subject.adapter.convention.scale != ScalePlace::Tensor;
    if elsewhere { subject.scaled(|_| 1.0) } else { None }
}

/// Modules that no tensor of the base is for.
pub(super) fn unplaced(subject: &Subject<'_>) -> Found {
    named(subject.unplaced().into_iter().map(|module| module.name.as_str()))
}

/// The architecture of the base that llama.cpp has, and the type of its model; none for a base that says no type.
fn gguf_base<'a>(subject: &Subject<'a>) -> Option<(Option<&'static Architecture>, &'a str)> {
    let base = subject.base?;
    let types = [base.model_type(), base.text_field("model_type")];
    let found = types.into_iter().flatten().find_map(Architecture::of_model_type);
    Some((found, base.model_type()?))
}

/// Single experts and stacks of them that mlx-lm's class of the base has under no known name.
pub(super) fn stackless_experts(subject: &Subject<'_>) -> Found {
    let (architecture, model_type) = gguf_base(subject)?;
    let stacks = stacks_of(model_type)?;
    // What it has in its stacks already stays there.
    if architecture.is_none() && subject.adapter.convention.has_stacks() {
        return None;
    }
    let stack = |name: &str| {
        let gate = name.strip_suffix(".gate_up_proj").map(|above| format!("{above}.gate_proj"));
        of_class(&architecture?.expert(&one_by_one(gate.as_deref().unwrap_or(name)))?, stacks)
    };
    subject.modules(|module| module.name.contains(".experts.") && stack(&module.name).is_none())
}

/// The type of the base's model, if llama.cpp's converter has no class for it.
pub(super) fn unconverted_class(subject: &Subject<'_>) -> Found {
    let (found, model_type) = gguf_base(subject)?;
    named((found.is_none() && Architecture::is_not_converted(model_type)).then_some(model_type))
}

/// The type of the base's model, if llama.cpp's names of it are not known.
pub(super) fn unnamed_class(subject: &Subject<'_>) -> Found {
    let (found, model_type) = gguf_base(subject)?;
    named((found.is_none() && !Architecture::is_not_converted(model_type)).then_some(model_type))
}

/// Modules of the language model that have no name in the base's architecture of llama.cpp, and are not divided into some.
pub(super) fn unnamed_modules(subject: &Subject<'_>) -> Found {
    without_gguf_name(subject, |parts| parts < 2)
}

/// Modules of the language model that the base's architecture of llama.cpp has in parts.
pub(super) fn joined_modules(subject: &Subject<'_>) -> Found {
    without_gguf_name(subject, |parts| parts > 1)
}

/// Modules without a name there, by the parts that the base has them in.
fn without_gguf_name(subject: &Subject<'_>, wanted: impl Fn(usize) -> bool) -> Found {
    let (Some(architecture), _) = gguf_base(subject)? else { return None };
    let Subject { adapter, base, .. } = subject;
    if adapter.convention.names != Names::Dotted || !adapter.stacks.is_empty() {
        return None;
    }
    let targets = base.and_then(|base| base.targets.as_ref());
    let parts = |at: usize| targets.and_then(|found| found.modules.get(at)).map_or(0, Vec::len);
    let unnamed = adapter.modules.iter().enumerate().filter(|(at, module)| {
        let named = architecture.to_gguf(&module.name).is_some();
        !named && !Subject::is_tower(&module.name) && wanted(parts(*at))
    });
    named(unnamed.map(|(_, module)| module.name.as_str()))
}

/// Modules that are in the base under another name.
pub(super) fn respelled(subject: &Subject<'_>) -> Found {
    named(subject.respelled().into_iter().map(|module| module.name.as_str()))
}

/// Experts of a layer that have no factors, or not for all three matrices, while others have.
pub(super) fn incomplete_experts(subject: &Subject<'_>) -> Found {
    let mut layers: BTreeMap<&str, BTreeSet<(usize, &str)>> = BTreeMap::new();
    for (_, (holder, number, matrix)) in subject.single_experts() {
        layers.entry(holder).or_default().insert((number, matrix));
    }
    let known = subject.base.and_then(|base| expert_count(&base.config));
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

/// The last part of a module's name: the kind of module that it is in its layer.
pub(super) fn last_of(module: &Module) -> &str {
    module.name.rsplit('.').next().unwrap_or_default()
}

/// Modules of towers and connectors beside the language model.
pub(super) fn towers(subject: &Subject<'_>) -> Found {
    subject.modules(|module| Subject::is_tower(&module.name))
}

/// Modules of numbered layers of towers, for programs that look at a layer's number alone.
pub(super) fn numbered_towers(subject: &Subject<'_>) -> Found {
    subject.modules(|module| Subject::is_tower(&module.name) && module.name.contains(".layers."))
}

/// Kinds of the language model's modules that a layer of the base is without; of an unknown base, a layer before the
/// adapter's last.
pub(super) fn missing_layers(subject: &Subject<'_>) -> Found {
    let mut kinds: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let modules = subject.adapter.modules.iter();
    for module in modules.filter(|module| !Subject::is_tower(&module.name)) {
        let number = module.name.split('.').find_map(|part| part.parse().ok());
        if let Some(number) = number {
            kinds.entry(last_of(module)).or_default().insert(number);
        }
    }
    let last = kinds.values().filter_map(BTreeSet::last).max()?;
    let known = subject.base.and_then(|base| base.number("num_hidden_layers"));
    let layers = known.unwrap_or(last + 1);
    let lacking = kinds.into_iter().filter(|(_, found)| found.len() < layers);
    some(lacking.map(|(kind, _)| kind.into()).collect())
}

/// Modules whose alpha tensor and config say different alphas, and the config's over the tensor's.
pub(super) fn two_alphas(adapter: &Adapter) -> impl Iterator<Item = Place> + '_ {
    let said = adapter.modules.iter().filter(|own| own.scale.source == ScaleSource::AlphaTensor);
    said.filter_map(|module| {
        let (own, config) = (module.scale.value, adapter.config.as_ref()?);
        config.alpha_of(&module.name)?;
        let factor = config.scale_of(&module.name, module.rank) / own;
        // More apart than a bf16 alpha's rounding.
        let apart = own != 0.0 && (factor - 1.0).abs() > 1.0 / 64.0;
        apart.then(|| Place { name: module.name.clone(), factor: Some(factor) })
    })
}
