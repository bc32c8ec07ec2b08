//! PEFT itself (`utils/save_and_load.py`, `tuners/tuners_utils.py`), read at 0.3.0 to 0.21.2.

use super::spelling::{Spelling, is_moved, spelling};
use super::{Field, Program, Takes, nothing};
use crate::adapter::promised::is_promised;
use crate::adapter::scale::ScaleSource;
use crate::adapter::stacks::ExpertSizes;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{crossed_stacks, dora_flag, misfits, no_directory, unprefixed};
use crate::ops::check::subject::{Subject, named};
use crate::weight::root::Root;

pub(super) static PROGRAM: Program = Program {
    name: "peft",
    aliases: &[],
    version: "0.21.2",
    oldest: "0.3",
    field: Field::Any,
    reads: &["peft"],
    converts: &[],
    takes: TAKES,
    older: &[(ANCHORED, Takes { uniform: true, reads_patterns: false, ..TAKES })],
    needs: nothing,
    rules: &[RULES],
};

const LOAD: &str = "utils/save_and_load.py, set_peft_model_state_dict";
const TAKES: Takes = Takes {
    base_names: true,
    wrapped: Some(Root::NESTED),
    reads_patterns: true,
    ..Takes::convention(&["peft"])
};

/// The release from which a pattern can be a whole name.
const ANCHORED: &str = "0.14";

/// The release that maps keys of wrappers, and the one that swaps the sides of stacks.
const MOVES: &str = "0.16";
const SWAPS: &str = "0.19";
const CONFIG: &str = "config.py, from_peft_type";

static RULES: &[Rule] = &[
    Rule::new(
        "files",
        Effect::Refused,
        "it reads a directory of adapter_config.json and adapter_model.safetensors",
        "utils/save_and_load.py, load_peft_weights",
        no_directory,
    )
    .converts(),
    Rule::new(
        "names",
        Effect::Ignored,
        "it finds no tensors for its modules under these names, warns, and leaves B at 0",
        LOAD,
        |subject| unknown_names(subject, true),
    )
    .since(MOVES)
    .converts(),
    // Before, it did not map the keys of wrappers as transformers' classes do.
    Rule::new(
        "names",
        Effect::Ignored,
        "it finds no tensors for its modules under these names, warns (since 0.14), and leaves B at 0",
        LOAD,
        |subject| unknown_names(subject, false),
    )
    .until(MOVES)
    .converts(),
    Rule::new(
        "tensor-names",
        Effect::Ignored,
        "it passes over tensors that have not `base_model.model.` before their names, and once",
        LOAD,
        unprefixed,
    )
    .converts(),
    Rule::new(
        "stack-sides",
        Effect::Refused,
        "it takes A of stacks for the side of the inputs, where PEFT before 0.19 has the outputs: a wrong size, or another update where both are as large",
        "tuners/lora/layer.py, ParamWrapper",
        |subject| if has_plain_stacks(subject) { crossed_stacks(subject) } else { None },
    )
    .since(SWAPS)
    .converts(),
    Rule::new(
        "stack-sides",
        Effect::Refused,
        "it takes A of stacks for the side of the outputs, where PEFT since 0.19 has the inputs: a wrong size, or another update where both are as large",
        "tuners/lora/layer.py, ParamWrapper",
        straight_stacks,
    )
    .until(SWAPS),
    Rule::new(
        "shapes",
        Effect::Refused,
        "their updates have other shapes than the base's weights",
        LOAD,
        misfits,
    ),
    Rule::new(
        "magnitudes",
        Effect::Changed,
        "use_dora is set and there are no magnitudes, so that it takes the base's lengths",
        LOAD,
        dora_flag,
    )
    .converts(),
    Rule::new(
        "alphas",
        Effect::ScaledWrongly,
        "it ignores alpha tensors, and multiplies by what the config says",
        LOAD,
        |subject| {
            let config = subject.adapter.config.as_ref()?;
            subject.scaled(|module| match module.scale.source {
                ScaleSource::AlphaTensor => config.scale_of(&module.name, module.rank),
                _ => module.scale.value,
            })
        },
    )
    .converts(),
    Rule::new(
        "targets",
        Effect::Ignored,
        "it makes modules of what target_modules and layers_to_transform name only, and drops the tensors of others without a word",
        "tuners/tuners_utils.py, check_target_module_exists",
        |subject| {
            let lone = subject.adapter.stacks.is_empty();
            subject.modules(|module| lone && is_promised(subject.adapter, &module.name) == Some(false))
        },
    )
    .converts(),
    field("rank_pattern and alpha_pattern", |subject| {
        fields(subject, &["rank_pattern", "alpha_pattern"])
    })
    .until("0.6")
    .converts(),
    field("anchored patterns", |subject| named(anchored(subject).then_some("rank_pattern"))).until(ANCHORED).converts(),
    field("use_rslora", |subject| fields(subject, &["use_rslora"])).until("0.8").converts(),
    field("use_dora", |subject| fields(subject, &["use_dora"])).until("0.9").extracts(),
    field("layer_replication", |subject| fields(subject, &["layer_replication"])).until("0.10"),
    field("lora_bias", |subject| fields(subject, &["lora_bias"])).until("0.14"),
    field("trainable_token_indices", |subject| fields(subject, &["trainable_token_indices"]))
        .until("0.15"),
    field("target_parameters", |subject| fields(subject, &["target_parameters"])).until("0.17"),
    field("fields of newer releases", |subject| {
        fields(subject, &["arrow_config", "alora_invocation_tokens", "ensure_weight_tying"])
    })
    .until("0.18"),
    field("use_qalora", |subject| fields(subject, &["use_qalora"])).until("0.16"),
    field("use_bdlora", |subject| fields(subject, &["use_bdlora"])).until("0.19"),
    field("kasa_config", |subject| fields(subject, &["kasa_config"])).until("0.21.2"),
];

