//! vLLM (`vllm/lora/*`, `model_executor/models/*`), read at 0.14 to 0.33.

use super::vllm_classes::is_stacked;
use super::vllm_experts::{
    expert_ranks, joint_experts, other_expert_names, single, single_stacks, stacked,
};
use super::vllm_findings::{
    DEFAULT_RANK, HALF_LARGEST, HALF_SMALLEST, above_rank, half_precision, has_factors,
    is_gradient, known_class, missing_fields, needless, needs, otherwise_fused, patterned,
    possible_rank, scores, strange_tensors, takes_embeddings, unknown_class,
    unknown_initialisation, unknown_leaves, unknown_names, whole_modules,
};
use super::{Experts, Field, Program, Takes};
use crate::adapter::module::Kind;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    base_layers, biased, changed_base, crossed_stacks, decomposed, dora_flag, factorable,
    incomplete_experts, is_embedding, misfits, no_directory, replaced_alone, unfactorable, variants,
};
use crate::ops::check::subject::{Subject, named};

pub(super) static PROGRAM: Program = Program {
    name: "vllm",
    aliases: &[],
    version: "0.33.0",
    oldest: "0.14",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes { experts: Experts::ByClass(is_stacked), reads_patterns: true, ..Takes::SERVER },
    older: &[],
    needs,
    rules: &[RULES],
};

const FORMAT: &str = "vllm/lora/model_manager.py, _validate_moe_lora_format";

/// The release from which a server can be started for both forms of experts.
const MIXED: &str = "0.24";

