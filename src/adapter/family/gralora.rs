//! GraLoRA (Jung et al. 2025, <https://arxiv.org/abs/2505.20355>): the weight in k × k blocks with factors of their
//! own; A, k × (in / k) × r, and B, k × r × (out / k), give block (g, n) the levels of A's part n that B's part g is
//! for. Beside them there may be plain factors over all of it. Together they are one product of rank k · r and the
//! plain rank, times alpha / (r + plain rank) (PEFT `tuners/gralora/layer.py`).

use super::prelude::*;

pub(super) static FAMILY: Family = Family {
    name: "gralora",
    signs: &[Part::Named("gralora_A"), Part::Named("gralora_B")],
    parts: &[Part::Named("gralora_A_general"), Part::Named("gralora_B_general")],
    build,
};

#[derive(Debug)]
struct Gralora {
    down: String,
    up: String,
    /// Names of the plain factors, and their rank.
    plain: Option<(String, String, usize)>,
    blocks: usize,
    rank: usize,
    outputs: usize,
    inputs: usize,
}

impl Form for Gralora {
    fn tensors(&self) -> Vec<&str> {
        let plain = self.plain.iter().flat_map(|(down, up, _)| [down.as_str(), up.as_str()]);
        [self.down.as_str(), self.up.as_str()].into_iter().chain(plain).collect()
    }

    fn nature(&self) -> Nature {
        let plain = self.plain.as_ref().map_or(0, |(_, _, rank)| *rank);
        Nature::LowRank(self.blocks * self.rank + plain)
    }

    fn load(&self, file: &Checkpoint, _shape: (usize, usize)) -> Result<Update> {
        let (blocks, rank) = (self.blocks, self.rank);
        let (wide, high) = (self.inputs / blocks, self.outputs / blocks);
        let down = read_matrix(file, &self.down, self.inputs, rank)?;
        let up = read_matrix(file, &self.up, blocks * rank, high)?;
        let levels = rank / blocks;
        // Level (n, g, s): inputs of part n, outputs of part g.
        let place = |level: usize| (level / rank, level % rank / levels, level % levels);
        let left = Matrix::from_fn(self.outputs, blocks * rank, |output, level| {
            let (n, g, s) = place(level);
            if output / high == g { up[(g * rank + n * levels + s, output % high)] } else { 0.0 }
        });
        let right = Matrix::from_fn(blocks * rank, self.inputs, |level, input| {
            let (n, g, s) = place(level);
            if input / wide == n { down[(input, g * levels + s)] } else { 0.0 }
        });
        let mut parts = vec![LowRank::new(left, right)];
        if let Some((down, up, rank)) = &self.plain {
            parts.push(LowRank::new(
                read_matrix(file, up, self.outputs, *rank)?,
                read_matrix(file, down, *rank, self.inputs)?,
            ));
        }
        Ok(Update::LowRank(LowRank::sum(self.outputs, self.inputs, &parts)))
    }
}

/// A tensor's three sizes.
fn sizes(source: &Source<'_>, tensor: &str) -> Result<[usize; 3]> {
    let shape = &source.view(tensor)?.spec.shape;
    <[usize; 3]>::try_from(shape.as_slice())
        .map_err(|_| ErrorKind::BadShape {
            expected: "three dimensions".to_owned(),
            found: shape.clone(),
        })
        .in_tensor(tensor)
}

fn build(source: &Source<'_>) -> Result<Module> {
    let down = source.required("gralora_A", "gralora_B")?;
    let up = source.required("gralora_B", "gralora_A")?;
    let [blocks, wide, rank] = sizes(source, down)?;
    let found = sizes(source, up)?;
    let high = found[2];
    if found != [blocks, rank, high] || !rank.is_multiple_of(blocks) {
        let expected =
            format!("[{blocks}, {rank}, out / {blocks}], the rank a multiple of {blocks}");
        return Err(ErrorKind::BadShape { expected, found: found.to_vec() }).in_tensor(up);
    }
    let (inputs, outputs) = (blocks * wide, blocks * high);
    let plain = match (source.named("gralora_A_general"), source.named("gralora_B_general")) {
        (None, None) => None,
        (down, up) => {
            let missing = |missing| ErrorKind::MissingFactor { present: "gralora_A", missing };
            let down = down.ok_or_else(|| missing("gralora_A_general"))?;
            let up = up.ok_or_else(|| missing("gralora_B_general"))?;
            let (rank, _, _) = source.matrix(down)?;
            source.expect(down, rank, inputs, &[])?;
            source.expect(up, outputs, rank, &[])?;
            Some((down.to_owned(), up.to_owned(), rank))
        }
    };
    let levels = rank + plain.as_ref().map_or(0, |(_, _, rank)| *rank);
    let scale = source.scales.resolve(source.name, levels, source.alpha()?)?;
    let (down, up) = (down.to_owned(), up.to_owned());
    Ok(Module {
        rank: levels,
        inputs,
        outputs,
        scale,
        ..source.linear(&FAMILY, Gralora { down, up, plain, blocks, rank, outputs, inputs })
    })
}
