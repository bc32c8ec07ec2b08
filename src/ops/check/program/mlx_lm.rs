//! mlx-lm (`tuner/utils.py`, `tuner/lora.py`), read at 0.32.2: a directory of its own, one rank, one scale.

use serde_json::{Map, Value};

use super::spelling::{Spelling, spelling};
use super::{Field, Program, Takes, nothing};
use crate::adapter::convention::mlx_classes::stacks_of;
use crate::adapter::convention::{Convention, by_name, of_class, one_by_one, peft};
use crate::format::access::read_config_if_there;
use crate::format::json::object;
use crate::ops::check::place::Found;
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{
    biased, changed_base, decomposed, factorable, misfits, replaced, towers, unfactorable, unplaced,
};
use crate::ops::check::subject::{Subject, named};
use crate::weight::root::Root;

pub(super) static PROGRAM: Program = Program {
    name: "mlx",
    aliases: &["mlx-lm"],
    version: "0.32.2",
    oldest: "0.20",
    field: Field::Language,
    reads: &["mlx"],
    converts: &[],
    takes: Takes { uniform: true, wrapped: Some(Root::OUTER), ..Takes::convention(&["mlx"]) },
    older: &[],
    needs: nothing,
    rules: &[RULES],
};

const LOAD: &str = "tuner/utils.py, load_adapters";

/// The release from which names and shapes are checked; before, `strict=False` passed over them.
const STRICT: &str = "0.32";

static RULES: &[Rule] = &[
    Rule::new("ranks", Effect::Refused, "it has one rank for all modules, its config's", LOAD, |subject| {
        let said = config(subject).and_then(|own| own.get("lora_parameters")?.get("rank")?.as_u64());
        let rank = said.and_then(|rank| usize::try_from(rank).ok()).unwrap_or_else(|| subject.rank());
        subject.modules(|module| module.rank != rank)
    })
    .since(STRICT)
    .converts(),
    Rule::new(
        "config",
        Effect::Refused,
        "it wants num_layers, and rank, scale and dropout in lora_parameters",
        LOAD,
        |subject| {
            let config = config(subject)?;
            let parameters = config.get("lora_parameters");
            let lacks = |field: &&str| match *field {
                "num_layers" => config.get("num_layers").is_none(),
                field => parameters.and_then(|own| own.get(field)).is_none(),
            };
            named(["num_layers", "rank", "scale", "dropout"].into_iter().filter(lacks))
        },
    )
    .converts(),
    Rule::new(
        "layers",
        Effect::Refused,
        "it has factors in the last num_layers layers only, and there of what keys names",
        "tuner/utils.py, linear_to_lora_layers",
        outside_layers,
    )
    .since(STRICT)
    .converts(),
    Rule::new(
        "layers",
        Effect::Ignored,
        "it has factors in the last num_layers layers only, and there of what keys names, and passes over others",
        "tuner/utils.py, linear_to_lora_layers",
        outside_layers,
    )
    .until(STRICT)
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows LoRA and DoRA only; converting makes factors, which these have exactly",
        LOAD,
        factorable,
    )
    .converts(),
    Rule::new(
        "family",
        Effect::Refused,
        "it knows LoRA and DoRA only, and these have no factors without the base",
        LOAD,
        |subject| {
            let dora = subject.adapter.modules.iter().any(|module| module.family == "dora");
            if dora { None } else { unfactorable(subject) }
        },
    )
    .extracts(),
    Rule::new(
        "magnitudes",
        Effect::Changed,
        "fine_tune_type is dora and there are no magnitudes, so that it takes the base's lengths",
        LOAD,
        |subject| {
            let lacks = is_dora(subject) == Some(true) && decomposed(subject).is_none();
            named(lacks.then_some("fine_tune_type"))
        },
    )
    .converts(),
    Rule::new(
        "magnitudes",
        Effect::Refused,
        "fine_tune_type is not dora, and it has no place for magnitudes",
        LOAD,
        |subject| if is_dora(subject) == Some(false) { decomposed(subject) } else { None },
    )
    .converts(),
    Rule::new(
        "dora-experts",
        Effect::Refused,
        "it has no DoRA of experts",
        "tuner/dora.py",
        |subject| {
            subject
                .modules(|module| module.magnitude.is_some() && convention().stack_of(&module.name).is_some())
        },
    )
    .extracts(),
    Rule::new(
        "replaced",
        Effect::Refused,
        "it has no place for tensors that replace the base's; merge them instead",
        LOAD,
        replaced,
    ),
    Rule::new(
        "initialisation",
        Effect::Changed,
        "it adds the factors to the base that their initialisation changed",
        LOAD,
        changed_base,
    ),
    Rule::new("class", Effect::Refused, "it has no class for models of this type", "utils.py, _get_classes", |subject| {
        let model_type = subject.base?.model_type()?;
        named(stacks_of(model_type).is_none().then_some(model_type))
    }),
    Rule::new(
        "expert-stacks",
        Effect::Refused,
        "its class of the base has a layer's experts in stacks of another name, or has none",
        "models/switch_layers.py, SwitchGLU",
        |subject| {
            let stacks = stacks_of(subject.base?.model_type()?)?;
            subject.modules(|module| {
                let expert = convention().stack_of(&module.name).is_some();
                expert && of_class(&one_by_one(&module.name), stacks).as_ref() != Some(&module.name)
            })
        },
    )
    .converts(),
    Rule::new("bias", Effect::Refused, "it has no biases of B", LOAD, biased).extracts(),
    Rule::new(
        "names",
        Effect::Refused,
        "it refuses what the base does not have",
        LOAD,
        |subject| unplaced(subject).or_else(|| misfits(subject)),
    )
    .since(STRICT),
    Rule::new(
        "names",
        Effect::Ignored,
        "it passes over what the base does not have",
        LOAD,
        unplaced,
    )
    .until(STRICT),
    Rule::new("towers", Effect::Refused, "it has language models only, and refuses factors of towers", LOAD, towers)
        .since(STRICT),
    Rule::new("towers", Effect::Ignored, "it has language models only, and passes over towers", LOAD, towers)
        .until(STRICT),
    Rule::new(
        "latent-keys",
        Effect::Refused,
        "it has kv_b_proj of this class as two matrices, one of them turned, and refuses factors of it",
        "models/deepseek_v3.py, Model.sanitize",
        |subject| {
            subject.class().filter(|class| *class == "DeepseekV3ForCausalLM")?;
            subject.modules(|module| module.name.ends_with(".kv_b_proj"))
        },
    ),
    Rule::new(
        "wrapped",
        Effect::Refused,
        "it has the language model of this class as language_model.model, and refuses other names",
        LOAD,
        wrapped,
    )
    .since(STRICT)
    .converts(),
    Rule::new(
        "wrapped",
        Effect::Ignored,
        "it has the language model of this class as language_model.model, and passes over other names",
        LOAD,
        wrapped,
    )
    .until(STRICT)
    .converts(),
];

