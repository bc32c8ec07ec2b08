//! mlx-lm (`tuner/utils.py`, `tuner/lora.py`), read at 0.32.2: a directory of its own, one rank, one scale.

use super::spelling::{Spelling, spelling};
use super::{Field, Program, Takes, nothing};
use crate::ops::check::rule::{Effect, Rule};
use crate::ops::check::shared::{biased, factorable, misfits, replaced, unfactorable, unplaced};
use crate::ops::check::subject::expert_of;
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
    needs: nothing,
    rules: &RULES,
};

const LOAD: &str = "tuner/utils.py, load_adapters";

static RULES: [Rule; 9] = [
    Rule::new("ranks", Effect::Refused, "it has one rank for all modules", LOAD, |subject| {
        let first = subject.rank();
        subject.modules(|module| module.rank != first)
    })
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
        "dora-experts",
        Effect::Refused,
        "it has no DoRA of experts",
        "tuner/dora.py",
        |subject| {
            subject
                .modules(|module| module.magnitude.is_some() && expert_of(&module.name).is_some())
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
    Rule::new("bias", Effect::Refused, "it has no biases of B", LOAD, biased).extracts(),
    Rule::new(
        "names",
        Effect::Refused,
        "it refuses what the base does not have",
        LOAD,
        |subject| unplaced(subject).or_else(|| misfits(subject)),
    ),
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
        |subject| {
            subject.base.filter(|base| base.wraps())?;
            subject
                .modules(|module| spelling(&module.name).is_some_and(|own| own != Spelling::Outer))
        },
    )
    .converts(),
];