static RULES: &[Rule] = &[
    Rule::new(
        "files",
        Effect::Refused,
        "it reads a directory of adapter_config.json and adapter_model.safetensors",
        "vllm/lora/lora_model.py, from_local_checkpoint",
        no_directory,
    )
    .converts(),
    Rule::new(
        "config-fields",
        Effect::Refused,
        "it wants r, lora_alpha and target_modules in adapter_config.json",
        "vllm/lora/peft_helper.py, from_dict",
        missing_fields,
    )
    .converts(),
    Rule::new(
        "rank",
        Effect::Refused,
        "it refuses ranks above 512, the highest --max-lora-rank",
        "vllm/config/lora.py, MaxLoRARanks",
        |subject| subject.modules(|module| module.rank > 512),
    )
    .resizes(|_| 512),
    Rule::new(
        "max-rank",
        Effect::Refused,
        "it refuses ranks above the --max-lora-rank that it was started with",
        "vllm/lora/peft_helper.py, validate_legal",
        above_rank,
    )
    .resizes(|subject| subject.max_rank.unwrap_or(DEFAULT_RANK)),
    Rule::new(
        "needless-rank",
        Effect::Refused,
        "it refuses them unless it is started for their rank, which no weight of the adapter can have: a lower one says the same",
        "vllm/lora/peft_helper.py, validate_legal",
        needless,
    )
    .resizes(possible_rank),
    Rule::new(
        "patterns",
        Effect::ScaledWrongly,
        "it ignores rank_pattern and alpha_pattern, and scales these modules by lora_alpha and r",
        "vllm/lora/peft_helper.py",
        patterned,
    )
    .until("0.32")
    .converts(),
    Rule::new(
        "dora",
        Effect::Refused,
        "it refuses DoRA",
        "vllm/lora/peft_helper.py, _validate_features",
        decomposed,
    )
    .extracts(),
    Rule::new(
        "dora",
        Effect::Refused,
        "it refuses use_dora, also without magnitudes",
        "vllm/lora/peft_helper.py, _validate_features",
        dora_flag,
    )
    .converts(),
    Rule::new(
        "bias",
        Effect::Refused,
        "it refuses biases of B; merge them instead",
        "vllm/lora/peft_helper.py, _validate_features",
        biased,
    ),
    Rule::new(
        "bias-field",
        Effect::Refused,
        "it refuses any bias in the config but none",
        "vllm/lora/peft_helper.py, _validate_features",
        |subject| {
            let said = subject.text("bias").filter(|bias| *bias != "none");
            named(said.and(Some("bias")))
        },
    )
    .converts(),
    // Before, only the name of a bias of B gave it away.
    Rule::new(
        "bias-field",
        Effect::Refused,
        "it refuses lora_bias",
        "vllm/lora/peft_helper.py, _validate_features",
        |subject| {
            let set = subject.flag("lora_bias") && biased(subject).is_none();
            named(set.then_some("lora_bias"))
        },
    )
    .since("0.32")
    .converts(),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it refuses tensors that replace the base's (modules_to_save, biases); merge them instead",
        "vllm/lora/peft_helper.py, _validate_classification_head_lora",
        |subject| if scores(subject) || has_factors(subject) { None } else { whole_modules(subject) },
    )
    .since("0.31"),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it refuses tensors that replace the base's (modules_to_save, biases); merge them instead",
        "vllm/lora/peft_helper.py, _validate_features",
        |subject| if has_factors(subject) { None } else { whole_modules(subject) },
    )
    .until("0.31"),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it refuses whole embeddings and heads, but takes factors of their difference in this class",
        "vllm/lora/utils.py, get_supported_lora_modules",
        |subject| if has_factors(subject) { replaced_alone(subject) } else { None },
    )
    .extracts(),
    Rule::new(
        "base-layers",
        Effect::Ignored,
        "it passes over whole embeddings and heads that were saved beside their factors, without a word; merge them instead",
        "vllm/lora/utils.py, is_base_embedding_weights",
        base_layers,
    ),
    Rule::new(
        "initialisation",
        Effect::Refused,
        "it refuses initialisations but gaussian, eva, orthogonal, mica and lora_ga: those that changed the base, and what it does not know",
        "vllm/lora/peft_helper.py, _init_is_supported",
        unknown_initialisation,
    )
    .since("0.32"),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        "vllm/lora/peft_helper.py",
        changed_base,
    )
    .until("0.32"),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        "vllm/lora/peft_helper.py, _init_is_supported",
        |subject| if is_gradient(subject) { changed_base(subject) } else { None },
    )
    .since("0.32"),
    Rule::new(
        "variant",
        Effect::Refused,
        "it refuses these fields",
        "vllm/lora/peft_helper.py, _validate_features",
        variants,
    )
    .since("0.32"),
    Rule::new(
        "variant",
        Effect::Changed,
        "it ignores these fields",
        "vllm/lora/peft_helper.py",
        variants,
    )
    .until("0.32"),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only; converting makes factors, which these have exactly",
        "vllm/lora/peft_helper.py, _validate_features",
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it loads LoRA only, and these have no factors without the base",
        "vllm/lora/peft_helper.py, _validate_features",
        |subject| if decomposed(subject).is_some() { None } else { unfactorable(subject) },
    )
    .extracts(),
    Rule::new(
        "tensor-names",
        Effect::Refused,
        "it takes no tensors but lora_A, lora_B, lora_embedding_A and lora_embedding_B",
        "vllm/lora/utils.py, parse_fine_tuned_lora_name",
        strange_tensors,
    )
    .converts(),
    Rule::new(
        "dtype",
        Effect::Changed,
        "its dtype (--lora-dtype, the base's float16) has no numbers as large as some of these",
        "vllm/config/lora.py, LoRAConfig",
        |subject| half_precision(subject, |largest| largest > HALF_LARGEST),
    ),
    Rule::new(
        "dtype",
        Effect::Note,
        "its dtype (--lora-dtype, the base's float16) has fewer digits for numbers as small as these; factors of like sizes lose nothing",
        "vllm/config/lora.py, LoRAConfig",
        |subject| half_precision(subject, |largest| largest > 0.0 && largest < HALF_SMALLEST),
    ),
    Rule::new(
        "class",
        Effect::Unknown,
        "nothing is known of LoRA for this class of models",
        "vllm/model_executor/models/registry.py",
        unknown_class,
    ),
    Rule::new(
        "experts",
        Effect::Unknown,
        "its classes read experts in stacks or one by one, and which it is the base tells: --against BASE",
        "vllm/lora/model_manager.py, is_3d_moe_weight",
        |subject| match subject.class() {
            Some(_) => None,
            None => subject.stacks().or_else(|| {
                let single = subject.single_experts();
                named(single.iter().map(|(module, _)| module.name.as_str()))
            }),
        },
    ),
    Rule::new(
        "embeddings",
        Effect::Refused,
        "this class takes no factors of embeddings or of the head",
        "vllm/lora/utils.py, get_supported_lora_modules",
        |subject| {
            known_class(subject)?;
            if takes_embeddings(subject) { None } else { subject.modules(is_embedding) }
        },
    ),
    Rule::new(
        "vocabulary",
        Effect::Refused,
        "it wants factors of embeddings to have the base's vocabulary, which it does not extend",
        "vllm/lora/lora_model.py, from_lora_tensors",
        |subject| {
            // Names and shapes of a checkpoint say it too.
            let base = subject.base.filter(|base| base.checkpoint.is_none())?;
            let tokens = base.number("vocab_size")?;
            subject.modules(|module| module.kind == Kind::Embedding && module.inputs != tokens)
        },
    ),
    Rule::new(
        "fused",
        Effect::Refused,
        "this class has these projections divided otherwise than the adapter",
        "vllm/model_executor/models, packed_modules_mapping",
        otherwise_fused,
    )
    .converts(),
    Rule::new(
        "leaves",
        Effect::Refused,
        "it refuses names whose last part no linear layer of the model has",
        "vllm/lora/lora_model.py, check_unexpected_modules",
        unknown_leaves,
    ),
    Rule::new(
        "names",
        Effect::Ignored,
        "it finds no module of these names in this class, and says nothing",
        "vllm/lora/model_manager.py, activate_adapter",
        |subject| unknown_names(subject, false),
    )
    .until("0.33")
    .converts(),
    // 0.33 also looks for a text model's own names below a wrapper's language model.
    Rule::new(
        "names",
        Effect::Ignored,
        "it finds no module of these names in this class, and says nothing",
        "vllm/lora/model_manager.py, _get_text_lora_names",
        |subject| unknown_names(subject, true),
    )
    .since("0.33")
    .converts(),
    Rule::new(
        "towers",
        Effect::Ignored,
        "it leaves towers and connectors out unless started with --enable-tower-connector-lora",
        "vllm/lora/model_manager.py, _get_punica_wrapper",
        |subject| {
            known_class(subject)?;
            subject.modules(|module| Subject::is_tower(&module.name))
        },
    ),
    Rule::new(
        "stacked-experts",
        Effect::Refused,
        "this class reads experts one by one, and the adapter has them in stacks",
        FORMAT,
        stacked,
    )
    .until(MIXED)
    .converts(),
    Rule::new(
        "stacked-experts",
        Effect::Refused,
        "this class reads experts one by one, and the adapter has them in stacks, which it takes only with --enable-mixed-moe-lora-format and is_3d_lora_weight in the request",
        FORMAT,
        stacked,
    )
    .since(MIXED)
    .converts(),
    Rule::new(
        "single-experts",
        Effect::Refused,
        "this class reads experts in PEFT's stacks, and the adapter has them one by one",
        "vllm/lora/model_manager.py, _stack_moe_lora_weights",
        single,
    )
    .until(MIXED)
    .converts(),
    Rule::new(
        "single-experts",
        Effect::Refused,
        "this class reads experts in PEFT's stacks, and the adapter has them one by one, which it takes only with --enable-mixed-moe-lora-format",
        "vllm/lora/model_manager.py, _stack_moe_lora_weights",
        single,
    )
    .since(MIXED)
    .converts(),
    Rule::new(
        "joint-experts",
        Effect::Refused,
        "factors of all experts in one tensor it takes only with --enable-moe-shared-loras",
        "vllm/lora/lora_weights.py, pack_moe_stacked",
        joint_experts,
    )
    .converts(),
    Rule::new(
        "both-stacks",
        Effect::Refused,
        "it wants factors of both stacks of a layer, gate and up's and down's",
        "vllm/lora/model_manager.py, _stack_moe_lora_weights",
        single_stacks,
    )
    .converts(),
    Rule::new(
        "stack-sides",
        Effect::Refused,
        "it takes A of stacks for the side of the inputs, where PEFT before 0.19 has the outputs: an assertion, or another update where both are as large",
        "vllm/lora/model_manager.py, _stack_moe_lora_weights",
        |subject| {
            known_class(subject).filter(|class| is_stacked(class))?;
            crossed_stacks(subject)
        },
    )
    .converts(),
    Rule::new(
        "expert-names",
        Effect::Refused,
        "it has the matrices of this class's experts under the checkpoint's names only",
        "vllm/model_executor/models, ckpt_names",
        other_expert_names,
    )
    .converts(),
    Rule::new(
        "all-experts",
        Effect::Refused,
        "it wants factors of all three matrices of every expert in a layer",
        "vllm/lora/lora_weights.py, pack_moe",
        |subject| {
            known_class(subject).filter(|class| !is_stacked(class))?;
            incomplete_experts(subject)
        },
    )
    .converts(),
    Rule::new(
        "expert-ranks",
        Effect::Refused,
        "it wants one rank for a projection of all experts of a layer",
        "vllm/lora/lora_weights.py, pack_moe",
        |subject| {
            known_class(subject).filter(|class| !is_stacked(class))?;
            expert_ranks(subject)
        },
    )
    .since("0.32")
    .converts(),
    Rule::new(
        "skipped",
        Effect::Ignored,
        "it passes over these modules of this class, without a word",
        "vllm/model_executor/models/nemotron_h.py, lora_skip_prefixes and mixer.gate",
        |subject| {
            known_class(subject).filter(|class| class.starts_with("NemotronH"))?;
            subject.modules(|module| {
                module.name.starts_with("mtp.") || module.name.ends_with(".mixer.gate")
            })
        },
    ),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        "vllm/lora/layers",
        misfits,
    ),
];
