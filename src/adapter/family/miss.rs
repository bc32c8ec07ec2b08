//! MiSS, earlier Bone (Kang and Yin 2024, <https://arxiv.org/abs/2409.15371>): every input i adds row
//! i mod r of the block, Δ[o, i] = M[i mod r, o]; exactly a LoRA of rank r (PEFT
//! `tuners/miss/layer.py`). Of the variant `mini` M's columns repeat. The variant `bat` goes through
//! the weight in blocks, and is refused.

use super::prelude::*;

pub(super) static FAMILY: Family =
    Family { name: "miss", signs: &[Part::Named("miss_block")], parts: &[], build };

#[derive(Debug)]
struct Miss {
    block: String,
    rank: usize,
    /// Columns of the block: the outputs, or what repeats over them.
    width: usize,
}

impl Form for Miss {
    fn tensors(&self) -> Vec<&str> {
        vec![&self.block]
    }

    fn nature(&self) -> Nature {
        Nature::LowRank(self.rank)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let block = read_matrix(file, &self.block, self.rank, self.width)?;
        let up = Matrix::from_fn(outputs, self.rank, |output, level| {
            block[(level, output % self.width)]
        });
        let down = Matrix::from_fn(self.rank, inputs, |level, input| {
            f64::from(u8::from(input % self.rank == level))
        });
        Ok(Update::LowRank(LowRank::new(up, down)))
    }

    fn check(&self, (outputs, inputs): (usize, usize)) -> Result<()> {
        if outputs.is_multiple_of(self.width) && inputs >= self.rank {
            return Ok(());
        }
        let expected = format!("outputs in steps of {}, {} inputs or more", self.width, self.rank);
        Err(ErrorKind::BadShape { expected, found: vec![outputs, inputs] }.into())
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let variant = source.config.and_then(|config| config.text("init_weights"));
    if variant == Some("bat") {
        return Err(ErrorKind::UnsupportedFamily { family: "MiSS (bat)" }.into());
    }
    let block = source.required("miss_block", "a module")?;
    let (rank, width, rest) = source.matrix(block)?;
    source.expect(block, rank, width, rest.get(..0).unwrap_or_default())?;
    Ok(Module {
        rank,
        outputs: if variant == Some("mini") { 0 } else { width },
        ..source.linear(&FAMILY, Miss { block: block.to_owned(), rank, width })
    })
}
