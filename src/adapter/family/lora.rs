//! LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): scale · B · A, with B: out × rank and
//! A: rank × in; of convolutions and embeddings too. LoCon's core between them (LyCORIS
//! `modules/locon.py`, Tucker-2 form) is a rank × rank kernel, which is folded into A.

use std::sync::Arc;

use super::bdlora;
use super::matrices::{factors, folded_core};
use super::prelude::*;
use crate::adapter::module::BiasEffect;
use crate::adapter::slice::Slice;
use crate::format::TensorView;

/// Its name in reports.
pub(in crate::adapter) const NAME: &str = "lora";

pub(super) static FAMILY: Family = Family {
    name: NAME,
    signs: &[Part::Down, Part::Up, Part::EmbeddingDown, Part::EmbeddingUp],
    parts: &[
        Part::Alpha,
        Part::Magnitude,
        Part::UpBias,
        Part::Named("diff_b"),
        Part::Named("dora_scale"),
        Part::Named("lora_mid"),
    ],
    build,
};

/// up · down, each a tensor or a part of one.
#[derive(Debug, Clone)]
pub struct Product {
    /// B, outputs × rank.
    pub up: Slice,
    /// A, rank × inputs.
    pub down: Slice,
    /// Inner dimension.
    pub rank: usize,
}

impl Form for Product {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down.tensor, &self.up.tensor]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn has_kernel(&self) -> bool {
        true
    }

    fn is_part(&self) -> bool {
        !(self.up.is_whole() && self.down.is_whole())
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let up = self.up.read(file, outputs, self.rank)?;
        Ok(Update::Factors(up, self.down.read(file, self.rank, inputs)?))
    }
}

/// up · core · down over a kernel: up is out × rank, core rank × rank × kernel, down rank × channels.
#[derive(Debug, Clone)]
struct Cored {
    up: String,
    core: String,
    down: String,
    ranks: (usize, usize),
}

impl Form for Cored {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.core, &self.up]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.ranks.0)
    }

    fn has_kernel(&self) -> bool {
        true
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let up = read_matrix(file, &self.up, outputs, self.ranks.0)?;
        Ok(Update::LowRank(LowRank::new(
            up,
            folded_core(file, &self.core, &self.down, self.ranks, inputs)?,
        )))
    }
}

/// Pairs a module's factors and checks that they belong together.
fn build(source: &Source<'_>) -> Result<Module> {
    if let Some(sides) = bdlora::sides(source)? {
        return bdlora::build(source, sides);
    }
    let (down, up, embedding) = factors(source)?;
    let (down_view, up_view) = (source.view(down)?, source.view(up)?);
    let (inner, inputs, kernel) = split_down(down_view)?;
    let (outputs, rank) = outputs_of(up_view)?;
    let core = source.named("lora_mid");
    let (inputs, kernel) = match core {
        None => (inputs, kernel),
        Some(core) => {
            let core_kernel = source.kernel(core)?;
            source.expect(core, rank, inner, core_kernel)?;
            source.expect(down, inner, inputs, &vec![1; kernel.len()])?;
            (inputs * core_kernel.iter().product::<usize>(), core_kernel.to_vec())
        }
    };
    if core.is_none() && rank != inner {
        let (down, up) = (down_view.spec.shape.clone(), up_view.spec.shape.clone());
        return Err(ErrorKind::RankMismatch { down, up }.into());
    }
    let kind = match kernel {
        _ if embedding => Kind::Embedding,
        kernel if kernel.is_empty() => Kind::Linear,
        kernel => Kind::Conv(kernel),
    };
    let bias = source.parts.get(&Part::UpBias);
    let bias = bias.map(|tensor| source.bias(tensor, outputs, BiasEffect::AddScaled));
    let form: Arc<dyn Form> = match core {
        None => Arc::new(Product { up: Slice::whole(up), down: Slice::whole(down), rank }),
        Some(core) => Arc::new(Cored {
            up: up.to_owned(),
            core: core.to_owned(),
            down: down.to_owned(),
            ranks: (rank, inner),
        }),
    };
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind,
        rank,
        inputs,
        outputs,
        scale: source.scales.resolve(source.name, inner, source.alpha()?)?,
        form,
        bias: bias.transpose()?,
        magnitude: None,
    })
}

/// (rank, inputs flattened with the kernel, kernel) of A: [rank, in] or [rank, in, kernel…].
fn split_down(down: TensorView<'_>) -> Result<(usize, usize, Vec<usize>)> {
    match down.spec.shape.as_slice() {
        [rank, channels, kernel @ ..] if kernel.len() <= 3 => {
            let inputs = channels * kernel.iter().product::<usize>();
            Ok((*rank, inputs, kernel.to_vec()))
        }
        _ => {
            let expected = "[rank, in] or [rank, in, kernel…]".to_owned();
            Err(ErrorKind::BadShape { expected, found: down.spec.shape.clone() })
                .in_tensor(&down.spec.name)
        }
    }
}

/// (outputs, rank) of B: [out, rank], or [out, rank, 1…] of a convolution.
fn outputs_of(up: TensorView<'_>) -> Result<(usize, usize)> {
    match up.spec.shape.as_slice() {
        [outputs, rank, ones @ ..] if ones.iter().all(|&size| size == 1) => Ok((*outputs, *rank)),
        _ => {
            let expected = "[out, rank] or [out, rank, 1…]".to_owned();
            Err(ErrorKind::BadShape { expected, found: up.spec.shape.clone() })
                .in_tensor(&up.spec.name)
        }
    }
}
