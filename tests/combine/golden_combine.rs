//! Combining and resizing against what PEFT and kohya's scripts wrote for the same inputs, through the
//! command as a user would type it. Each case brings its own tolerance.
#![allow(clippy::panic, reason = "a case that cannot be read has failed")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::dense::{Dense, Part, adapter};
use crate::common::reference::{Input, Problem};
use crate::common::{Read, fixture, lora_tool, read};
use lora_tool::method::Space;
use serde_json::Value;

struct Case {
    name: &'static str,
    directory: PathBuf,
    facts: Value,
}

impl Case {
    fn open(name: &'static str) -> Self {
        let directory = fixture("golden").join(name);
        let text = std::fs::read(directory.join("case.json")).expect("case.json");
        Self { name, directory, facts: serde_json::from_slice(&text).expect("JSON") }
    }

    fn inputs(&self) -> Vec<PathBuf> {
        let inputs = self.facts["inputs"].as_object().expect("inputs").values();
        let paths = inputs.flat_map(|value| match value {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        });
        paths.map(|path| self.directory.join(path.as_str().expect("a path"))).collect()
    }

    /// `-w` and the case's weights, if it has any.
    fn weights(&self) -> Vec<String> {
        let weights = self.facts["params"].get("weights").or(self.facts["params"].get("ratios"));
        let Some(weights) = weights.and_then(Value::as_array) else { return Vec::new() };
        ["-w".to_owned()].into_iter().chain(weights.iter().map(ToString::to_string)).collect()
    }

    /// Runs a verb on the case's inputs with the flags given, and hands over what was written.
    fn run(&self, verb: &str, flags: &str, check: impl Fn(&Path)) {
        let scratch = tempfile::tempdir().expect("a directory");
        let kohya = self.inputs()[0].is_file();
        let output = scratch.path().join(if kohya { "out.safetensors" } else { "out" });
        let mut command = lora_tool();
        command.arg(verb).args(self.inputs()).args(self.weights()).arg("-o").arg(&output);
        command.args(flags.split_whitespace()).assert().success();
        check(&output);
    }

