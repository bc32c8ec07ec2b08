//! A merged checkpoint against its plan: names, headers, files, every byte of the tensors by a second run, and
//! some rows of every changed tensor by independent loops.

use std::collections::BTreeSet;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::bytes::Comparison;
use super::expected::expected;
use super::verdict::{Fault, Report};
use super::{files, rows};
use crate::error::Result;
use crate::format::ggml::{self, Blocks};
use crate::format::{Checkpoint, Dtype, Metadata, Shard, TensorView};
use crate::ops::merge::open::Merge;
use crate::ops::merge::plan::layout::{OutputShard, OutputTensor};
use crate::ops::merge::plan::side::beside;
use crate::ops::merge::plan::tensor_plan::TensorPlan;
use crate::ops::merge::write::head::header_bytes;
use crate::ops::merge::write::stream::work_through;
use crate::ops::{Progress, thread_pool};

/// Rows of each changed tensor that are computed again in f64, beside the comparison of all bytes.
const SAMPLED_ROWS: usize = 8;

/// Compares an open checkpoint with a plan: all of it, or `sample` rows of each tensor.
pub(in crate::ops) fn check(
    merge: &Merge,
    merged: &Checkpoint,
    sample: Option<usize>,
    progress: &dyn Progress,
) -> Result<Report> {
    progress.phase("verifying");
    progress.begin(merge.plan.bytes);
    let pool = thread_pool(merge.threads())?;
    let mut checker = Checker { merge, merged, sample, pool, progress, report: Report::default() };
    checker.names();
    let expected = expected(merge, merged);
    let origin = checker.pool.install(|| merge.origin())?;
    for (shard, number) in &expected.shards {
        let Some(found) = merged.shards.get(*number) else { continue };
        checker.shard(shard, found, origin.as_ref())?;
    }
    let mut there = BTreeSet::new();
    for side in &expected.sides {
        checker.report.files += 1;
        there.insert(side.relative.as_str());
        if let Some(fault) = files::side(side, merged) {
            checker.report.fault(fault);
        }
    }
    let mut report = checker.report;
    let others = if merge.plan.one_file { Vec::new() } else { beside(merged)? };
    let others = others.into_iter().map(|file| file.relative);
    report.others = others.filter(|file| !there.contains(file.as_str())).collect();
    report.ok = report.fault_count == 0;
    Ok(report)
}

struct Checker<'a> {
    merge: &'a Merge,
    merged: &'a Checkpoint,
    sample: Option<usize>,
    pool: ThreadPool,
    progress: &'a dyn Progress,
    report: Report,
}

/// A tensor as it should be, as it is, and what it is made from.
#[derive(Clone, Copy)]
struct Pair<'a> {
    tensor: &'a OutputTensor,
    found: TensorView<'a>,
    base: TensorView<'a>,
}

/// A tensor that is there, in its dtype and shape; else what is wrong, if it is there at all.
fn pair<'a>(
    merge: &'a Merge,
    merged: &'a Checkpoint,
    tensor: &'a OutputTensor,
) -> Result<std::result::Result<Pair<'a>, Option<Fault>>> {
    let name = &tensor.full_name;
    let Some(found) = merged.tensor(name) else { return Ok(Err(None)) };
    let blocks = found.shard.header.blocks.get(&found.spec.name);
    let same = found.spec.dtype == tensor.dtype && found.spec.shape == tensor.shape;
    if !same || blocks != tensor.blocks.as_ref() {
        let found = described(blocks, found.spec.dtype, &found.spec.shape);
        let expected = described(tensor.blocks.as_ref(), tensor.dtype, &tensor.shape);
        let what = format!("it is {found}, expected {expected}");
        return Ok(Err(Some(Fault::of_tensor(name, what))));
    }
    let base = merge.inputs.source(tensor)?;
    Ok(Ok(Pair { tensor, found, base }))
}

/// A tensor's type and shape, in words.
fn described(blocks: Option<&Blocks>, dtype: Dtype, shape: &[usize]) -> String {
    match blocks {
        Some(Blocks { kind, shape }) => format!("{} {shape:?}", ggml::name(*kind)),
        None => format!("{dtype} {shape:?}"),
    }
}

