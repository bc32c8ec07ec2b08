//! GLoRA (Chavan et al. 2023, <https://arxiv.org/abs/2306.07967>) as LyCORIS has it
//! (`modules/glora.py`): W + scale · (W·a1·a2 + b1·b2). Older files have each pair the other way round,
//! scale · (W·a2·a1 + b2·b1); shapes tell (ComfyUI `comfy/weight_adapter/glora.py`). Of a convolution
//! W·a1·a2 goes over the channels.

use std::sync::Arc;

use super::prelude::*;
use crate::math::{Chain, Stage, Transform};

pub(super) static FAMILY: Family = Family {
    name: "glora",
    signs: &[Part::Named("a1"), Part::Named("a2"), Part::Named("b1"), Part::Named("b2")],
    parts: &[Part::Alpha],
    build,
};

#[derive(Debug)]
struct GLora {
    /// channels × rank and rank × channels, over which W goes.
    over: [String; 2],
    /// out × rank and rank × in, which are added.
    plus: [String; 2],
    rank: usize,
    channels: usize,
    kernel: usize,
    scale: f64,
}

impl Form for GLora {
    fn tensors(&self) -> Vec<&str> {
        self.over.iter().chain(&self.plus).map(String::as_str).collect()
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let ([over_up, over_down], [up, down]) = (&self.over, &self.plus);
        let over = LowRank::new(
            read_matrix(file, over_up, self.channels, self.rank)? * self.scale,
            read_matrix(file, over_down, self.rank, self.channels)?,
        );
        let plus = LowRank::new(
            read_matrix(file, up, outputs, self.rank)? * self.scale,
            read_matrix(file, down, self.rank, inputs)?,
        );
        Ok(Update::Transform(Transform::Linear {
            left: Chain::default(),
            right: Chain::new(vec![Stage::Plus { matrix: over, kernel: self.kernel }]),
            plus: Some(plus),
        }))
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    const NAMES: [&str; 4] = ["a1", "a2", "b1", "b2"];
    let named = NAMES.map(|name| source.required(name, "a part of GLoRA"));
    let [a1, a2, b1, b2] = named;
    let (a1, a2, b1, b2) = (a1?, a2?, b1?, b2?);
    let size = |name: &str| source.matrix(name).map(|(rows, columns, _)| (rows, columns));
    let sizes = (size(a1)?, size(a2)?, size(b1)?, size(b2)?);
    let ((a1r, a1c), (a2r, a2c), (b1r, b1c), (b2r, b2c)) = sizes;
    let new = a1c == a2r && a1c == b1c && a1c == b2r && a1r == a2c;
    let old = a1r == a2c && a1r == b1r && a1r == b2c && a1c == a2r;
    // Of a square weight both fit; a rank is less than the weight's size. Where that does not tell
    // either, ComfyUI reads the old way.
    let (over, plus) = match (new && !(old && a1r <= a1c), old) {
        (true, _) => ([a1, a2], [b1, b2]),
        (false, true) => ([a2, a1], [b2, b1]),
        (false, false) => {
            let (down, up) = (vec![a1r, a1c], vec![a2r, a2c]);
            return Err(ErrorKind::RankMismatch { down, up }.into());
        }
    };
    let [up, down] = plus;
    let (channels, rank) = size(over[0])?;
    let (outputs, _) = size(up)?;
    let (_, columns, kernel) = source.matrix(down)?;
    source.expect(down, rank, channels, kernel)?;
    let ones = vec![1; kernel.len()];
    for (tensor, rows, columns) in
        [(over[0], channels, rank), (over[1], rank, channels), (up, outputs, rank)]
    {
        source.expect(tensor, rows, columns, &ones)?;
    }
    let positions: usize = kernel.iter().product();
    let scale = source.scales.resolve(source.name, rank, source.alpha()?)?;
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: if kernel.is_empty() { Kind::Linear } else { Kind::Conv(kernel.to_vec()) },
        rank,
        inputs: columns * positions,
        outputs,
        scale,
        form: Arc::new(GLora {
            over: over.map(str::to_owned),
            plus: plus.map(str::to_owned),
            rank,
            channels,
            kernel: positions,
            scale: scale.value,
        }),
        bias: None,
        magnitude: None,
    })
}
