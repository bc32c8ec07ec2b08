//! What vLLM's rules look for in an adapter.

use std::collections::BTreeSet;

use super::spelling::{Spelling, spelling};
use super::vllm_classes::{EMBEDDINGS, FUSED, MODEL_TYPES, served_by, wrapper};
use crate::adapter::module::{Module, Replacement, Update};
use crate::ops::check::place::{Found, Place};
use crate::ops::check::shared::{
    BASE_LAYER, config_scale, is_embedding, not_language, replaced_alone, strange_factors,
};
use crate::ops::check::subject::{Subject, named, some, whole};

/// Values of `--max-lora-rank` (`config/lora.py`, `MaxLoRARanks`), and the default.
const RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];
pub(super) const DEFAULT_RANK: usize = 16;

/// The least value of `--max-lora-rank` that lets this rank in; none above the highest.
pub(in crate::ops) fn rank_flag(rank: usize) -> Option<usize> {
    RANKS.into_iter().find(|allowed| *allowed >= rank)
}

pub(super) fn needs(subject: &Subject<'_>) -> Vec<String> {
    let rank = subject.declared_rank();
    let mut needs: Vec<String> = rank_flag(rank)
        .filter(|_| rank > DEFAULT_RANK)
        .map(|allowed| format!("--max-lora-rank {allowed}"))
        .into_iter()
        .collect();
    if subject.adapter.modules.iter().any(|module| Subject::is_tower(&module.name)) {
        needs.push("--enable-tower-connector-lora".to_owned());
    }
    needs
}

pub(super) fn missing_fields(subject: &Subject<'_>) -> Found {
    let config = subject.config()?;
    let fields = ["r", "lora_alpha", "target_modules"];
    let missing = |field: &&str| config.get(*field).is_none_or(serde_json::Value::is_null);
    named(fields.into_iter().filter(missing))
}

/// What goes beyond the rank that the server is started for: modules, or the config.
pub(super) fn above_rank(subject: &Subject<'_>) -> Found {
    let most = subject.max_rank?;
    let modules = subject.modules(|module| module.rank > most);
    modules.or_else(|| named((subject.declared_rank() > most).then_some("r")))
}

/// Initialisations that it does not name among those that leave the base alone.
pub(super) fn unknown_initialisation(subject: &Subject<'_>) -> Found {
    const TAKEN: [&str; 5] = ["gaussian", "eva", "orthogonal", "mica", "lora_ga"];
    let init = subject.text("init_lora_weights")?;
    named((!TAKEN.contains(&init.to_lowercase().as_str())).then_some("init_lora_weights"))
}

/// The largest number of float16, and the smallest of full precision.
pub(super) const HALF_LARGEST: f64 = 65504.0;
pub(super) const HALF_SMALLEST: f64 = 1.0 / 16384.0;

/// Modules one of whose factors has a largest number of which something holds, where the base is float16.
pub(super) fn half_precision(subject: &Subject<'_>, holds: impl Fn(f64) -> bool) -> Found {
    let base = subject.base?;
    let dtype = ["dtype", "torch_dtype"].iter().find_map(|field| base.text(field));
    dtype.filter(|dtype| *dtype == "float16")?;
    subject.modules(|module| {
        let shape = (module.outputs, module.inputs);
        // A file that cannot be read is another finding.
        let Ok(Update::Factors(up, down)) = subject.adapter.update(module, shape) else {
            return false;
        };
        [up, down].iter().any(|factor| {
            let values = factor.values.iter().map(|value| f64::from(value.abs()));
            holds(values.fold(0.0, f64::max))
        })
    })
}

/// Tensors that replace the base's, and modules that a config says it does so of.
pub(super) fn whole_modules(subject: &Subject<'_>) -> Found {
    replaced_alone(subject)
        .or_else(|| named(subject.flag("modules_to_save").then_some("modules_to_save")))
}

