//! Factors of all of a layer's experts in one tensor each, A as [E, rank, in] and B as [E, out, rank], as
//! some trainers keep them (`mlp.experts.w1.lora_A.weight`): taken apart into one module an expert. A
//! factor that all experts share is [1, …, …].

use std::collections::BTreeMap;

use super::convention::{Convention, Part};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, Tensor};

/// Experts of one layer. The largest models have some hundred; a small file shall not claim more.
const MOST: usize = 8192;

/// The file with such factors taken apart, or as it is where there are none.
///
/// # Errors
/// Reading errors.
pub(super) fn apart(file: Checkpoint, convention: &Convention) -> Result<Checkpoint> {
    let experts = experts(&file, convention);
    if experts.is_empty() {
        return Ok(file);
    }
    let mut tensors: Vec<Tensor> = Vec::new();
    for name in file.names() {
        let view = file.tensor(name).ok_or(ErrorKind::NotFound).in_tensor(name)?;
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch)?;
        let (dtype, shape) = (view.spec.dtype, view.spec.shape.as_slice());
        let module = (convention.parse)(name).map(|key| key.module);
        let all = module.as_ref().and_then(|module| Some((module, *experts.get(module)?)));
        let (Some((module, all)), [stored, rows, columns]) = (all, shape) else {
            let stays = match all
                .and_then(|(module, all)| Some((numbered(name, module, 0)?, module, all)))
            {
                // One alpha for all experts of a layer.
                Some((_, module, all)) => {
                    (0..all).filter_map(|expert| numbered(name, module, expert)).collect()
                }
                None => vec![name.to_owned()],
            };
            let copies =
                stays.into_iter().map(|name| (name, dtype, shape.to_vec(), bytes.to_vec()));
            tensors.extend(copies);
            continue;
        };
        let size = bytes.len() / stored.max(&1);
        for expert in 0..all {
            let Some(name) = numbered(name, module, expert) else { continue };
            let first = if *stored == 1 { 0 } else { expert * size };
            let matrix = bytes.get(first..first + size).unwrap_or_default().to_vec();
            tensors.push((name, dtype, vec![*rows, *columns], matrix));
        }
    }
    file.remade(tensors)
}

/// The modules whose factors are of several experts, and how many.
fn experts(file: &Checkpoint, convention: &Convention) -> BTreeMap<String, usize> {
    let mut factors: BTreeMap<String, [Option<&[usize]>; 2]> = BTreeMap::new();
    for name in file.names() {
        let (Some(key), Some(view)) = ((convention.parse)(name), file.tensor(name)) else {
            continue;
        };
        let factor = match key.part {
            Part::Down => 0,
            Part::Up => 1,
            _ => continue,
        };
        // Factors of a depthwise convolution have the same sizes.
        let of_experts = ["expert", "moe"].iter().any(|word| key.module.contains(word));
        let numbered = of_experts && numbered(name, &key.module, 0).is_some();
        if let Some(place) = factors.entry(key.module).or_default().get_mut(factor)
            && numbered
        {
            *place = Some(&view.spec.shape);
        }
    }
    let all = |pair: [Option<&[usize]>; 2]| match pair {
        // A convolution's B has one input a rank; here its last size is the rank, A's middle one.
        [Some([a, rank, _]), Some([b, _, inner])] if rank == inner => {
            let all = *a.max(b);
            let even = [a, b].into_iter().all(|count| *count == all || *count == 1);
            (even && all > 1 && all <= MOST && a.min(b) > &0).then_some(all)
        }
        _ => None,
    };
    factors.into_iter().filter_map(|(module, pair)| Some((module, all(pair)?))).collect()
}

/// A key with an expert's number before the last part of its module's name.
fn numbered(key: &str, module: &str, expert: usize) -> Option<String> {
    let (holder, parameter) = module.rsplit_once('.')?;
    let (before, after) = key.split_once(module)?;
    Some(format!("{before}{holder}.{expert}.{parameter}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_last_part() {
        let key = "base_model.model.a.experts.w1.lora_A.weight";
        let numbered = |module| numbered(key, module, 3);
        let expected = "base_model.model.a.experts.3.w1.lora_A.weight";
        assert_eq!(numbered("a.experts.w1").as_deref(), Some(expected));
        assert_eq!(numbered("w1"), None);
    }
}