    /// What the dense formula of ours makes of a module.
    fn exact(&self, method: &str, space: Space, module: &str) -> Dense {
        let params = &self.facts["params"];
        let text = |name: &str, otherwise: &str| match &params[name] {
            Value::Null => otherwise.to_owned(),
            value => value.to_string().replace('"', ""),
        };
        let asked: BTreeMap<String, String> = [
            ("density", text("density", "1")),
            ("majority-sign", text("majority_sign_method", "total")),
            ("reduce", "mean".to_owned()),
            ("lambda", "1".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let listed = params["weights"].as_array().expect("weights").iter();
        let weights: Vec<f64> = listed.map(|weight| weight.as_f64().expect("a number")).collect();
        let input = |(at, path): (usize, &PathBuf)| {
            let part = adapter(path).remove(module)?;
            let Part { up, down, scale, .. } = part;
            Some(Input { up, down, scale, weight: weights[at], adapter: at })
        };
        let paths = self.inputs();
        let inputs: Vec<Input> = paths.iter().enumerate().filter_map(input).collect();
        let problem = Problem {
            name: module,
            rows: inputs[0].up.rows,
            columns: inputs[0].down.columns,
            inputs: &inputs,
            weights: &weights,
            params: &asked,
            given: &asked,
            compat: None,
            rank: None,
            exact: false,
            margin: f64::INFINITY.into(),
        };
        let method = lora_tool::method::by_name(method).expect("a method");
        let result = crate::common::reference::combined(method, space, &problem);
        assert!(!problem.doubt(1e-6), "{}: {module} is decided by rounding", self.name);
        result
    }

    fn expected(&self, field: &str) -> PathBuf {
        self.directory.join(self.facts["expected"][field].as_str().expect("a path"))
    }

    /// The largest difference allowed between a value and `expected`, in a tensor up to `largest`.
    fn allowed(&self, expected: f64, largest: f64) -> f64 {
        let tolerance = &self.facts["tolerance"];
        let of = |name: &str| tolerance[name].as_f64();
        match (of("atol_rel_to_max"), of("rtol"), of("atol")) {
            (Some(share), _, None) => share * largest,
            (None, Some(relative), Some(absolute)) => absolute + relative * expected.abs(),
            _ => panic!("{}: a tolerance of another kind: {tolerance}", self.name),
        }
    }

    fn close(&self, what: &str, found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name);
        let largest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= self.allowed(*expected, largest),
                "{}: {what}[{at}] is {found}, expected {expected}",
                self.name
            );
        }
    }

    /// Deltas and singular values against `delta.safetensors`, ranks and alphas against `per_module`.
    fn deltas(&self, output: &Path) {
        let parts = adapter(output);
        let mut compared = 0;
        for (name, tensor) in read(&self.expected("delta")) {
            let (kind, module) = name.split_once('.').expect("delta.MODULE or sv.MODULE");
            let part = &parts[module];
            let delta = part.base_delta();
            match kind {
                "delta" => self.close(&name, &delta.values, &tensor.values()),
                "sv" => self.values(&name, &delta, &tensor),
                _ => panic!("{name}"),
            }
            compared += usize::from(kind == "delta");
        }
        assert_eq!(compared, parts.len(), "{}: {:?}", self.name, parts.keys());
        let listed = self.facts["expected"]["per_module"].as_object();
        for (module, facts) in listed.into_iter().flatten() {
            let part = &parts[module];
            let expected = (facts["rank"].as_u64().expect("a rank"), facts["alpha"].as_f64());
            assert_eq!((part.rank as u64, Some(part.alpha)), expected, "{}: {module}", self.name);
        }
    }

    /// As many leading singular values as were recorded; the others are rounding.
    fn values(&self, name: &str, delta: &Dense, expected: &Read) {
        let expected = expected.values();
        let found = delta.singular_values();
        self.close(name, &found[..expected.len()], &expected);
        let rest = found[expected.len()..].iter().fold(0f64, |most, value| most.max(*value));
        assert!(rest <= self.allowed(0.0, found[0]), "{}: {name}: {rest} beyond", self.name);
    }

    /// Every tensor against the peer's own file.
    fn factors(&self, output: &Path, expected: &Path) {
        let file = |path: &Path| {
            if path.is_dir() { path.join("adapter_model.safetensors") } else { path.to_path_buf() }
        };
        let (found, expected) = (read(&file(output)), read(&file(expected)));
        assert!(found.keys().eq(expected.keys()), "{}: {:?}", self.name, found.keys());
        for (name, expected) in &expected {
            assert_eq!(found[name].shape, expected.shape, "{}: {name}", self.name);
            self.close(name, &found[name].values(), &expected.values());
        }
    }
}

/// Factors as PEFT leaves them, and its `r` and `lora_alpha`.
fn as_peft(name: &'static str, flags: &str) {
    let case = Case::open(name);
    assert!(
        case.facts["compare"].as_str().expect("text").contains("factors elementwise"),
        "{name}"
    );
    case.run("combine", flags, |output| {
        case.deltas(output);
        let expected = case.expected("adapter");
        case.factors(output, &expected);
        let (found, expected) =
            (crate::common::dense::config(output), crate::common::dense::config(&expected));
        for field in ["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"] {
            assert_eq!(found[field], expected[field], "{name}: {field}");
        }
    });
}

#[test]
fn peft_linear_with_its_cross_terms() {
    for name in ["combine_linear", "combine_linear_conv2d_embedding", "combine_linear_negative"] {
        for flags in ["--compat peft", "--method peft-linear", "--method peft_linear"] {
            as_peft(name, flags);
        }
    }
}

