//! Differences of checkpoints by value, of adapters by what they do.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::made::{How, Workshop, made};
use crate::common::refusal::Scene;
use crate::common::{Peft, Tensors, lora_tool};
use lora_tool::format::Dtype;
use lora_tool::ops::combine;
use serde_json::Value;

/// Runs `diff`; its report, which must agree with the exit code.
fn diff(a: &Path, b: &Path, options: &str) -> Value {
    let mut command = lora_tool();
    command.arg("diff").args([a, b]).arg("--json").args(options.split_whitespace());
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let report: Value = serde_json::from_slice(&done.stdout).expect(&said);
    let code = i32::from(report["same"] != true);
    assert_eq!(done.status.code(), Some(code), "{said}");
    report
}

#[test]
fn other_factors_of_one_update_are_the_same() {
    let workshop = Workshop::new();
    let modules = [("layers.0.q", 20, 12, 3), ("layers.1.q", 12, 20, 5)];
    let adapter = workshop.peft("adapter", 1, &modules, How { alpha: 6.0, ..How::default() });
    let (again, _) = workshop.combine(&[(&adapter, 1.0)], "again", combine::Options::default());
    let report = diff(&adapter, &again, "");
    assert_eq!(report["compared"], "adapters");
    assert_eq!(report["equal"], 2);
    assert!(report["relative"].as_f64().expect("a number") < 1e-6);
    let (twice, _) = workshop.combine(&[(&adapter, 2.0)], "twice", combine::Options::default());
    let report = diff(&adapter, &twice, "");
    assert_eq!(report["different"].as_array().map(Vec::len), Some(2));
    assert!((report["relative"].as_f64().expect("a number") - 0.5).abs() < 1e-6);
    assert_eq!(diff(&adapter, &twice, "--tolerance 0.6")["same"], true);
}

#[test]
fn modules_of_one_side_are_named() {
    let workshop = Workshop::new();
    let first =
        workshop.peft("first", 1, &[("l.0.q", 8, 6, 2), ("l.0.k", 8, 6, 2)], How::default());
    let second =
        workshop.peft("second", 1, &[("l.0.q", 8, 6, 2), ("l.0.v", 8, 6, 2)], How::default());
    let report = diff(&first, &second, "");
    assert_eq!(report["only_a"], serde_json::json!(["l.0.k"]));
    assert_eq!(report["only_b"], serde_json::json!(["l.0.v"]));
    assert_eq!(report["equal"], 1);
}

#[test]
fn updates_that_depend_on_the_base_are_compared_as_stored() {
    let workshop = Workshop::new();
    let dora = |size: f32| -> Peft {
        made(1, &[("q", 8, 6, 2)], How::default()).field("use_dora", true).tensor(
            "q.lora_magnitude_vector",
            &[8],
            &[size; 8],
        )
    };
    let (a, b) = (dora(1.0).save(&workshop.path("a")), dora(2.0).save(&workshop.path("b")));
    assert_eq!(diff(&a, &a, "")["same"], true);
    let report = diff(&a, &b, "");
    assert_eq!(report["compared"], "tensors");
    assert_eq!(report["equal"], 2);
}

#[test]
fn checkpoints_differ_by_value_dtype_shape_and_name() {
    let workshop = Workshop::new();
    let first = Tensors::new()
        .f32("a", &[2, 2], &[3.0, 0.0, 0.0, 4.0])
        .f32("b", &[2], &[1.0, 2.0])
        .f32("c", &[2], &[1.0, 2.0])
        .f32("only", &[1], &[0.0])
        .raw("codes", Dtype::U8, &[3], &[1, 2, 3]);
    let second = Tensors::new()
        .f32("a", &[2, 2], &[3.0, 0.0, 0.5, 4.0])
        .float("b", Dtype::BF16, &[2], &[1.0, 2.0])
        .f32("c", &[1, 2], &[1.0, 2.0])
        .raw("codes", Dtype::U8, &[3], &[1, 2, 4]);
    let a = first.save(&workshop.path("a.safetensors"));
    let b = second.save(&workshop.path("b.safetensors"));
    assert_eq!(diff(&a, &a, "")["same"], true);
    let report = diff(&a, &b, "");
    assert_eq!(report["compared"], "checkpoints");
    assert_eq!(report["only_a"], serde_json::json!(["only"]));
    let different = report["different"].as_array().expect("a list");
    let names: Vec<_> = different.iter().map(|d| d["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["a", "b", "c", "codes"]);
    assert_eq!(different[0]["elements"], 1);
    assert_eq!(different[0]["largest"], 0.5);
    assert!(different[1]["what"].as_str().expect("text").contains("same values"));
    assert!(different[2]["what"].as_str().expect("text").contains("shape [2] against [1, 2]"));
}

#[test]
fn an_adapter_is_no_checkpoint() {
    let scene = Scene::sound();
    let line = "diff base.safetensors adapter";
    scene.refuses_late(line, &["adapter", "this is an adapter, and"], "compare two adapters");
    scene.refuses_late("diff base.safetensors missing", &["missing"], "");
}
