//! SGLang (`srt/lora/*`), read at 0.5.23.

use super::unheard::{UNHEARD, unheard_class};
use super::{Field, Program, Takes};
use crate::format::access::read_config_if_there;
use crate::format::json::object;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    adapter_named, biased, changed_base, config_scale, decomposed, dora_flag, factorable,
    is_embedding, misfits, no_directory, not_language, numbered_towers, other_ranks, replaced, stacks, unfactorable, unplaced, variants,
};
use crate::ops::check::subject::{Subject, named, some};
use serde_json::Value;

pub(super) static PROGRAM: Program = Program {
    name: "sglang",
    aliases: &[],
    version: "0.5.23",
    oldest: "0.5",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes {
        // The names' beginnings are not looked at.
        leaf_targets: true,
        complete: &[
            &["q_proj", "k_proj", "v_proj"],
            &["gate_proj", "up_proj"],
            &["q_a_proj", "kv_a_proj_with_mqa"],
        ],
        ..Takes::SERVER
    },
    older: &[],
    needs: |subject| vec![format!("--max-lora-rank {}", subject.rank())],
    rules: &[RULES],
};

const LORA: &str = "srt/lora/lora.py, LoRAAdapter.__init__";

static RULES: &[Rule] = &[
    Rule::new(
        "files",
        Effect::Refused,
        "it reads a directory of adapter_config.json and adapter_model.safetensors",
        "srt/lora/lora_config.py",
        no_directory,
    )
    .converts(),
    Rule::new(
        "scale",
        Effect::ScaledWrongly,
        "it multiplies every module by lora_alpha / r, and reads neither use_rslora nor alpha_pattern",
        LORA,
        config_scale,
    )
    .converts(),
    Rule::new(
        "config-fields",
        Effect::Refused,
        "it wants r and lora_alpha in adapter_config.json",
        "srt/lora/lora_config.py",
        |subject| {
            let config = subject.config()?;
            named(["r", "lora_alpha"].into_iter().filter(|field| config.get(*field).is_none_or(Value::is_null)))
        },
    )
    .converts(),
    Rule::new(
        "ranks",
        Effect::Refused,
        "it wants r of the config as the rank of every module",
        "srt/lora/mem_pool.py",
        other_ranks,
    )
    .converts(),
    Rule::new(
        "max-rank",
        Effect::Refused,
        "it refuses ranks above the --max-lora-rank that it was started with",
        "srt/lora/lora_manager.py, can_support",
        |subject| {
            let most = subject.max_rank?;
            subject.modules(|module| module.rank > most)
        },
    )
    .resizes(|subject| subject.max_rank.unwrap_or_default()),
    Rule::new("dora", Effect::Refused, "it refuses DoRA", "srt/lora/lora_config.py", decomposed)
        .extracts(),
    Rule::new(
        "dora",
        Effect::Refused,
        "it refuses use_dora, also without magnitudes",
        "srt/lora/lora_config.py",
        dora_flag,
    )
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over factors in whose names an adapter's name stands",
        LORA,
        adapter_named,
    )
    .converts(),
    Rule::new("bias", Effect::Ignored, "it ignores biases of B", LORA, biased).extracts(),
    Rule::new(
        "replaced",
        Effect::Ignored,
        "it ignores tensors that replace the base's; merge them instead",
        LORA,
        replaced,
    ),
    Rule::new("variant", Effect::Changed, "it does not read these fields", "srt/lora/lora_config.py", variants),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        "srt/lora/lora_config.py",
        changed_base,
    ),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors, which these have exactly",
        "srt/lora/lora_config.py",
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only, and these have no factors without the base",
        "srt/lora/lora_config.py",
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new(
        "targets",
        Effect::Refused,
        "it takes target_modules as a list, not as a pattern",
        "srt/lora/utils.py, get_normalized_target_modules",
        |subject| {
            let said = subject.config()?.get("target_modules");
            let taken = said.is_some_and(|said| match said.as_str() {
                Some(text) => ["all", "all-linear"].contains(&text),
                None => said.is_array(),
            });
            named((!taken).then_some("target_modules"))
        },
    )
    .converts(),
    Rule::new(
        "tokens",
        Effect::Refused,
        "it refuses added_tokens.json with tokens that the base does not have",
        "srt/lora/lora_config.py, validate_new_adapter",
        |subject| {
            let known = vocabulary(subject)?;
            named(added_tokens(subject, Some(known)).then_some("added_tokens.json"))
        },
    )
    .converts(),
    Rule::new(
        "tokens",
        Effect::Unknown,
        "it refuses added_tokens.json with tokens that the base does not have, and which it has the base tells: --against BASE",
        "srt/lora/lora_config.py, validate_new_adapter",
        |subject| {
            let unknown = vocabulary(subject).is_none() && added_tokens(subject, None);
            named(unknown.then_some("added_tokens.json"))
        },
    )
    .converts(),
    Rule::new(
        "towers",
        Effect::LandsElsewhere,
        "it adds a tower's layers to the language model's layers of the same number",
        "srt/lora/utils.py, get_layer_id",
        numbered_towers,
    ),
    Rule::new(
        "names",
        Effect::Ignored,
        "it counts names by their layer's number and their last part, and the base has no such module",
        "srt/lora/mem_pool.py, load_lora_weight_to_buffer",
        unplaced,
    ),
    Rule::new("class", Effect::Unknown, UNHEARD, "srt/models", unheard_class),
    Rule::new(
        "outside-layers",
        Effect::Ignored,
        "it ignores modules outside of numbered layers, but for the embeddings and the head",
        "srt/lora/lora.py, LoRAAdapter._process_weight",
        |subject| {
            let numbered = |name: &str| {
                name.split("layers.").skip(1).any(|rest| {
                    let number = rest.split_once('.').map(|(number, _)| number);
                    number.is_some_and(|number| number.parse::<usize>().is_ok())
                })
            };
            subject.modules(|module| !is_embedding(module) && !numbered(&module.name))
        },
    ),
    Rule::new(
        "query-without-value",
        Effect::Refused,
        "it wants v_proj where q_proj is, in every layer",
        "srt/lora/lora.py, normalize_qkv_proj",
        |subject| without(subject, "q_proj", "v_proj"),
    )
    .converts(),
    Rule::new(
        "value-without-query",
        Effect::Ignored,
        "it ignores k_proj and v_proj where q_proj is not",
        "srt/lora/lora.py, normalize_qkv_proj",
        |subject| {
            let (k, v) = (without(subject, "k_proj", "q_proj"), without(subject, "v_proj", "q_proj"));
            some(k.into_iter().chain(v).flatten().collect())
        },
    )
    .converts(),
    Rule::new(
        "up-without-gate",
        Effect::Ignored,
        "it ignores up_proj where gate_proj is not",
        "srt/lora/lora.py, normalize_gate_up_proj",
        |subject| without(subject, "up_proj", "gate_proj"),
    )
    .converts(),
    Rule::new(
        "latent-queries",
        Effect::Refused,
        "it puts q_a_proj and kv_a_proj_with_mqa one under the other, and makes zeros of the first's size for a missing second",
        "srt/lora/lora.py, normalize_fused_qkv_a_proj",
        |subject| without(subject, "q_a_proj", "kv_a_proj_with_mqa"),
    )
    .converts(),
    Rule::new(
        "stacked-experts",
        Effect::Ignored,
        "it ignores PEFT's stacks of experts (--lora-strict-loading refuses them), and reads experts one by one",
        "srt/lora/mem_pool.py, load_lora_weight_to_buffer",
        stacks,
    )
    .converts(),
    Rule::new(
        "embeddings",
        Effect::Ignored,
        "it ignores embeddings and the head unless target_modules names them",
        "srt/lora/lora.py, _process_weight",
        |subject| {
            let targets = subject.config()?.get("target_modules")?.as_array()?;
            let listed = |name: &str| {
                let last = name.rsplit('.').next().unwrap_or_default();
                let names = HEADS.iter().find(|(own, _)| *own == last).map_or(&[][..], |own| own.1);
                let mut targets = targets.iter().filter_map(Value::as_str);
                targets.any(|target| target == last || names.contains(&target))
            };
            subject.modules(|module| is_embedding(module) && !listed(&module.name))
        },
    )
    .converts(),
    Rule::new(
        "model",
        Effect::Unknown,
        "their names are no language model's",
        "srt/lora/utils.py, get_target_module_name",
        not_language,
    ),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        "srt/lora/mem_pool.py",
        misfits,
    ),
];

