//! Which types the weights of a GGUF result need: those that change are written to nowhere first, and the types of
//! those of whose update too little survived are raised.

use std::collections::BTreeMap;

use super::open::{Merge, prepare_with};
use super::plan::gguf_types::{Type, Types, above};
use super::plan::layout::OutputTensor;
use super::plan::options::Options;
use super::plan::tensor_plan::TensorPlan;
use super::write::stream::{Sink, work_through};
use crate::error::Result;
use crate::format::Shard;
use crate::ops::thread_pool;

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

/// A merge whose weights have the smallest types in which enough of their updates survives, if that was asked for.
///
/// # Errors
/// Those of planning, and of the base's values.
fn settled(options: &Options, mut merge: Merge) -> Result<Merge> {
    if !options.is_gguf() || options.types.unwrap_or_default() != Types::Auto {
        return Ok(merge);
    }
    let pool = thread_pool(options.threads)?;
    let mut raised: BTreeMap<String, Type> = BTreeMap::new();
    let mut is_first = true;
    loop {
        let tensors: Vec<&OutputTensor> = merge
            .plan
            .tensors()
            .filter(|tensor| {
                matches!(&tensor.plan, TensorPlan::Encode(encode) if encode.dense.plan.changes())
            })
            .filter(|tensor| is_first || raised.contains_key(&tensor.full_name))
            .collect();
        let placed = tensors.iter().map(|tensor| (*tensor, 0));
        let stats = work_through(merge.making(), placed, &Nowhere, &pool, &())?;
        let mut more = false;
        for (name, gain) in merge.plan.survival(&stats) {
            if gain >= options.min_survival.0 {
                continue;
            }
            let found = tensors.iter().find(|tensor| tensor.full_name == name);
            let kind = found.and_then(|tensor| tensor.blocks.as_ref()).map(|blocks| blocks.kind);
            if let Some(next) = kind.and_then(|kind| above(Type::Blocks(kind))) {
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