/// A field that older releases drop with a warning, and compute without.
const fn field(name: &'static str, finds: fn(&Subject<'_>) -> Found) -> Rule {
    let says = "this release does not know the field, warns, and computes without it";
    Rule::new(name, Effect::Changed, says, CONFIG, finds)
}

fn fields(subject: &Subject<'_>, names: &[&'static str]) -> Found {
    named(names.iter().copied().filter(|name| subject.flag(name)))
}

/// Whether patterns of ranks or alphas begin with `^`, which releases before took for a part of the name.
fn anchored(subject: &Subject<'_>) -> bool {
    let keys = |field: &str| {
        let pattern = subject.config().and_then(|config| config.get(field)?.as_object());
        pattern.is_some_and(|pattern| pattern.keys().any(|key| key.starts_with('^')))
    };
    keys("rank_pattern") || keys("alpha_pattern")
}

/// Whether the base has its stacks outputs × inputs; of others the model's class decides.
fn has_plain_stacks(subject: &Subject<'_>) -> bool {
    let checkpoint = subject.base.and_then(|base| base.checkpoint.as_ref());
    checkpoint.and_then(ExpertSizes::of).is_some_and(|sizes| !sizes.turned)
}

/// Stacks whose A is on the side of the inputs, of such a base.
fn straight_stacks(subject: &Subject<'_>) -> Found {
    let straight = subject.adapter.stacks.iter().filter(|(_, stack)| !stack.crossed);
    if has_plain_stacks(subject) { named(straight.map(|(name, _)| name.as_str())) } else { None }
}

/// Names that are not the base's, nor (`moves`) those that transformers itself takes for them.
fn unknown_names(subject: &Subject<'_>, moves: bool) -> Found {
    let base = subject.base?;
    let targets = base.targets.as_ref()?;
    let places = subject.adapter.modules.iter().zip(&targets.modules);
    let lost = places.filter(|(module, places)| match places.as_slice() {
        [] => !is_copied_layer(subject, &module.name),
        [place, ..] => {
            let stack = place.expert.is_some();
            let expert = module.name.contains(".experts.") && !subject.adapter.stacks.is_empty();
            // Of some wrappers the checkpoint has the language model outside of any, the class inside.
            let nested = base.wraps() && Root::is_bare(&place.tensor.replace(".weight", ""));
            let found = match nested {
                true => spelling(&module.name) == Some(Spelling::Nested),
                false => base.has(&module.name) || moves && is_moved(&module.name, &place.tensor),
            };
            !stack && !expert && !found
        }
    });
    named(lost.map(|(module, _)| module.name.as_str()))
}

/// Whether the module is of a layer that `layer_replication` makes.
fn is_copied_layer(subject: &Subject<'_>, name: &str) -> bool {
    let ranges = subject.config().and_then(|config| config.get("layer_replication")?.as_array());
    let lengths = ranges.into_iter().flatten().filter_map(|range| {
        let [first, end] = range.as_array()?.as_slice() else { return None };
        end.as_u64()?.checked_sub(first.as_u64()?)
    });
    let layer = name.split('.').find_map(|part| part.parse::<u64>().ok());
    layer.is_some_and(|layer| layer < lengths.sum())
}
