//! What vLLM's rules look for in the experts of an adapter.

use std::collections::{BTreeMap, BTreeSet};

use super::vllm_classes::{STACKED, expert_names, is_stacked};
use super::vllm_findings::known_class;
use crate::format::{Access, Checkpoint};
use crate::ops::check::place::{Found, Place};
use crate::ops::check::subject::{Subject, named, some};

/// Projections of a layer's experts whose ranks differ.
pub(super) fn expert_ranks(subject: &Subject<'_>) -> Found {
    let mut ranks: BTreeMap<(&str, &str), BTreeSet<usize>> = BTreeMap::new();
    for (module, (holder, _, matrix)) in subject.single_experts() {
        ranks.entry((holder, matrix)).or_default().insert(module.rank);
    }
    let several = ranks.into_iter().filter(|(_, ranks)| ranks.len() > 1);
    some(
        several
            .map(|((holder, matrix), _)| format!("{holder}.*.{matrix}").as_str().into())
            .collect(),
    )
}

/// Modules whose factors the file has in one tensor for all experts of a layer.
pub(super) fn joint_experts(subject: &Subject<'_>) -> Found {
    let stored = Checkpoint::open(&subject.adapter.file.path, Access::default()).ok()?;
    let joint = |name: &&str| {
        let deep = stored.tensor(name).is_some_and(|view| view.spec.shape.len() == 3);
        deep && name.contains("experts.") && name.contains(".lora_A.")
    };
    let names = stored.names().filter(joint);
    some(names.filter_map(|name| Some(Place::from(name.split(".lora_A.").next()?))).collect())
}

/// Stacks in front of a class that reads experts one by one.
pub(super) fn stacked(subject: &Subject<'_>) -> Found {
    known_class(subject).filter(|class| !is_stacked(class)).and(subject.stacks())
}

/// Single experts in front of a class that reads stacks.
pub(super) fn single(subject: &Subject<'_>) -> Found {
    known_class(subject).filter(|class| STACKED.contains(class))?;
    if joint_experts(subject).is_some() {
        return None;
    }
    some(subject.single_experts().iter().map(|(m, _)| m.name.as_str().into()).collect())
}

/// Stacks of a layer that is without the other one, in classes that want both.
pub(super) fn single_stacks(subject: &Subject<'_>) -> Found {
    known_class(subject).filter(|class| STACKED.contains(class))?;
    let stacks = &subject.adapter.stacks;
    let alone = stacks.keys().filter(|name| {
        let other = match name.rsplit_once('.') {
            Some((holder, "gate_up_proj")) => format!("{holder}.down_proj"),
            Some((holder, "down_proj")) => format!("{holder}.gate_up_proj"),
            _ => return false,
        };
        !stacks.contains_key(&other)
    });
    named(alone.map(String::as_str))
}

/// Matrices of single experts under names that the class's checkpoints do not have.
pub(super) fn other_expert_names(subject: &Subject<'_>) -> Found {
    let class = known_class(subject).filter(|class| !is_stacked(class))?;
    let own = expert_names(class)?;
    let single = subject.single_experts();
    let other = single.iter().filter(|(_, (.., matrix))| !own.contains(matrix));
    some(other.map(|(module, _)| module.name.as_str().into()).collect())
}