impl Checker<'_> {
    /// Tensors that are missing, and those that should not be there.
    fn names(&mut self) {
        let tensors = self.merge.plan.tensors();
        let expected: BTreeSet<_> = tensors.map(|tensor| tensor.full_name.as_str()).collect();
        let found: BTreeSet<_> = self.merged.names().collect();
        for name in expected.difference(&found) {
            self.report.fault(Fault::of_tensor(name, "it is missing".to_owned()));
        }
        for name in found.difference(&expected) {
            self.report.fault(Fault::of_tensor(name, "it should not be there".to_owned()));
        }
    }

    /// One weight file: its header, and all its tensors.
    fn shard(
        &mut self,
        expected: &OutputShard,
        found: &Shard,
        origin: Option<&Metadata>,
    ) -> Result<()> {
        let mut pairs = Vec::with_capacity(expected.tensors.len());
        for tensor in &expected.tensors {
            match pair(self.merge, self.merged, tensor)? {
                Ok(pair) => pairs.push(pair),
                Err(fault) => fault.into_iter().for_each(|fault| self.report.fault(fault)),
            }
        }
        self.report.files += 1;
        // Where a tensor is missing, new or of another shape, that is why the header differs.
        if pairs.len() == expected.tensors.len() && pairs.len() == found.header.tensors.len() {
            let header = header_bytes(self.merge.making(), expected, origin)?;
            files::header(&header, found)?.into_iter().for_each(|fault| self.report.fault(fault));
        }
        for pair in &pairs {
            self.report.rows += pair.tensor.matrix.0 as u64;
            self.report.copied += usize::from(matches!(pair.tensor.plan, TensorPlan::Copy));
        }
        let named = if let Some(count) = self.sample {
            self.progress.advance(expected.bytes());
            self.sampled(&pairs, count)?;
            // No formula gives the codes of a weight that was quantised again: it is made again whole.
            let encoded = pairs.iter().filter(|p| matches!(p.tensor.plan, TensorPlan::Encode(_)));
            self.bytes(&encoded.copied().collect::<Vec<_>>(), found)?
        } else {
            self.bytes(&pairs, found)?
        };
        self.recompute(&pairs, &named)
    }

    /// Compares all bytes of a file's tensors with a second run of the merge; the tensors that differ.
    fn bytes(&mut self, pairs: &[Pair<'_>], found: &Shard) -> Result<BTreeSet<String>> {
        let comparison = Comparison::new(found);
        let data = found.header.data_start;
        // A tensor of the file's is where its header has it.
        let places = pairs.iter().map(|pair| (pair.tensor, data + pair.found.spec.start));
        work_through(self.merge.making(), places, &comparison, &self.pool, self.progress)?;
        self.report.rows_compared +=
            pairs.iter().map(|pair| pair.tensor.matrix.0 as u64).sum::<u64>();
        let mut named = BTreeSet::new();
        for (name, what) in comparison.faults() {
            let pair = pairs.iter().find(|pair| pair.found.spec.name == name);
            let name = pair.map_or(name, |pair| pair.tensor.full_name.as_str());
            named.insert(name.to_owned());
            self.report.fault(Fault::of_tensor(name, what));
        }
        Ok(named)
    }

    /// Compares some rows of the tensors that should have the base's bytes.
    fn sampled(&mut self, pairs: &[Pair<'_>], count: usize) -> Result<()> {
        for pair in pairs.iter().filter(|pair| matches!(pair.tensor.plan, TensorPlan::Copy)) {
            let (rows, fault) = rows::compare(pair.tensor, pair.base, pair.found, count)?;
            self.report.rows_compared += rows;
            if let Some(what) = fault {
                self.report.fault(Fault::of_tensor(&pair.tensor.full_name, what));
            }
        }
        Ok(())
    }

    /// Computes some rows of every other tensor again; tensors that are `named` have their fault already.
    fn recompute(&mut self, pairs: &[Pair<'_>], named: &BTreeSet<String>) -> Result<()> {
        let count = self.sample.unwrap_or(SAMPLED_ROWS);
        let stored = |plan: &TensorPlan| matches!(plan, TensorPlan::Copy | TensorPlan::Encode(_));
        let changed = pairs.iter().filter(|pair| !stored(&pair.tensor.plan));
        let changed: Vec<_> = changed.collect();
        let making = self.merge.making();
        let found: Vec<_> = self.pool.install(|| {
            let recompute = |pair: &&Pair<'_>| {
                rows::recompute(making, pair.tensor, pair.base, pair.found, count)
            };
            changed.par_iter().map(recompute).collect::<Result<_>>()
        })?;
        for (pair, found) in changed.iter().zip(found) {
            found.count(&mut self.report);
            let name = &pair.tensor.full_name;
            if let Some(what) = found.fault.filter(|_| !named.contains(name)) {
                self.report.fault(Fault::of_tensor(name, what));
            }
        }
        Ok(())
    }
}