#[test]
fn the_exact_sum_is_not_what_peft_calls_linear() {
    let case = Case::open("combine_linear");
    case.run("combine", "", |output| {
        let exact = adapter(output);
        let theirs = read(&case.expected("delta"));
        for (module, part) in exact {
            let theirs = theirs[&format!("delta.{module}")].values();
            let delta = part.delta();
            let theirs = Dense::new(delta.rows, delta.columns, theirs);
            assert!(delta.minus(&theirs).norm() > 0.1 * delta.norm(), "{module}: no cross terms");
        }
    });
}

#[test]
fn peft_cat() {
    for flags in ["--method cat", "--method cat --compat peft", "--method concat"] {
        as_peft("combine_cat", flags);
    }
    // PEFT rounds the weighted A to bf16; so does a file that keeps its inputs' dtype.
    let case = Case::open("combine_cat_bf16_adapters");
    for flags in ["--method cat", "--method cat --dtype f32"] {
        case.run("combine", flags, |output| case.deltas(output));
    }
}

#[test]
fn cat_and_the_default_are_one_sum() {
    let case = Case::open("combine_cat");
    case.run("combine", "", |output| case.deltas(output));
}

#[test]
fn one_adapter_rescaled() {
    let case = Case::open("combine_single_adapter_rescale");
    case.run("combine", "", |output| case.deltas(output));
    as_peft("combine_single_adapter_rescale", "--compat peft");
}

#[test]
fn peft_svd() {
    for name in ["combine_svd_conv2d", "combine_svd_rank_below", "combine_svd_rank_full"] {
        let case = Case::open(name);
        let rank = &case.facts["params"]["svd_rank"];
        for flags in ["--method svd --rank", "--rank", "--method svd --svd_rank"] {
            case.run("combine", &format!("{flags} {rank}"), |output| case.deltas(output));
        }
    }
}

/// The case's density and election, as flags.
fn flags_of(case: &Case) -> String {
    let params = &case.facts["params"];
    let flag = |flag: &str, name: &str| match &params[name] {
        Value::Null => String::new(),
        value => format!("--{flag} {} ", value.to_string().replace('"', "")),
    };
    // PEFT's density is one for all; its election is that of ties alone.
    flag("density", "density")
        + &flag("majority-sign", "majority_sign_method")
        + &flag("rank", "svd_rank")
}

#[test]
fn peft_on_factors_apart() {
    for (name, method) in [
        ("combine_ties", "ties"),
        ("combine_dare_linear_d1", "dare_linear"),
        ("combine_magnitude_prune", "magnitude_prune"),
    ] {
        let flags = flags_of(&Case::open(name));
        as_peft(name, &format!("--compat peft --method {method} {flags}"));
        let dashed = method.replace('_', "-");
        as_peft(name, &format!("--compat peft --space factors --method {dashed} {flags}"));
    }
}

#[test]
fn peft_on_deltas() {
    for (name, method) in [
        ("combine_ties_svd", "ties_svd"),
        ("combine_ties_svd_frequency", "ties_svd"),
        ("combine_dare_linear_svd_d1", "dare_linear_svd"),
        ("combine_magnitude_prune_svd", "magnitude_prune_svd"),
    ] {
        let case = Case::open(name);
        let flags = format!("--compat peft --method {method} {}", flags_of(&case));
        case.run("combine", &flags, |output| case.deltas(output));
    }
}

