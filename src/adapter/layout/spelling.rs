//! Whether adapters of one model call its modules by the names of one layout.

use std::collections::{BTreeMap, BTreeSet};

use super::model_part::{ModelPart, body, parts};
use crate::adapter::Adapter;
use crate::adapter::architecture::{Detected, ModuleShape, Rule, Side, fill};
use crate::adapter::target::flatten;

/// Whether the adapters, between them, have two names for one module, or names of both layouts of a model.
///
/// Two names are of one module where the modules of the split layout that they hold are the same, or some of them:
/// `single_blocks.0.linear1` has the rows of `single_transformer_blocks.0.attn.to_q`.
pub fn several_spellings(adapters: &[Adapter]) -> bool {
    if adapters.len() < 2 {
        return false;
    }
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut sides = BTreeSet::new();
    for adapter in adapters {
        for part in parts(adapter, None) {
            let Some(detected) = &part.detected else { continue };
            for module in part.modules.iter().filter_map(|&at| body(adapter, at)) {
                let fits = |side| {
                    let found = |rule: &Rule| module.capture(rule.side(side)).is_some();
                    detected.all().any(found)
                };
                match (fits(Side::Split), fits(Side::Published)) {
                    (true, false) => sides.insert("split"),
                    (false, true) => sides.insert("published"),
                    _ => false,
                };
                let name = flatten(module.path);
                for split in split_modules(&module, &part, detected) {
                    if *names.entry(split).or_insert_with(|| name.clone()) != name {
                        return true;
                    }
                }
            }
        }
    }
    sides.len() > 1
}

/// The modules of the split layout that a module holds, by their paths there.
fn split_modules(module: &ModuleShape<'_>, part: &ModelPart, detected: &Detected) -> Vec<String> {
    let other_side = if part.side == Side::Split { Side::Published } else { Side::Split };
    let of = |side: Side| -> Vec<String> {
        let found = detected
            .all()
            .filter_map(|rule| Some(fill(&rule.split, &module.capture(rule.side(side))?)));
        found.collect()
    };
    let modules = of(part.side);
    if modules.is_empty() { of(other_side) } else { modules }
}
