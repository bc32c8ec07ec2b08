//! Every byte of the tensors, against a second run of the merge.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::adapter::tensor::element_type;
use crate::error::{Locate, Result};
use crate::format::{Shard, TensorSpec};
use crate::ops::merge::write::stream::Sink;

/// Bytes of a copy that are read at a time.
const PIECE: u64 = 1 << 20;

/// One merged file, as what a merge is written into.
pub(super) struct Comparison<'a> {
    shard: &'a Shard,
    /// Its tensors by where they begin.
    starts: BTreeMap<u64, &'a TensorSpec>,
    /// The first difference in each tensor that has one, by where the tensor begins.
    differences: Mutex<BTreeMap<u64, Difference>>,
}

/// A byte that is not as it should be.
#[derive(Debug, Clone)]
struct Difference {
    at: u64,
    /// What the element is, and what it should be.
    values: Option<(f64, f64)>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(shard: &'a Shard) -> Self {
        let data = shard.header.data_start;
        let tensors = shard.header.tensors.iter().filter(|spec| spec.bytes() > 0);
        let starts = tensors.map(|spec| (data + spec.start, spec)).collect();
        Self { shard, starts, differences: Mutex::default() }
    }

    /// Each tensor that differs, by its name in the file, and what is wrong with it.
    pub(super) fn faults(self) -> Vec<(&'a str, String)> {
        let differences = self.differences.into_inner().unwrap_or_else(PoisonError::into_inner);
        let fault = |(start, difference): (u64, Difference)| {
            let spec = self.starts.get(&start)?;
            let what = difference.describe(spec, difference.at - start);
            Some((spec.name.as_str(), what))
        };
        differences.into_iter().filter_map(fault).collect()
    }

    /// Notes where bytes at a place of the file are others than they should be, once a tensor.
    fn compare(&self, at: u64, expected: &[u8], found: &[u8]) {
        let mut from = 0;
        while let (Some(a), Some(b)) = (expected.get(from..), found.get(from..)) {
            // Equal stretches are the rule, and are compared by words.
            if a == b {
                return;
            }
            from += a.iter().zip(b).take_while(|(a, b)| a == b).count();
            let place = at + from as u64;
            let Some((&start, spec)) = self.starts.range(..=place).next_back() else { return };
            let difference = Difference {
                at: place,
                values: values(spec, place - start, (at, start), expected, found),
            };
            let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
            let first = differences.entry(start).or_insert_with(|| difference.clone());
            if difference.at < first.at {
                *first = difference;
            }
            from = (start + spec.bytes() - at) as usize;
        }
    }
}

/// The element at `within` of a tensor, found and expected, if it is one that is computed with.
fn values(
    spec: &TensorSpec,
    within: u64,
    (at, start): (u64, u64),
    expected: &[u8],
    found: &[u8],
) -> Option<(f64, f64)> {
    let element = element_type(spec.dtype)?;
    let size = element.size() as u64;
    let begin = (start + within / size * size).checked_sub(at)? as usize;
    let decode = |bytes: &[u8]| {
        let mut value = [0.0];
        element.decode(bytes.get(begin..begin + element.size())?, &mut value);
        Some(value[0])
    };
    Some((decode(found)?, decode(expected)?))
}

impl Difference {
    fn describe(&self, spec: &TensorSpec, within: u64) -> String {
        let columns = spec.shape.iter().skip(1).product::<usize>().max(1) as u64;
        match (self.values, element_type(spec.dtype)) {
            (Some((found, expected)), Some(element)) => {
                let index = within / element.size() as u64;
                let (row, column) = (index / columns, index % columns);
                format!("row {row}, column {column} is {found}, expected {expected}")
            }
            _ => format!("its bytes are not those that merge writes, first at byte {within}"),
        }
    }
}

impl Sink for Comparison<'_> {
    fn copy(&self, shard: &Shard, from: u64, to: u64, bytes: u64) -> Result<()> {
        let (mut left, mut right, mut done) = (Vec::new(), Vec::new(), 0);
        while done < bytes {
            let end = (done + PIECE).min(bytes);
            let expected = shard.source.bytes(from + done..from + end, &mut left);
            let found = self.shard.source.bytes(to + done..to + end, &mut right);
            let found = found.in_file(&self.shard.path)?;
            self.compare(to + done, expected.in_file(&shard.path)?, found);
            done = end;
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<()> {
        let mut scratch = Vec::new();
        let found = self.shard.source.bytes(at..at + bytes.len() as u64, &mut scratch);
        self.compare(at, bytes, found.in_file(&self.shard.path)?);
        Ok(())
    }
}