/// Where ours is another than PEFT's: votes carry weights, and a mean divides by them, so that two
/// adapters at weight 1 are averaged as at any other equal weights. It is what the dense formula says.
#[test]
fn the_exact_ties_is_not_what_peft_computes() {
    for (name, space) in [
        ("combine_ties", Space::Factors),
        ("combine_ties_svd", Space::Delta),
        ("combine_ties_svd_frequency", Space::Delta),
    ] {
        let case = Case::open(name);
        let rank = if space == Space::Delta { "--rank 64" } else { "" };
        let flags = flags_of(&case);
        let flags = flags.split("--rank").next().expect("flags");
        let flags = format!("--method ties --space {} {flags} {rank}", space.name());
        case.run("combine", &flags, |output| {
            for (module, part) in adapter(output) {
                let theirs = read(&case.expected("delta"))[&format!("delta.{module}")].values();
                let (ours, delta) = (part.delta(), part.base_delta());
                let theirs = Dense::new(delta.rows, delta.columns, theirs);
                assert!(delta.minus(&theirs).norm() > 0.01 * delta.norm(), "{name}: {module}");
                let exact = case.exact("ties", space, &module);
                assert!(ours.minus(&exact).norm() < 3e-6 * exact.norm(), "{name}: {module}");
            }
        });
    }
}

/// A sum that weights what was pruned is the same with PEFT's weights and with ours.
#[test]
fn the_exact_sums_of_pruned_deltas_are_what_peft_computes() {
    for (name, flags) in [
        ("combine_magnitude_prune", "--method magnitude-prune --space factors"),
        ("combine_magnitude_prune_svd", "--method magnitude-prune"),
        ("combine_dare_linear_d1", "--method dare-linear --space factors"),
        ("combine_dare_linear_svd_d1", "--method dare-linear"),
    ] {
        let case = Case::open(name);
        let flags = format!("{flags} {}", flags_of(&case));
        case.run("combine", &flags, |output| case.deltas(output));
    }
}

#[test]
fn kohya_svd_merge() {
    let case = Case::open("svd_merge_kohya");
    for flags in [
        "--method svd --rank 6 --conv-rank 4",
        "--rank 6 --conv-rank 4",
        "--new_rank 6 --new_conv_rank 4",
    ] {
        case.run("combine", flags, |output| case.deltas(output));
    }
}

#[test]
fn kohya_lora_merge() {
    for (name, flags) in [
        ("lora_merge_kohya", "--compat kohya"),
        ("lora_merge_kohya", "--method kohya-linear"),
        ("lora_merge_kohya_concat", "--method cat --compat kohya"),
        ("lora_merge_kohya_concat", "--method kohya-cat"),
    ] {
        let case = Case::open(name);
        case.run("combine", flags, |output| {
            case.deltas(output);
            case.factors(output, &case.expected("lora"));
        });
    }
}

#[test]
fn kohya_resize() {
    let fixed = Case::open("resize_kohya_fixed");
    for flags in ["--rank 4 --conv-rank 2", "--new_rank 4 --new_conv_rank 2"] {
        fixed.run("resize", flags, |output| fixed.deltas(output));
    }
    for name in ["resize_kohya_sv_ratio", "resize_kohya_sv_fro", "resize_kohya_sv_cumulative"] {
        let case = Case::open(name);
        let of = |name: &str| case.facts["params"][name].to_string().replace('"', "");
        let (method, parameter) = (of("dynamic_method"), of("dynamic_param"));
        let cap = of("new_rank");
        for flags in [
            format!("--new_rank {cap} --dynamic_method {method} --dynamic_param {parameter}"),
            format!("--rank {cap} --dynamic-method {method} --dynamic-param {parameter}"),
            format!("--rank {method}:{parameter} --max-rank {cap}"),
        ] {
            case.run("resize", &flags, |output| case.deltas(output));
        }
    }
}

#[test]
fn no_case_is_forgotten() {
    let here = include_str!("golden_combine.rs");
    let mut found = 0;
    for entry in std::fs::read_dir(fixture("golden")).expect("golden cases") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let kinds = ["combine_", "resize_", "svd_merge_", "lora_merge_"];
        if kinds.iter().any(|kind| name.starts_with(kind)) {
            assert!(here.contains(&format!("\"{name}\"")), "{name} is not tested");
            found += 1;
        }
    }
    assert_eq!(found, 23);
}
