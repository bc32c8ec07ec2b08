//! IA3 (Liu et al. 2022, <https://arxiv.org/abs/2205.05638>): the inputs or the outputs of a weight,
//! each times a learnt factor.
//!
//! PEFT (`tuners/ia3/layer.py`) stores the factors, [out, 1] or [1, in], of a convolution [1, n, 1, …]
//! either way, and scales the bias with the outputs. LyCORIS (`modules/ia3.py`) stores them as
//! differences from 1, says by `on_input` which side they are, and leaves the bias alone.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::prelude::*;
use super::read_alpha;
use crate::adapter::module::{BiasEffect, Dialect, Side};
use crate::math::{Chain, Stage, Transform};

pub(super) static PEFT: Family =
    Family { name: "ia3", signs: &[Part::Named("ia3_l")], parts: &[], build: build_peft };

pub(super) static LYCORIS: Family = Family {
    name: "ia3",
    signs: &[Part::Named("ia3_weight"), Part::Named("on_input")],
    parts: &[],
    build: build_lycoris,
};

#[derive(Debug)]
struct Ia3 {
    factors: String,
    count: usize,
    side: Side,
    dialect: Dialect,
}

impl Form for Ia3 {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.factors]
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        let no_factors = "it scales the base's weights, which no factors do";
        let other_dialect = match self.dialect {
            Dialect::Peft => "PEFT's scales the bias with the outputs, LyCORIS' does not",
            Dialect::Lycoris => no_factors,
        };
        Some(Bound { other_dialect, no_factors })
    }

    fn load(&self, file: &Checkpoint, (_, inputs): (usize, usize)) -> Result<Update> {
        let mut factors = read_f64(find(file, &self.factors)?, 0, self.count)?;
        for factor in &mut factors {
            // LyCORIS stores the difference to 1.
            *factor += if self.dialect == Dialect::Lycoris { 1.0 } else { 0.0 };
        }
        let chain = |factors| Chain::new(vec![Stage::Diagonal(factors)]);
        Ok(Update::Transform(match self.side {
            Side::Outputs => Transform::left(chain(factors)),
            Side::Inputs => {
                let kernel = inputs / self.count.max(1);
                let spread = factors.into_iter().flat_map(|f| std::iter::repeat_n(f, kernel));
                Transform::right(chain(spread.collect()))
            }
        }))
    }
}

fn build_peft(source: &Source<'_>) -> Result<Module> {
    let factors = source.required("ia3_l", "a module")?;
    let view = source.view(factors)?;
    let (side, conv) = match view.spec.shape.as_slice() {
        [_, 1] => (Side::Outputs, false),
        [1, _] => (Side::Inputs, false),
        [1, _, rest @ ..] if rest.iter().all(|&size| size == 1) => {
            (if feeds_forward(source)? { Side::Inputs } else { Side::Outputs }, true)
        }
        shape => {
            let expected = "[out, 1], [1, in] or [1, n, 1…]".to_owned();
            return Err(ErrorKind::BadShape { expected, found: shape.to_vec() }).in_tensor(factors);
        }
    };
    let mut module = build(source, factors, side, conv, Dialect::Peft)?;
    if side == Side::Outputs {
        module.bias = Some(source.bias(factors, module.outputs, BiasEffect::Multiply)?);
    }
    Ok(module)
}

fn build_lycoris(source: &Source<'_>) -> Result<Module> {
    let factors = source.required("ia3_weight", "on_input")?;
    let on_input = read_alpha(find(source.file, source.required("on_input", "weight")?)?)?;
    let conv = source.view(factors)?.spec.shape.len() > 2;
    let side = if on_input == 0.0 { Side::Outputs } else { Side::Inputs };
    build(source, factors, side, conv, Dialect::Lycoris)
}

fn build(
    source: &Source<'_>,
    factors: &str,
    side: Side,
    conv: bool,
    dialect: Dialect,
) -> Result<Module> {
    let count = source.view(factors)?.spec.elements();
    Ok(Module {
        name: source.name.to_owned(),
        family: PEFT.name,
        kind: if conv { Kind::Channels } else { Kind::Linear },
        rank: 0,
        inputs: if side == Side::Inputs { count } else { 0 },
        outputs: if side == Side::Outputs { count } else { 0 },
        scale: Scale::of_family(1.0, None),
        form: Arc::new(Ia3 { factors: factors.to_owned(), count, side, dialect }),
        bias: None,
        magnitude: None,
    })
}

/// Whether the config counts the module among its `feedforward_modules`: a regular expression for the
/// whole name, or a list of endings.
fn feeds_forward(source: &Source<'_>) -> Result<bool> {
    const FIELD: &str = "feedforward_modules";
    match source.config.and_then(|config| config.document.get(FIELD)) {
        Some(Value::String(pattern)) => {
            let regex = Regex::new(&format!("^(?:{pattern})$"));
            let regex = regex.map_err(|error| ErrorKind::BadConfig {
                reason: format!("`{FIELD}`: `{pattern}`: {error}"),
            })?;
            Ok(regex.is_match(source.name))
        }
        Some(Value::Array(endings)) => {
            let mut endings = endings.iter().filter_map(Value::as_str);
            Ok(endings.any(|ending| source.name.ends_with(ending)))
        }
        _ => Ok(false),
    }
}
