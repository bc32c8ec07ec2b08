//! BD-LoRA, a LoRA one of whose factors is block-diagonal: A of r × in stored as r × in/n, or B of out × r as out × r/n,
//! n blocks one below the other (PEFT `tuners/lora/variants.py`, `BlockDiagonalLinear`). `use_bdlora` says of which
//! modules, by parts of their names.

use std::sync::Arc;

use serde_json::Value;

use super::matrices::factors;
use super::prelude::*;

const NAME: &str = "bdlora";

/// How many blocks either factor of a module has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    down: usize,
    up: usize,
}

#[derive(Debug)]
struct BdLora {
    down: String,
    up: String,
    blocks: Blocks,
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl Form for BdLora {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.down, &self.up]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        Ok(Update::LowRank(LowRank::new(
            spread(file, &self.up, (self.outputs, self.rank), self.blocks.up)?,
            spread(file, &self.down, (self.rank, self.inputs), self.blocks.down)?,
        )))
    }
}

/// A factor of rows × columns whose blocks are stored one below the other.
fn spread(
    file: &Checkpoint,
    tensor: &str,
    (rows, columns): (usize, usize),
    blocks: usize,
) -> Result<Matrix> {
    let (high, wide) = (rows / blocks, columns / blocks);
    let stored = read_matrix(file, tensor, rows, wide)?;
    Ok(Matrix::from_fn(rows, columns, |row, column| {
        if row / high == column / wide { stored[(row, column % wide)] } else { 0.0 }
    }))
}

/// The blocks of a module's factors; none if both are plain.
pub(super) fn sides(source: &Source<'_>) -> Result<Option<Blocks>> {
    let named = source.config.and_then(|config| config.document.get("use_bdlora"));
    let Some(Value::Object(fields)) = named else { return Ok(None) };
    let bad = |reason: String| ErrorKind::BadConfig { reason };
    let count = fields.get("nblocks").and_then(Value::as_u64).unwrap_or(1);
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| bad("`use_bdlora` has 0 `nblocks`".to_owned()))?;
    let lists = |field: &str| {
        let patterns = fields.get(field).and_then(Value::as_array).into_iter().flatten();
        patterns.filter_map(Value::as_str).any(|pattern| source.name.contains(pattern))
    };
    match (lists("target_modules_bd_a"), lists("target_modules_bd_b")) {
        (true, true) => {
            Err(bad(format!("`use_bdlora` names both factors of {}", source.name)).into())
        }
        (true, false) => Ok(Some(Blocks { down: count, up: 1 })),
        (false, true) => Ok(Some(Blocks { down: 1, up: count })),
        (false, false) => Ok(None),
    }
}

/// Makes the module of two factors of which one is stored in blocks.
pub(super) fn build(source: &Source<'_>, blocks: Blocks) -> Result<Module> {
    let (down, up, embedding) = factors(source)?;
    if embedding {
        return Err(FamilyError::StrayPart { family: NAME }).in_tensor(down);
    }
    let (rank, inputs, _) = source.matrix(down)?;
    let (outputs, levels, _) = source.matrix(up)?;
    source.expect(down, rank, inputs, &[])?;
    source.expect(up, outputs, levels, &[])?;
    let found = || (source.view(down), source.view(up));
    if levels * blocks.up != rank
        || !rank.is_multiple_of(blocks.down)
        || !outputs.is_multiple_of(blocks.up)
    {
        let (down, up) = found();
        let (down, up) = (down?.spec.shape.clone(), up?.spec.shape.clone());
        return Err(ErrorKind::RankMismatch { down, up }.into());
    }
    let inputs = inputs * blocks.down;
    Ok(Module {
        name: source.name.to_owned(),
        family: NAME,
        kind: Kind::Linear,
        rank,
        inputs,
        outputs,
        scale: source.scales.resolve(source.name, rank, source.alpha()?)?,
        form: Arc::new(BdLora {
            down: down.to_owned(),
            up: up.to_owned(),
            blocks,
            rank,
            outputs,
            inputs,
        }),
        bias: None,
        magnitude: None,
    })
}
