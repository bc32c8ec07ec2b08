//! From modules with new factors to an adapter's files: tensors, config and header of a convention.

use std::collections::BTreeMap;

use crate::adapter::convention::{CONVENTIONS, Convention, Key, Part, ScalePlace, config_text};
use crate::adapter::hashes::{Hashes, MODEL_HASH, file_order};
use crate::adapter::new_adapter::{Described, Encoded, Kept, NewAdapter, NewModule, encode};
use crate::adapter::stack_names::holder;
use crate::error::{ErrorKind, ExpertsError, Locate, Result};
use crate::format::{Dtype, Metadata, Tensor};

/// How a convention stores what is added to a bias: times the scale, as PEFT does, or as it is, which
/// ComfyUI reads.
pub fn bias_part(convention: &Convention) -> Part {
    match convention.scale {
        ScalePlace::Tensor => Part::Named("diff_b"),
        ScalePlace::Patterns | ScalePlace::Uniform => Part::UpBias,
    }
}

/// Spells a module's part, or says why the convention cannot.
pub(super) fn spell(convention: &Convention, module: &str, part: Part) -> Result<String> {
    convention.spell(&Key { module: module.to_owned(), part }).ok_or_else(|| {
        let reason = format!("the {} convention has no way to store its {part:?}", convention.name);
        crate::Error::from(ErrorKind::BadOption(reason)).in_tensor(module)
    })
}

