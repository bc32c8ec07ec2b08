//! Modules of zeros, for what a program does not do without: among them those of a kind that other layers have,
//! which some servers drop in all layers if one is without it.

use std::collections::{BTreeMap, BTreeSet};

use crate::adapter::convention::Part;
use crate::adapter::save::NewModule;
use crate::format::{Checkpoint, Dtype};

/// A module of zeros, like another in all but its name and size.
pub(super) fn zeros(
    name: String,
    model: &NewModule,
    (outputs, inputs): (usize, usize),
) -> NewModule {
    let dtype = model.tensors.first().map_or(Dtype::F32, |tensor| tensor.1);
    let rank = model.rank;
    let bytes = |count: usize| vec![0; count * dtype.bitsize() / 8];
    let tensors = vec![
        (Part::Down, dtype, vec![rank, inputs], bytes(rank * inputs)),
        (Part::Up, dtype, vec![outputs, rank], bytes(outputs * rank)),
    ];
    NewModule { name, rank, scale: model.scale, alpha: model.alpha, tensors }
}

/// A module's name around the number of its layer.
fn around(name: &str) -> Option<(&str, usize, &str)> {
    let start = name.find("layers.")? + "layers.".len();
    let (number, rest) = name.get(start..)?.split_once('.')?;
    Some((name.get(..start)?, number.parse().ok()?, rest))
}

/// The modules that the base has and the adapter, of their kind, in other layers only.
pub(super) fn missing_layers(modules: &[NewModule], base: &Checkpoint) -> Vec<NewModule> {
    let mut kinds: BTreeMap<(&str, &str), (BTreeSet<usize>, &NewModule)> = BTreeMap::new();
    for module in modules {
        if let Some((above, number, rest)) = around(&module.name) {
            let kind = kinds.entry((above, rest)).or_insert((BTreeSet::new(), module));
            kind.0.insert(number);
        }
    }
    let mut added = Vec::new();
    for tensor in base.names() {
        let Some(name) = tensor.strip_suffix(".weight") else { continue };
        let Some((above, number, rest)) = around(name) else { continue };
        let Some((found, model)) = kinds.get(&(above, rest)) else { continue };
        let shape = base.tensor(tensor).map(|view| view.spec.shape.as_slice());
        if let (false, Some([outputs, inputs])) = (found.contains(&number), shape) {
            added.push(zeros(name.to_owned(), model, (*outputs, *inputs)));
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_parted_at_its_layer() {
        let found = around("model.layers.12.mlp.up_proj");
        assert_eq!(found, Some(("model.layers.", 12, "mlp.up_proj")));
        assert_eq!(around("lm_head"), None);
        assert_eq!(around("layers.x.a"), None);
    }
}