/// Other names in `target_modules` of the embeddings and the head (`params_mapping`).
const HEADS: [(&str, &[&str]); 2] = [
    ("embed_tokens", &["vocab_emb", "embeddings", "word_embeddings"]),
    ("lm_head", &["output", "unembed_tokens"]),
];

/// Tokens of the base.
fn vocabulary(subject: &Subject<'_>) -> Option<usize> {
    subject.base.and_then(|base| base.number("vocab_size"))
}

/// Whether tokens were added whose numbers a vocabulary does not reach; of an unknown one, any.
fn added_tokens(subject: &Subject<'_>, known: Option<usize>) -> bool {
    let path = subject.adapter.path.join("added_tokens.json");
    let Ok(Some(text)) = read_config_if_there(&path) else { return path.is_file() };
    let Ok(tokens) = object(&text) else { return true };
    let beyond =
        |number: &Value| number.as_u64().is_none_or(|at| known.is_none_or(|n| at >= n as u64));
    tokens.values().any(beyond)
}

/// Modules with this last part in whose layer there is none with the other.
fn without(subject: &Subject<'_>, last: &str, other: &str) -> Found {
    let found = subject.siblings().into_values().filter_map(|own| {
        let module = own.get(last).filter(|_| !own.contains_key(other))?;
        Some(module.name.as_str().into())
    });
    some(found.collect())
}
