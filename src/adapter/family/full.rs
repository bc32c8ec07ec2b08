//! Differences stored whole: LyCORIS' Full (`diff`, `diff_b`) and Norm (`w_norm`, `b_norm`)
//! (`modules/full.py`, `modules/norms.py`), and a difference of the bias alone. Their strength is the
//! user's weight; there is no alpha.

use std::sync::Arc;

use super::prelude::*;
use crate::adapter::module::BiasEffect;

pub(super) static FAMILY: Family = Family {
    name: "full",
    signs: &[Part::Named("diff"), Part::Named("w_norm"), Part::Named("b_norm")],
    parts: &[Part::Named("diff_b")],
    build,
};

/// A difference of the bias, and none of the weight.
pub(super) static BIAS: Family =
    Family { name: "full", signs: &[Part::Named("diff_b")], parts: &[], build: build_bias };

/// PEFT's BEFT (`tuners/beft/layer.py`): what is added to the bias of a layer that has one.
pub(super) static BEFT: Family =
    Family { name: "beft", signs: &[Part::Named("beft_bias")], parts: &[], build: build_beft };

/// A stored difference.
#[derive(Debug)]
struct Difference {
    tensor: String,
}

impl Form for Difference {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.tensor]
    }

    fn nature(&self) -> Nature {
        Nature::Full
    }

    fn load(&self, _file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        Ok(Update::Stored(self.tensor.clone()))
    }
}

/// No difference at all.
#[derive(Debug)]
struct Nothing;

impl Form for Nothing {
    fn tensors(&self) -> Vec<&str> {
        Vec::new()
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(0)
    }

    fn load(&self, _file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        Ok(Update::LowRank(LowRank::zero(outputs, inputs)))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let weight = match (source.named("diff"), source.named("w_norm")) {
        (Some(_), Some(norm)) => return Err(FAMILY.stray(norm)),
        (diff, norm) => diff.or(norm),
    };
    let bias = source.named("b_norm");
    let Some(tensor) = weight else { return without_weight(source, FAMILY.name, bias) };
    let shape = source.view(tensor)?.spec.shape.clone();
    let (outputs, inputs) = match shape.as_slice() {
        [outputs, rest @ ..] => (*outputs, rest.iter().product()),
        [] => (1, 1),
    };
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: Kind::Whole(shape),
        rank: 0,
        inputs,
        outputs,
        scale: Scale::of_family(1.0, None),
        form: Arc::new(Difference { tensor: tensor.to_owned() }),
        bias: bias.map(|tensor| source.bias(tensor, outputs, BiasEffect::Add)).transpose()?,
        magnitude: None,
    })
}

fn build_bias(source: &Source<'_>) -> Result<Module> {
    without_weight(source, FAMILY.name, None)
}

fn build_beft(source: &Source<'_>) -> Result<Module> {
    let bias = source.required("beft_bias", "a module")?;
    without_weight(source, BEFT.name, Some(bias))
}

fn without_weight(source: &Source<'_>, family: &'static str, bias: Option<&str>) -> Result<Module> {
    Ok(Module {
        name: source.name.to_owned(),
        family,
        kind: Kind::Linear,
        rank: 0,
        inputs: 0,
        outputs: 0,
        scale: Scale::of_family(1.0, None),
        form: Arc::new(Nothing),
        bias: bias.map(|tensor| source.bias(tensor, 0, BiasEffect::Add)).transpose()?,
        magnitude: None,
    })
}
