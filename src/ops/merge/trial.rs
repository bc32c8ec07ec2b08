//! Which types the weights of a GGUF result need. A few rows of those that change say which types are far too small;
//! in the types that are left they are written to nowhere, and where too little of an update survived the type is raised.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::compute::encoded::{Encoding, Survey};
use super::open::{Merge, prepare_with};
use super::plan::gguf_types::{Type, Types, above};
use super::plan::layout::OutputTensor;
use super::plan::options::Options;
use super::plan::tensor_plan::TensorPlan;
use super::write::stream::{Sink, work_through};
use crate::error::{Locate, Result};
use crate::format::Shard;
use crate::math::DeltaStats;
use crate::ops::thread_pool;
use crate::weight::{Encoded, Panel};

/// Takes bytes and keeps none.
struct Nowhere;

impl Sink for Nowhere {
    fn copy(&self, _: &Shard, _: u64, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn put(&self, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }
}

/// As [`plan`](super::plan()), without a look at the output's path: what [`verify`](crate::ops::verify) compares with.
///
/// # Errors
/// Those of planning, and of the base's values where the types of a GGUF result depend on them.
pub(in crate::ops) fn prepare(asked: &Options) -> Result<Merge> {
    settled(asked, prepare_with(asked, &BTreeMap::new())?)
}

/// Elements of a weight that its types are first tried on, about, and in how many places.
const SAMPLE: usize = 256 << 10;
const PLACES: usize = 8;
/// What survives in a few rows is about so near to what survives in all.
const MARGIN: f64 = 0.05;

/// Weights that change and are written as blocks.
fn changing(merge: &Merge) -> impl Iterator<Item = &OutputTensor> {
    merge.plan.tensors().filter(
        |tensor| matches!(&tensor.plan, TensorPlan::Encode(encode) if encode.dense.plan.changes()),
    )
}

/// Larger types for the weights that far too little of their update survives in, by a few of their rows.
///
/// # Errors
/// Those of the base's values.
fn sampled(merge: &Merge, min_survival: f64) -> Result<BTreeMap<String, Type>> {
    let tensors: Vec<&OutputTensor> = changing(merge).collect();
    let raised = |tensor: &&OutputTensor| {
        let (TensorPlan::Encode(encode), Some(blocks)) = (&tensor.plan, &tensor.blocks) else {
            return Ok(None);
        };
        let (weight, writing) = merge.inputs.weight(&encode.dense.full_name)?;
        let samples = Encoding::new(merge.making(), &encode.dense, Survey::default())?
            .samples(SAMPLE, PLACES)
            .in_tensor(&tensor.full_name)?;
        let first = Type::Blocks(blocks.kind);
        let mut kind = first;
        while let Some(writer) = kind.writer(weight)? {
            let mut stats = DeltaStats::default();
            for sample in &samples {
                let mut encoded = Encoded::default();
                let rows = sample.rows.clone();
                let panel = Panel::new(&weight.name, rows, &sample.values, writing, &[]);
                writer.rows(&panel, &mut encoded)?;
                stats.add(&DeltaStats::of(&sample.values, &encoded.values, &sample.before));
            }
            if stats.dot >= (min_survival - MARGIN) * stats.asked {
                break;
            }
            let Some(next) = above(kind, weight.matrix().1) else { break };
            kind = next;
        }
        Ok((kind != first).then(|| (tensor.full_name.clone(), kind)))
    };
    // The first in order fails, whatever the threads.
    let found: Vec<Result<Option<(String, Type)>>> = tensors.par_iter().map(raised).collect();
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// A merge whose weights have the smallest types in which enough of their updates survives, if that was asked for.
///
/// # Errors
/// Those of planning, and of the base's values.
fn settled(options: &Options, mut merge: Merge) -> Result<Merge> {
    if !options.is_gguf() || options.types.unwrap_or_default() != Types::Auto {
        return Ok(merge);
    }
    let pool = thread_pool(options.threads)?;
    let mut raised = pool.install(|| sampled(&merge, options.min_survival.0))?;
    if !raised.is_empty() {
        merge = prepare_with(options, &raised)?;
    }
    let mut is_first = true;
    let mut tried: BTreeMap<String, Type> = BTreeMap::new();
    loop {
        let tensors: Vec<&OutputTensor> = changing(&merge)
            .filter(|tensor| {
                is_first || tried.get(&tensor.full_name) != raised.get(&tensor.full_name)
            })
            .collect();
        tried.clone_from(&raised);
        let placed = tensors.iter().map(|tensor| (*tensor, 0));
        let stats = work_through(merge.making(), placed, &Nowhere, &pool, &())?;
        let mut more = false;
        for (name, gain) in merge.plan.survival(&stats) {
            if gain >= options.min_survival.0 {
                continue;
            }
            let found = tensors.iter().find(|tensor| tensor.full_name == name);
            let kind = found.and_then(|tensor| tensor.blocks.as_ref()).map(|blocks| blocks.kind);
            let columns = merge.inputs.weight(name)?.0.matrix().1;
            if let Some(next) = kind.and_then(|kind| above(Type::Blocks(kind), columns)) {
                raised.insert(name.to_owned(), next);
                more = true;
            }
        }
        if !more {
            return Ok(merge);
        }
        is_first = false;
        merge = prepare_with(options, &raised)?;
    }
}
