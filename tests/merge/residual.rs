//! What quantising takes from a merge, written beside it as an adapter: with it the merge is nearer to the dense one.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::quantised_rules::half_trained;
use crate::common::quant::{adapter, base};
use crate::common::{Bench, Read, lora_tool, read};

/// ‖first − second‖² of one weight.
fn apart(first: &Read, second: &Read) -> f64 {
    let pairs = first.values().into_iter().zip(second.values());
    pairs.map(|(a, b)| (a - b) * (a - b)).sum()
}

fn json(done: &std::process::Output) -> Value {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

#[test]
fn the_merge_with_it_is_nearer_to_the_dense_one_by_as_much_as_the_report_says() {
    let bench = Bench::new();
    for case in ["int4_sym_g32_ct", "bnb_nf4_nested", "fp8_tensor_ct", "mlx_q4_g64", "nvfp4_ct"] {
        let numbers = |base: &Path, adapter: &Path, weight: &str| {
            read(&bench.merge(base, &[adapter], &format!("--dtype f32 -w {weight}")))
        };
        let before = numbers(&base(case), &adapter(case), "1e-30");
        let dense = numbers(&base(case), &adapter(case), "1");
        let lost = bench.path(&format!("{case}-lost"));
        // Nothing is refused: what is given back is not lost.
        let options = format!("--quantized requantize --residual {} --json", lost.display());
        let (out, done) = bench.run(&base(case), &[&adapter(case)], &options);
        let report = json(&done);
        let again = numbers(&out, &lost, "1e-30");
        let with = numbers(&out, &lost, "1");
        let modules = report["residual"]["modules"].as_array().expect("modules");
        assert!(!modules.is_empty(), "{report}");
        for module in modules {
            let name = module["name"].as_str().expect("a name");
            let update = apart(&dense[name], &before[name]).sqrt();
            let share =
                |of: &BTreeMap<String, Read>| apart(&dense[name], &of[name]).sqrt() / update;
            let number = |key: &str| module[key].as_f64().expect("a number");
            let (lost, left) = (share(&again), share(&with));
            assert!((lost - number("lost")).abs() < 1e-4 * lost, "{case} {name}: {lost} {module}");
            assert!((left - number("left")).abs() < 1e-4 * lost, "{case} {name}: {left} {module}");
            assert!(left < lost, "{case} {name}: {left} of {lost}");
            assert!((number("gain") - 1.0).abs() < 0.1, "{case} {name}: {module}");
        }
    }
}

#[test]
fn rows_that_keep_their_codes_lose_nothing() {
    let bench = Bench::new();
    let case = "int4_sym_g32_ct";
    let half = half_trained(&bench, case, 64);
    let lost = bench.path("half-lost");
    let options = format!(
        "--quantized requantize --min-survival 0 --residual-rank 96 --residual {} --json",
        lost.display()
    );
    let (out, done) = bench.run(&base(case), &[&half], &options);
    let report = json(&done);
    let numbers = |base: &Path, adapter: &Path, weight: &str| {
        read(&bench.merge(base, &[adapter], &format!("--dtype f32 -w {weight}")))
    };
    let (before, dense) = (numbers(&base(case), &half, "1e-30"), numbers(&base(case), &half, "1"));
    let again = numbers(&out, &lost, "1e-30");
    let name = "model.layers.0.self_attn.q_proj.weight";
    let modules = report["residual"]["modules"].as_array().expect("modules");
    let module = modules.iter().find(|module| module["name"] == name).expect("q_proj");
    let share = (apart(&dense[name], &again[name]) / apart(&dense[name], &before[name])).sqrt();
    let said = module["lost"].as_f64().expect("a number");
    assert!((share - said).abs() < 1e-4 * share, "{share} {module}");
    // What is given back leaves those rows alone.
    let factors = read(&lost.join("adapter_model.safetensors"));
    let key = factors.keys().find(|name| name.ends_with("q_proj.lora_B.weight")).expect("B");
    let (up, rank) = (factors[key].values(), factors[key].shape[1]);
    let most = |values: &[f64]| values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let (kept, moved) = up.split_at(64 * rank);
    assert!(most(kept) < 1e-5 * most(moved), "{} of {}", most(kept), most(moved));
}

#[test]
fn a_rank_that_spans_all_gives_all_back() {
    let bench = Bench::new();
    let (case, lost) = ("bnb_int8", bench.path("lost"));
    let options =
        format!("--quantized requantize --residual {} --residual-rank 400 --json", lost.display());
    let (_, done) = bench.run(&base(case), &[&adapter(case)], &options);
    let report = json(&done);
    let found = |key: &str| report["residual"][key].as_f64().expect("a number");
    assert!(found("lost") > 1e-3 && found("left") < 1e-5 * found("lost"), "{report}");
    // A PEFT adapter of the merge, which says whose it is.
    let mut tool = lora_tool();
    let done = tool.arg("inspect").arg(&lost).arg("--json").output().expect("it runs");
    assert!(json(&done).to_string().contains("out-1"));
}

#[test]
fn it_does_not_depend_on_threads_and_is_refused_where_nothing_is_lost() {
    let bench = Bench::new();
    let case = "int4_sym_g32_ct";
    let made = |threads: &str| {
        let (out, lost) = (bench.path(&format!("o{threads}")), bench.path(&format!("l{threads}")));
        let mut tool = lora_tool();
        tool.args(["--threads", threads, "merge"]).arg(base(case)).arg(adapter(case));
        tool.args(["--quantized", "requantize", "--min-survival", "0", "--residual"]).arg(&lost);
        let done = tool.arg("-o").arg(&out).output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        read(&lost)
    };
    assert!(made("1") == made("3"));
    let lost = bench.path("lost");
    let residual = format!("--residual {}", lost.display());
    let said = bench.refuse(&base(case), &[&adapter(case)], &residual);
    assert!(said.contains("--quantized requantize"), "{said}");
    let all = "--quantized requantize --residual-rank 3";
    let said = bench.refuse(&base(case), &[&adapter(case)], all);
    assert!(said.contains("--residual DIR"), "{said}");
    // Below what shall survive even with it, neither is written.
    let least = format!("--quantized requantize --min-survival 1 {residual} --residual-rank 1");
    let said = bench.refuse(&base(case), &[&adapter(case)], &least);
    assert!(said.contains("survives") && !lost.exists(), "{said}");
}
