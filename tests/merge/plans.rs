//! A plan is data: written down and read again, it makes the bytes that it made before.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use lora_tool::ops::merge::{self, AdapterInput, Options, Plan, TensorPlan};

use crate::common::{Bench, files, fixture};

/// A merge of the fixtures' Llama.
fn llama(output: PathBuf) -> Options {
    let adapters = [("style", 0.7), ("task", -0.3)];
    let input = |(name, weight)| AdapterInput::new(fixture("llama").join(name), weight);
    let (base, adapters) = (fixture("llama/base"), adapters.map(input).to_vec());
    Options { base, adapters, output, ..Options::default() }
}

/// One adapter into one base.
fn single(base: PathBuf, adapter: PathBuf, output: PathBuf) -> Options {
    let adapters = vec![AdapterInput::new(adapter, 0.7)];
    Options { base, adapters, output, ..Options::default() }
}

/// Merges as planned, and by what was planned as JSON and as its options are as JSON: all with the same bytes.
fn same_bytes(options: &Options) -> Plan {
    let bench = Bench::new();
    let to = |name: &str| Options { output: bench.path(name), ..options.clone() };
    merge::plan(&to("planned")).expect("a plan").run(&()).expect("a merge");

    let mut merge = merge::plan(&to("read")).expect("a plan");
    let text = serde_json::to_string(&merge.plan).expect("JSON");
    merge.plan = serde_json::from_str(&text).expect("a plan in JSON");
    assert_eq!(serde_json::to_string(&merge.plan).expect("JSON"), text);
    merge.run(&()).expect("a merge by a plan in JSON");
    assert!(files(&bench.path("planned")) == files(&bench.path("read")));

    let text = serde_json::to_string(&to("read")).expect("JSON");
    let again: Options = serde_json::from_str(&text).expect("options in JSON");
    let again = Options { force: true, ..again };
    merge::plan(&again).expect("a plan").run(&()).expect("a merge by options in JSON");
    assert!(files(&bench.path("planned")) == files(&bench.path("read")));
    merge.plan
}

/// How many tensors are planned one way.
fn count(plan: &Plan, way: fn(&TensorPlan) -> bool) -> usize {
    plan.tensors().filter(|tensor| way(&tensor.plan)).count()
}

#[test]
fn of_a_sum() {
    let plan = same_bytes(&llama(PathBuf::new()));
    assert_eq!(count(&plan, |plan| matches!(plan, TensorPlan::Fused(_))), 14);
    assert_eq!(count(&plan, |plan| matches!(plan, TensorPlan::Copy)), 7);
}

#[test]
fn of_decomposed_weights() {
    let golden = fixture("golden/merge_dora/input");
    let plan = same_bytes(&single(golden.join("base"), golden.join("adapter"), PathBuf::new()));
    assert!(count(&plan, |plan| matches!(plan, TensorPlan::Panels(_))) > 0);
}

#[test]
fn of_a_method() {
    let params = [("density".to_owned(), "0.3,0.45".to_owned())];
    let method = Some("ties".to_owned());
    let params = params.into_iter().collect();
    let plan = same_bytes(&Options { method, params, ..llama(PathBuf::new()) });
    assert_eq!(count(&plan, |plan| matches!(plan, TensorPlan::Direct(_))), 14);
}

#[test]
fn of_a_fine_tuned_checkpoint() {
    let bench = Bench::new();
    let tuned = bench.path("tuned");
    merge::plan(&llama(tuned.clone())).expect("a plan").run(&()).expect("a merge");
    let plan = same_bytes(&single(fixture("llama/base"), tuned, PathBuf::new()));
    assert!(count(&plan, |plan| matches!(plan, TensorPlan::Direct(_))) >= 14);
}

#[test]
fn of_a_quantised_base() {
    let case = fixture("quant/nvfp4_ct");
    let plan = same_bytes(&single(case.join("base"), case.join("adapter"), PathBuf::new()));
    assert!(plan.dequantised.is_some());
    assert!(plan.side_files.iter().any(|file| file.content.is_some()));
}