/// Whether all that replaces something are embeddings and heads of the base's vocabulary, of which the class
/// takes factors.
pub(super) fn has_factors(subject: &Subject<'_>) -> bool {
    let ends = ["embed_tokens.weight", "lm_head.weight"];
    let tokens = subject.base.and_then(|base| base.number("vocab_size"));
    let replacements = subject.adapter.replacements.iter();
    let mut alone = replacements.filter(|own| !own.tensor.contains(BASE_LAYER)).peekable();
    let whole = |one: &Replacement| {
        let rows = subject.adapter.file.tensor(&one.tensor).map(|view| view.spec.shape.first());
        let grown = matches!((rows, tokens), (Some(Some(rows)), Some(tokens)) if *rows > tokens);
        !grown && ends.iter().any(|end| one.label().ends_with(end))
    };
    alone.peek().is_some() && alone.all(whole) && takes_embeddings(subject)
}

/// Whether the class, or the model inside a wrapper, takes factors of embeddings and of the head.
pub(super) fn takes_embeddings(subject: &Subject<'_>) -> bool {
    let Some(class) = known_class(subject) else { return false };
    let text = subject.base.and_then(|base| base.text_field("model_type"));
    let inner = || wrapper(class).is_some() && text.is_some_and(|own| MODEL_TYPES.contains(&own));
    EMBEDDINGS.contains(&class) || inner()
}

/// Whether all that replaces something is the head of a class that scores.
pub(super) fn scores(subject: &Subject<'_>) -> bool {
    let pools = subject.class().is_some_and(|class| class.ends_with("ForSequenceClassification"));
    let heads = ["score", "classifier"];
    let head = |replacement: &Replacement| {
        let label = replacement.label();
        let stem = label.trim_end_matches(".weight").trim_end_matches(".bias");
        heads.contains(&stem.rsplit('.').next().unwrap_or_default())
    };
    let replaced = &subject.adapter.replacements;
    let modules: BTreeSet<&str> = replaced.iter().map(|own| own.module.as_str()).collect();
    pools && modules.len() == 1 && replaced.iter().all(head)
}

/// Whether the factors began as a gradient's: taken for an initialisation that leaves the base alone.
pub(super) fn is_gradient(subject: &Subject<'_>) -> bool {
    subject.text("init_lora_weights").is_some_and(|init| init.eq_ignore_ascii_case("lora_ga"))
}

pub(super) fn possible_rank(subject: &Subject<'_>) -> usize {
    subject.possible_rank()
}

/// Ranks above the default that no weight of the adapter can have.
pub(super) fn needless(subject: &Subject<'_>) -> Found {
    let (rank, possible) = (subject.rank(), subject.possible_rank());
    let over =
        rank > DEFAULT_RANK && possible < rank && subject.max_rank.is_none_or(|max| rank <= max);
    if over { subject.modules(|module| module.rank == rank) } else { None }
}

/// Modules whose scale is another than the config's r and alpha say.
pub(super) fn patterned(subject: &Subject<'_>) -> Found {
    let patterned = ["rank_pattern", "alpha_pattern"].iter().any(|field| subject.flag(field));
    if !patterned {
        return None;
    }
    if !subject.flag("use_rslora") {
        return config_scale(subject);
    }
    let common = subject.common_alpha() / (subject.common_rank() as f64).sqrt();
    subject.scaled(|_| common)
}

pub(super) fn strange_tensors(subject: &Subject<'_>) -> Found {
    let kept = |name: &&str| {
        let whole = name.ends_with(".base_layer.weight");
        let embedding = name.contains("embed_tokens.") || name.contains("lm_head.");
        name.ends_with(".base_layer.bias") || whole && !embedding
    };
    let kept = subject.adapter.file.names().filter(kept).map(Place::from);
    some(strange_factors(subject).into_iter().flatten().chain(kept).collect())
}