fn wrapped(subject: &Subject<'_>) -> Found {
    subject.base.filter(|base| base.wraps())?;
    subject.modules(|module| spelling(&module.name).is_some_and(|own| own != Spelling::Outer))
}

fn convention() -> &'static Convention {
    by_name(PROGRAM.reads.first().copied().unwrap_or_default()).unwrap_or_else(peft)
}

/// Whether its own config says DoRA.
fn is_dora(subject: &Subject<'_>) -> Option<bool> {
    let config = config(subject).filter(|config| config.contains_key("lora_parameters"))?;
    Some(config.get("fine_tune_type").and_then(Value::as_str) == Some("dora"))
}

/// Its own config.
fn config(subject: &Subject<'_>) -> Option<Map<String, Value>> {
    let path = subject.adapter.config_path.as_ref()?;
    object(&read_config_if_there(path).ok()??).ok()
}

/// Modules of layers before the last `num_layers`, or that `keys` does not name.
fn outside_layers(subject: &Subject<'_>) -> Found {
    let config = config(subject)?;
    let adapted = config.get("num_layers").and_then(Value::as_i64);
    let keys = config.get("lora_parameters").and_then(|own| own.get("keys"));
    let keys: Option<Vec<&str>> =
        keys.and_then(Value::as_array).map(|keys| keys.iter().filter_map(Value::as_str).collect());
    let layers = subject.base.and_then(|base| base.number("num_hidden_layers"));
    // All layers are -1.
    let first = layers.zip(adapted).map_or(0, |(layers, adapted)| {
        usize::try_from(adapted).map_or(0, |adapted| layers.saturating_sub(adapted))
    });
    subject.modules(|module| {
        let Some((_, below)) = module.name.split_once("layers.") else { return false };
        let Some((number, path)) = below.split_once('.') else { return false };
        let before = number.parse::<usize>().is_ok_and(|number| number < first);
        // Experts are named by the stack that they are in.
        let stack = convention().stack_of(path).map(|(stack, _)| stack);
        let path = stack.as_deref().unwrap_or(path);
        before || keys.as_ref().is_some_and(|keys| !keys.is_empty() && !keys.contains(&path))
    })
}
