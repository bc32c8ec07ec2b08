//! The files that the merge should have left, given which tensors lie in which of those that are there.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::Checkpoint;
use crate::format::checkpoint::Layout;
use crate::ops::merge::open::Merge;
use crate::ops::merge::plan::kept::number_parts;
use crate::ops::merge::plan::layout::OutputShard;
use crate::ops::merge::plan::side::relaid;
use crate::ops::shared::side_file::SideFile;

/// What should be there.
pub(super) struct Expected {
    /// Weight files, each with the number of the merged checkpoint's that should be it.
    pub(super) shards: Vec<(OutputShard, usize)>,
    /// Other files.
    pub(super) sides: Vec<SideFile>,
}

/// The plan's own files; where tensors are spread otherwise (another `--max-shard-size`), files of the same
/// tensors as those that are there.
pub(super) fn expected(merge: &Merge, merged: &Checkpoint) -> Expected {
    let plan = &merge.plan;
    if let Some(numbers) = as_planned(merge, merged) {
        let shards = plan.shards.iter().cloned().zip(numbers).collect();
        return Expected { shards, sides: plan.side_files.clone() };
    }
    let mut first_of: BTreeMap<usize, &OutputShard> = BTreeMap::new();
    for shard in &plan.shards {
        first_of.entry(shard.component).or_insert(shard);
    }
    let mut shards: BTreeMap<usize, OutputShard> = BTreeMap::new();
    for planned in &plan.shards {
        for tensor in &planned.tensors {
            let Some(number) = number_of(merged, &tensor.full_name) else { continue };
            let found = merged.shards.get(number);
            let shard = shards.entry(number).or_insert_with(|| OutputShard {
                relative: found.map(|shard| shard.relative.clone()).unwrap_or_default(),
                component: planned.component,
                metadata: first_of.get(&planned.component).and_then(|first| first.metadata.clone()),
                tensors: Vec::new(),
                same_header_as: None,
                gguf: first_of
                    .get(&planned.component)
                    .and_then(|first| Some(first.gguf?.of_set(number))),
            });
            shard.tensors.push(tensor.clone());
        }
    }
    let (numbers, mut plain): (Vec<_>, Vec<OutputShard>) = shards.into_iter().unzip();
    number_parts(&mut plain);
    let shards = plain.iter().cloned().zip(numbers).collect();
    let sides = if plan.one_file {
        Vec::new()
    } else {
        relaid(&plan.side_files, &merge.inputs.base, &plain)
    };
    Expected { shards, sides }
}

/// The merged files that are the planned ones, in their order; `None` if tensors are spread otherwise.
fn as_planned(merge: &Merge, merged: &Checkpoint) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for planned in &merge.plan.shards {
        let found = merged.shards.iter().position(|shard| {
            shard.relative == planned.relative || merged.layout == Layout::File
        })?;
        let places =
            planned.tensors.iter().filter_map(|tensor| number_of(merged, &tensor.full_name));
        (places.collect::<BTreeSet<_>>().into_iter().all(|number| number == found)).then_some(())?;
        numbers.push(found);
    }
    (numbers.len() == merged.shards.len()).then_some(numbers)
}

/// Which of a checkpoint's weight files holds a tensor.
fn number_of(merged: &Checkpoint, name: &str) -> Option<usize> {
    let shard = merged.tensor(name)?.shard;
    merged.shards.iter().position(|other| std::ptr::eq(other, shard))
}