/// The class that serves the base, if its LoRA is known.
pub(super) fn known_class(subject: &Subject<'_>) -> Option<&'static str> {
    subject.class().and_then(served_by)
}

pub(super) fn unknown_class(subject: &Subject<'_>) -> Found {
    let Some(class) = subject.class() else {
        return match subject.base {
            // A base without a config may be of any class.
            Some(base) if base.config.is_empty() => whole(names_differ(subject)),
            _ => not_language(subject),
        };
    };
    if served_by(class).is_some() { None } else { some(vec![Place::from(class)]) }
}

pub(super) fn names_differ(subject: &Subject<'_>) -> bool {
    !subject.respelled().is_empty() || !subject.unplaced().is_empty()
}

/// Last parts of names of fused projections. Some classes have linear layers of these names that nothing was
/// fused to: those are in the base.
const JOINED: [&str; 5] = ["qkv_proj", "gate_up_proj", "query_key_value", "dense_h_to_4h", "wqkv"];

fn in_base(subject: &Subject<'_>, module: &Module) -> bool {
    let fused = ["qkv_proj", "gate_up_proj"].iter().any(|last| module.name.ends_with(last));
    !fused && subject.base.is_some_and(|base| base.has(&module.name))
}

/// Projections that the class has fused, and the adapter divided, or the reverse.
pub(super) fn otherwise_fused(subject: &Subject<'_>) -> Found {
    let class = known_class(subject)?;
    let fused = FUSED.iter().find(|(name, _)| *name == class).map_or(&[][..], |found| found.1);
    let parts = |name: &str| match name {
        "qkv_proj" | "query_key_value" | "wqkv" => ["q_proj", "k_proj", "v_proj"].as_slice(),
        "gate_up_proj" | "dense_h_to_4h" => ["gate_proj", "up_proj"].as_slice(),
        _ => [].as_slice(),
    };
    let wrong = |module: &Module| {
        let last = module.name.rsplit('.').next().unwrap_or_default();
        let divided = fused.iter().any(|name| parts(name).contains(&last));
        let joined = JOINED.contains(&last) && !fused.contains(&last) && !in_base(subject, module);
        let expert = module.name.contains(".experts.");
        let tower = Subject::is_tower(&module.name);
        !tower && !expert && (divided || joined)
    };
    subject.modules(wrong)
}

/// Modules of a layer whose last part, or of experts what follows `experts`, none of the base's matrices has.
/// Names of a class that has projections fused or divided otherwise are another rule's.
pub(super) fn unknown_leaves(subject: &Subject<'_>) -> Found {
    known_class(subject)?;
    let base = subject.base?;
    let leaf = |name: &str| match name.split_once(".experts.") {
        Some((_, below)) => format!("experts.{below}"),
        None => name.rsplit('.').next().unwrap_or_default().to_owned(),
    };
    let checkpoint = base.checkpoint.as_ref()?;
    let matrix =
        |name: &&str| checkpoint.tensor(name).is_some_and(|view| view.spec.shape.len() == 2);
    let weights = checkpoint.names().filter(matrix);
    let leaves: BTreeSet<String> =
        weights.filter_map(|name| name.strip_suffix(".weight").map(leaf)).collect();
    let fused = otherwise_fused(subject).unwrap_or_default();
    let unplaced = subject.unplaced().into_iter().filter(|module| {
        let name = module.name.as_str();
        !leaves.contains(&leaf(name))
            && !is_embedding(module)
            && !Subject::is_tower(name)
            && !fused.iter().any(|place| place.name == name)
    });
    named(unplaced.map(|module| module.name.as_str()))
}

/// Names that the class's mapper does not lead to a module.
pub(super) fn unknown_names(subject: &Subject<'_>, falls_back: bool) -> Found {
    let class = known_class(subject)?;
    let names = |modules: Vec<&Module>| -> BTreeSet<String> {
        modules.into_iter().map(|module| module.name.clone()).collect()
    };
    let (unplaced, respelled) = (names(subject.unplaced()), names(subject.respelled()));
    let fused = otherwise_fused(subject).unwrap_or_default();
    let strange = unknown_leaves(subject).unwrap_or_default();
    let stacked = !subject.adapter.stacks.is_empty();
    let lost = |module: &Module| {
        let name = module.name.as_str();
        if unplaced.contains(name) {
            return !strange.iter().any(|place| place.name == name);
        }
        let expert = stacked && name.contains(".experts.");
        if expert || Subject::is_tower(name) || fused.iter().any(|place| place.name == name) {
            return false;
        }
        // It takes every occurrence off.
        let path = name.replace("base_model.model.", "");
        match wrapper(class) {
            Some(spellings) => spelling(&path).is_none_or(|own| {
                !(spellings.contains(&own) || falls_back && own == Spelling::Text)
            }),
            None => respelled.contains(name) && !subject.base.is_some_and(|base| base.has(&path)),
        }
    };
    subject.modules(lost)
}