/// Describes the modules in the header, and forgets what another convention said there.
pub(super) fn describe(
    convention: &Convention,
    modules: &[Described<'_>],
    metadata: &mut Metadata,
) -> Result<()> {
    let entries = CONVENTIONS.iter().flat_map(|known| known.hooks.entries);
    for stale in entries.filter(|entry| !convention.hooks.entries.contains(entry)) {
        metadata.shift_remove(*stale);
    }
    (convention.hooks.describe)(modules, metadata)
}

/// Alphas keep the precision that scales are computed in, whatever the factors' dtype.
pub(super) const ALPHA: Dtype = Dtype::F32;

fn encode_module(
    module: NewModule,
    convention: &Convention,
    tensors: &mut Vec<Tensor>,
) -> Result<()> {
    // Other families say by themselves whether alpha means anything to them.
    let factors = module.has(Part::Down) || module.has(Part::EmbeddingDown);
    if convention.scale == ScalePlace::Tensor && factors && !module.has(Part::Alpha) {
        let name = spell(convention, &module.name, Part::Alpha)?;
        let alpha = module.alpha();
        if alpha != 0.0 && alpha as f32 == 0.0 {
            let dtype = ALPHA.to_string();
            return Err(ErrorKind::Underflow { value: module.scale, dtype })
                .in_tensor(&module.name);
        }
        tensors.push((name, ALPHA, Vec::new(), encode(ALPHA, &[alpha])?));
    }
    for (part, dtype, shape, bytes) in module.tensors {
        let name = spell(convention, &module.name, part)?;
        tensors.push((convention.hooks.orient)(part, (name, dtype, shape, bytes)));
    }
    Ok(())
}

impl NewAdapter {
    /// Encodes everything for a convention.
    ///
    /// # Errors
    /// If the convention cannot hold a part, or a value overflows the dtype.
    pub fn encode(mut self, convention: &Convention) -> Result<Encoded> {
        let mut metadata = std::mem::take(&mut self.metadata);
        let (output, container) = (convention.output, convention.hooks.container);
        if let Some(Kept { mut tensors, config }) = self.kept {
            tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
            let config = Some(config_text(&config)?);
            return Ok(Encoded {
                tensors,
                metadata,
                config,
                output,
                container,
                beside: Vec::new(),
            });
        }
        let places = match convention.hooks.pack {
            Some(pack) => pack(&mut self)?,
            None => BTreeMap::new(),
        };
        let described: Vec<Described<'_>> = self.modules.iter().map(Described::from).collect();
        describe(convention, &described, &mut metadata)?;
        let config =
            convention.hooks.write_sidecar.map(|write| write(&self, &places)).transpose()?;
        let mut tensors = Vec::new();
        for mut module in self.modules {
            let Some(place) = places.get(&module.name) else {
                encode_module(module, convention, &mut tensors)?;
                continue;
            };
            // Spelled as the module that holds the parameter, nested as the parameter is.
            let holder = holder(place);
            holder.clone_into(&mut module.name);
            let first = tensors.len();
            encode_module(module, convention, &mut tensors)?;
            for tensor in tensors.iter_mut().skip(first) {
                tensor.0 = tensor.0.replacen(holder, place, 1);
            }
        }
        for replacement in self.replacements {
            let name = spell(convention, &replacement.module, replacement.part())?;
            tensors.push((name, replacement.dtype, replacement.shape, replacement.bytes));
        }
        let mut tensors = stacked(tensors, convention)?;
        tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
        hash(&tensors, &mut metadata)?;
        Ok(Encoded { tensors, metadata, config, output, container, beside: Vec::new() })
    }
}

/// The matrices of every stack of experts under its one name, an expert's after another's, where the convention has
/// experts in stacks.
///
/// # Errors
/// If the experts' numbers are not 0, 1, 2, …, or they differ in shape or dtype.
fn stacked(tensors: Vec<Tensor>, convention: &Convention) -> Result<Vec<Tensor>> {
    let place = |name: &str| {
        let key = (convention.parse)(name)?;
        let (module, expert) = convention.stack_of(&key.module)?;
        Some(((convention.format)(&Key { module, ..key })?, expert))
    };
    let mut stacks: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    let mut all = Vec::new();
    for tensor in tensors {
        match place(&tensor.0) {
            Some((stack, expert)) => {
                stacks.entry(stack).or_default().insert(expert, tensor);
            }
            None => all.push(tensor),
        }
    }
    for (name, experts) in stacks {
        let count = experts.len();
        let Some((_, dtype, shape, _)) = experts.values().next().cloned() else { continue };
        let even = |(at, (expert, tensor)): (usize, (&usize, &Tensor))| {
            at == *expert && tensor.1 == dtype && tensor.2 == shape
        };
        if !experts.iter().enumerate().all(even) {
            let what = "number, rank or dtype";
            return Err(ExpertsError::Uneven { what }).in_tensor(&name);
        }
        let bytes = experts.into_values().flat_map(|(.., bytes)| bytes).collect();
        all.push((name, dtype, [vec![count], shape].concat(), bytes));
    }
    Ok(all)
}

/// Hashes the tensors where the header has room for it.
fn hash(tensors: &[Tensor], metadata: &mut Metadata) -> Result<()> {
    if !metadata.contains_key(MODEL_HASH) {
        return Ok(());
    }
    let specs = tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone()));
    let hashes = Hashes::of(specs, metadata, |take| {
        for (_, _, _, bytes) in tensors {
            take(bytes);
        }
        Ok(())
    })?;
    hashes.insert(metadata);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::convention::by_name;

    #[test]
    fn experts_come_together_in_stacks() {
        let tensor = |name: &str, shape: &[usize], bytes: &[u8]| {
            (name.to_owned(), Dtype::U8, shape.to_vec(), bytes.to_vec())
        };
        for (convention, stack, [before, after], beside) in [
            (
                "gguf",
                "blk.0.ffn_up_exps.weight.lora_a",
                ["blk.0.ffn_up_exps.", ".weight.lora_a"],
                "blk.0.attn_q.weight.lora_a",
            ),
            (
                "mlx",
                "a.mlp.switch_mlp.up_proj.lora_a",
                ["a.mlp.experts.", ".up_proj.lora_a"],
                "a.self_attn.q_proj.lora_a",
            ),
            (
                "mlx",
                "a.block_sparse_moe.switch_mlp.up_proj.m",
                ["a.block_sparse_moe.experts.", ".w3.m"],
                "a.self_attn.q_proj.m",
            ),
        ] {
            let convention = by_name(convention).expect("known");
            let expert = |number: u8| {
                let bytes = [2 * number + 1, 2 * number + 2];
                tensor(&format!("{before}{number}{after}"), &[1, 2], &bytes)
            };
            let beside = tensor(beside, &[1, 2], &[7, 8]);
            let whole = tensor(stack, &[3, 1, 2], &[1, 2, 3, 4, 5, 6]);
            let all = vec![beside.clone(), expert(0), expert(1), expert(2)];
            assert_eq!(stacked(all, convention).expect("even"), [beside, whole]);
            assert!(stacked(vec![expert(1), expert(2)], convention).is_err());
            let uneven = tensor(&format!("{before}1{after}"), &[2, 2], &[5, 6, 7, 8]);
            assert!(stacked(vec![expert(0), uneven], convention).is_err());
        }
        let plain = vec![tensor("a.mlp.experts.1.up_proj.lora_A.weight", &[1, 2], &[1, 2])];
        assert_eq!(
            stacked(plain.clone(), crate::adapter::convention::peft()).expect("as is"),
            plain
        );
    }
}
