//! PEFT's types beyond LoRA's kin: each formula against plain dense matrices in f64 (merged, and as a LoRA of any
//! rank), what PEFT itself wrote of each (`fixtures/golden`) through inspect, convert and check, and what is refused.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::f64::consts::TAU;

use crate::common::dense::Dense;
use crate::common::formulas::{hadamard, identity};
use crate::common::{Bench, Tensors, files, fixture, lora_tool, read};
use crate::families::case::{Case, config, dense};
use lora_tool::format::Dtype;
use serde_json::{Value, json};

fn positions(case: &mut Case, part: &str, shape: &[usize], places: &[i32]) {
    let bytes: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
    let name = format!("{}.{part}", case.prefix);
    case.tensors = std::mem::take(&mut case.tensors).raw(&name, Dtype::I32, shape, &bytes);
}

fn long_positions(case: &mut Case, part: &str, shape: &[usize], places: &[i64]) {
    let bytes: Vec<u8> = places.iter().flat_map(|place| place.to_le_bytes()).collect();
    let name = format!("{}.{part}", case.prefix);
    case.tensors = std::mem::take(&mut case.tensors).raw(&name, Dtype::I64, shape, &bytes);
}

/// A dense matrix of a few elements.
fn sparse(rows: usize, columns: usize, elements: &[((usize, usize), f64)]) -> Dense {
    let mut all = Dense::zeros(rows, columns);
    for ((row, column), value) in elements {
        all.values[row * columns + column] += value;
    }
    all
}

/// `torch.randperm(80, generator=torch.Generator().manual_seed(777))[:6]`, and with seed 5.
const DRAWN: [usize; 6] = [55, 43, 69, 45, 7, 4];
const DRAWN_OF_5: [usize; 6] = [51, 54, 63, 6, 22, 75];

#[test]
fn fourierft_adds_up_waves() {
    for (seed, places) in [(777, DRAWN), (5, DRAWN_OF_5)] {
        let fields = json!({"n_frequency": 6, "scaling": 40.0, "random_loc_seed": seed});
        let mut case = Case::peft(51, config("FOURIERFT", fields));
        let values = case.tensor("fourierft_spectrum", &[6], 20.0).values;
        for (outputs, inputs, turned) in [(8, 10, false), (10, 8, false), (8, 10, true)] {
            let delta = dense(outputs, inputs, &|p, q| {
                let wave = |(place, value): (&usize, &f64)| {
                    let (u, v) = (place / inputs, place % inputs);
                    let turn = (u * p) as f64 / outputs as f64 + (v * q) as f64 / inputs as f64;
                    value * (TAU * turn).cos()
                };
                places.iter().zip(&values).map(wave).sum::<f64>() * 40.0 / 80.0
            });
            let shape = if turned { [inputs, outputs] } else { [outputs, inputs] };
            case.check(&shape, turned, &|w| w.plus(&delta));
        }
    }
}

#[test]
fn waveft_synthesises_wavelets_or_sets_elements() {
    let elements = |values: &[f64], scale: f64| -> Vec<((usize, usize), f64)> {
        let places = DRAWN.iter().map(|place| (place / 10, place % 10));
        places.zip(values.iter().map(|value| value * scale)).collect()
    };
    let fields = json!({"n_frequency": 6, "scaling": 3.0, "use_idwt": false});
    let mut case = Case::peft(52, config("WAVEFT", fields));
    let values = case.tensor("waveft_spectrum", &[6], 0.5).values;
    let delta = sparse(8, 10, &elements(&values, 3.0));
    case.check(&[8, 10], false, &|w| w.plus(&delta));
    case.check(&[10, 8], true, &|w| w.plus(&delta));
    // Haar: a coefficient makes a square of four, the second row or column of it with its sign turned where its
    // band is a high one; of the two mixed bands PEFT turns the other side.
    let mut case = Case::peft(53, config("WAVEFT", json!({"n_frequency": 6, "scaling": 3.0})));
    let values = case.tensor("waveft_spectrum", &[6], 0.5).values;
    let mut squares = Vec::new();
    for ((row, column), value) in elements(&values, 3.0) {
        let (high_row, high_column) = (row >= 4, column >= 5);
        for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let turned = (high_column && i == 1) != (high_row && j == 1);
            let value = if turned { -value / 2.0 } else { value / 2.0 };
            squares.push(((2 * (row % 4) + i, 2 * (column % 5) + j), value));
        }
    }
    let delta = sparse(8, 10, &squares);
    case.check(&[8, 10], false, &|w| w.plus(&delta));
}

#[test]
fn c3a_turns_its_kernels() {
    let mut case = Case::peft(54, config("C3A", json!({"block_size": 4})));
    let kernels = case.tensor("c3a_kernel", &[2, 3, 4], 5.0).values;
    let delta = dense(8, 12, &|row, column| {
        kernels[(row / 4 * 3 + column / 4) * 4 + (4 + column % 4 - row % 4) % 4] / 12.0
    });
    case.check(&[8, 12], false, &|w| w.plus(&delta));
    case.check(&[12, 8], true, &|w| w.plus(&delta));
}

#[test]
fn shira_and_supertuning_add_elements() {
    let mut case = Case::peft(55, config("SHIRA", json!({"r": 1})));
    let values = case.tensor("shira_weight", &[5], 1.0).values;
    positions(&mut case, "shira_indices", &[2, 5], &[0, 7, 3, 3, 5, 9, 0, 2, 4, 4]);
    let places = [(0, 9), (7, 0), (3, 2), (3, 4), (5, 4)];
    let elements: Vec<_> = places.into_iter().zip(values).collect();
    let delta = sparse(8, 10, &elements);
    case.check(&[8, 10], false, &|w| w.plus(&delta));
    case.check(&[10, 8], true, &|w| w.plus(&delta));
    for rank in [0, 2] {
        let fields = json!({"sparsity": 0.9, "lora_alpha": 6, "r": rank});
        let mut case = Case::peft(56, config("SUPERTUNING", fields));
        let values = case.tensor("supertuning_values", &[4], 1.0).values;
        positions(&mut case, "supertuning_indices", &[4], &[79, 0, 42, 17]);
        let places = [(7, 9), (0, 0), (4, 2), (1, 7)];
        let elements: Vec<_> = places.into_iter().zip(values).collect();
        let mut delta = sparse(8, 10, &elements);
        if rank > 0 {
            let down = case.tensor("supertuning_lora_A.weight", &[2, 10], 0.5);
            let up = case.tensor("supertuning_lora_B.weight", &[8, 2], 0.5);
            delta = delta.plus(&up.times(&down).scaled(3.0));
        }
        case.check(&[8, 10], false, &|w| w.plus(&delta));
        case.check(&[10, 8], true, &|w| w.plus(&delta));
    }
}

#[test]
fn road_turns_pairs_of_outputs() {
    for (variant, count) in [("road_1", 4), ("road_2", 8), ("road_4", 16)] {
        let mut case = Case::peft(57, config("ROAD", json!({"variant": variant, "group_size": 4})));
        let angles = case.tensor("road_theta", &[count], 1.0).values;
        let lengths = case.tensor("road_alpha", &[count], 1.5).values;
        // The numbers that make the cosine and the sine of an output.
        let of = |output: usize| match variant {
            "road_1" => (output / 4 * 2 + output % 2, output / 4 * 2 + output % 2),
            "road_2" => (output, output),
            _ => (output / 4 * 8 + output % 4, output / 4 * 8 + 4 + output % 4),
        };
        let r = dense(8, 8, &|row, column| {
            let (cosine, sine) = of(row);
            let partner = row / 4 * 4 + (row + 2) % 4;
            let sign = if row % 4 < 2 { -1.0 } else { 1.0 };
            match column {
                column if column == row => lengths[cosine] * angles[cosine].cos(),
                column if column == partner => sign * lengths[sine] * angles[sine].sin(),
                _ => 0.0,
            }
        });
        case.check(&[8, 10], false, &|w| r.times(w));
        case.check(&[10, 8], true, &|w| r.times(w));
    }
}

#[test]
fn pvera_takes_the_first_half_of_its_levels() {
    let mut case = Case::peft(58, config("PVERA", json!({"r": 2})));
    let outputs = case.tensor("pvera_lambda_b", &[8], 1.0);
    let inner = case.tensor("pvera_lambda_d", &[4], 1.0);
    let module = case.prefix;
    case.prefix = "base_model";
    let a = case.tensor("pvera_A", &[4, 12], 0.5);
    let b = case.tensor("pvera_B", &[9, 2], 0.5);
    case.prefix = module;
    let delta = dense(8, 10, &|row, column| {
        let level = |level: usize| b.at(row, level) * inner.values[level] * a.at(level, column);
        outputs.values[row] * (level(0) + level(1))
    });
    case.check(&[8, 10], false, &|w| w.plus(&delta));
}

#[test]
fn unilora_takes_its_factors_from_one_vector() {
    let mut case = Case::peft(59, config("UNILORA", json!({"r": 2, "save_indices": true})));
    let module = case.prefix;
    case.prefix = "base_model";
    let vector = case.tensor("unilora_theta_d", &[5], 0.5).values;
    case.prefix = module;
    let mut factor = |side: &str, rows: usize, columns: usize| {
        let places: Vec<i64> = (0..).take(rows * columns).map(|at: i64| at * 7 % 5).collect();
        long_positions(&mut case, &format!("unilora_indices_{side}"), &[rows, columns], &places);
        let scales = case.tensor(&format!("unilora_scales_{side}"), &[rows, columns], 1.0);
        dense(rows, columns, &|row, column| {
            vector[(row * columns + column) * 7 % 5] * scales.at(row, column)
        })
    };
    let (down, up) = (factor("A", 2, 10), factor("B", 8, 2));
    let delta = up.times(&down);
    case.check(&[8, 10], false, &|w| w.plus(&delta));
}

#[test]
fn deft_puts_something_else_in_a_subspace() {
    for para in [false, true] {
        let fields = json!({"para": para, "alpha": 6, "decomposition_method": "relu"});
        let mut case = Case::peft(60, config("DEFT", fields));
        let p = case.tensor("deft_P", &[8, 2], 0.5);
        let v = dense(8, 2, &|row, column| p.at(row, column).max(0.0));
        let left = identity(8).minus(&p.times(&v.transposed()));
        let plus = match para {
            true => Dense::zeros(8, 10),
            false => p.times(&case.tensor("deft_R", &[2, 10], 0.5)).scaled(3.0),
        };
        case.check(&[8, 10], false, &|w| left.times(w).plus(&plus));
        case.check(&[10, 8], true, &|w| left.times(w).plus(&plus));
    }
    // Of one direction, Q is P at length 1, its sign turned where the first element is not negative.
    let mut case = Case::peft(61, config("DEFT", json!({"decomposition_method": "qr"})));
    let p = case.tensor("deft_P", &[8, 1], 0.5);
    let sign = if p.values[0] < 0.0 { 1.0 } else { -1.0 };
    let q = p.scaled(sign / p.norm());
    let plus = q.times(&case.tensor("deft_R", &[1, 10], 0.5));
    let left = identity(8).minus(&q.times(&q.transposed()));
    case.check(&[8, 10], false, &|w| left.times(w).plus(&plus));
}

#[test]
fn glora_scales_and_adds_by_paths() {
    for kind in ["lora", "vector", "constant"] {
        let mut case = Case::peft(62, config("GLORA", json!({"config_A_B": kind})));
        let mut path = |path: &str| match kind {
            "lora" => {
                let left = case.tensor(&format!("glora_{path}.Xd"), &[8, 2], 0.5);
                left.times(&case.tensor(&format!("glora_{path}.Xu"), &[2, 10], 0.5))
            }
            "vector" => {
                let values = case.tensor(&format!("glora_{path}.X"), &[8, 1], 0.5);
                dense(8, 10, &|row, _| values.at(row, 0))
            }
            _ => {
                let value = case.tensor(&format!("glora_{path}.X"), &[1], 0.5).values[0];
                dense(8, 10, &|_, _| value)
            }
        };
        let (by, plus) = (path("A"), path("B"));
        for (path, shape) in [("C", vec![10, 1]), ("D", vec![8]), ("E", vec![8])] {
            case.tensor(&format!("glora_{path}.zeros"), &shape, 0.0);
        }
        case.check(&[8, 10], false, &|w| w.plus(&hadamard(w, &by)).plus(&plus));
        case.check(&[10, 8], true, &|w| w.plus(&hadamard(w, &by)).plus(&plus));
    }
}

#[test]
fn tinylora_mixes_its_projections() {
    let mut case = Case::peft(63, config("TINYLORA", json!({"weight_tying": 1.0})));
    let down = case.tensor("tinylora_A", &[2, 10], 0.5);
    let up = case.tensor("tinylora_B", &[8, 2], 0.5);
    let projections = case.tensor("tinylora_P", &[3, 2, 2], 1.0);
    let module = case.prefix;
    case.prefix = "base_model";
    let vector = case.tensor("tinylora_v.0", &[3], 1.0).values;
    case.prefix = module;
    let inner = dense(2, 2, &|i, j| {
        (0..3).map(|at| vector[at] * projections.values[at * 4 + i * 2 + j]).sum()
    });
    let delta = up.times(&inner).times(&down);
    case.check(&[8, 10], false, &|w| w.plus(&delta));
}

#[test]
fn bdlora_has_one_factor_in_blocks() {
    for of_a in [true, false] {
        let (a, b) = if of_a { (json!(["layer"]), json!([])) } else { (json!([]), json!(["lay"])) };
        let blocks = json!({"target_modules_bd_a": a, "target_modules_bd_b": b, "nblocks": 2});
        let fields = json!({"r": 4, "lora_alpha": 6, "use_bdlora": blocks});
        let mut case = Case::peft(64, config("LORA", fields));
        let (rows, columns) = if of_a { (8, 4) } else { (8, 2) };
        let down = case.tensor("lora_A.weight", &[4, if of_a { 5 } else { 10 }], 0.5);
        let up = case.tensor("lora_B.weight", &[rows, columns], 0.5);
        let spread = |stored: &Dense, rows: usize, columns: usize| {
            dense(rows, columns, &|row, column| {
                let same = row / (rows / 2) == column / (columns / 2);
                if same { stored.at(row, column % (columns / 2)) } else { 0.0 }
            })
        };
        let delta = match of_a {
            true => up.times(&spread(&down, 4, 10)),
            false => spread(&up, 8, 4).times(&down),
        };
        case.check(&[8, 10], false, &|w| w.plus(&delta.scaled(1.5)));
    }
}

/// PEFT's own adapters of these types, and the family that inspect shows.
const RECORDED: [(&str, &str); 24] = [
    ("merge_beft", "beft"),
    ("merge_bdlora", "bdlora"),
    ("merge_c3a", "c3a"),
    ("merge_deft", "deft"),
    ("merge_deft_para", "deft"),
    ("merge_deft_qr", "deft"),
    ("merge_fourierft", "fourierft"),
    ("merge_fourierft_patterns", "fourierft"),
    ("merge_glora", "glora"),
    ("merge_glora_constants", "glora"),
    ("merge_glora_vectors", "glora"),
    ("merge_pvera", "pvera"),
    ("merge_road_1", "road"),
    ("merge_road_2", "road"),
    ("merge_road_4", "road"),
    ("merge_shira", "shira"),
    ("merge_supertuning", "supertuning"),
    ("merge_supertuning_supra", "supertuning"),
    ("merge_tinylora", "tinylora"),
    ("merge_unilora", "unilora"),
    ("merge_waveft", "waveft"),
    ("merge_waveft_coif1", "waveft"),
    ("merge_waveft_db4", "waveft"),
    ("merge_waveft_elements", "waveft"),
];

#[test]
fn what_peft_wrote_is_shown_converted_and_checked() {
    for (name, family) in RECORDED {
        let bench = Bench::new();
        let base = fixture(&format!("golden/{name}/input/base"));
        let adapter = fixture(&format!("golden/{name}/input/adapter"));
        let shown = lora_tool().args(["inspect", "--json"]).arg(&adapter).assert().success();
        let shown: Value = serde_json::from_slice(&shown.get_output().stdout).expect("JSON");
        assert_eq!(shown["items"][0]["modules"][0]["family"], family, "{name}");
        let check = lora_tool().arg("check").arg(&adapter).output().expect("runs");
        assert_ne!(check.status.code(), Some(2), "{name}");
        // PEFT's again: the merge is the same to the byte.
        let merged = files(&bench.merge(&base, &[&adapter], "--no-provenance"));
        let again = bench.path("again");
        let mut convert = lora_tool();
        convert.arg("convert").arg(&adapter).args(["--to", "peft", "-o"]).arg(&again);
        convert.assert().success();
        let rebuilt = files(&bench.merge(&base, &[&again], "--no-provenance"));
        if family == "bdlora" {
            continue;
        }
        assert!(rebuilt == merged, "{name} is another one");
        // kohya's files have none of these types.
        let out = bench.path("kohya.safetensors");
        let mut convert = lora_tool();
        convert.arg("convert").arg(&adapter).args(["--to", "kohya", "--reference"]).arg(&base);
        let said = convert.arg("-o").arg(&out).output().expect("runs");
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        match family {
            "c3a" | "deft" | "glora" | "road" | "shira" | "supertuning" | "waveft" => {
                assert_eq!(said.status.code(), Some(2), "{name}");
                assert!(text.contains("only PEFT has the family"), "{name}: {text}");
            }
            "beft" => assert!(text.contains("a bias alone"), "{name}: {text}"),
            _ => assert!(said.status.success(), "{name}: {text}"),
        }
    }
}

#[test]
fn broken_files_are_refused_by_the_tensor() {
    let peft = |name: &str, fields: Value| Case::peft(70, config(name, fields));
    let mut spectrum = peft("FOURIERFT", json!({}));
    spectrum.tensor("fourierft_spectrum", &[2, 3], 0.5);
    let mut many = peft("FOURIERFT", json!({}));
    many.tensor("fourierft_spectrum", &[25], 0.5);
    let mut endless = peft("WAVEFT", json!({}));
    endless.tensor("waveft_spectrum", &[3], f32::INFINITY);
    let mut seed = peft("WAVEFT", json!({"random_loc_seed": -1}));
    seed.tensor("waveft_spectrum", &[3], 0.5);
    let mut wavelet = peft("WAVEFT", json!({"wavelet_family": "db38"}));
    wavelet.tensor("waveft_spectrum", &[3], 0.5);
    let mut kernel = peft("C3A", json!({}));
    kernel.tensor("c3a_kernel", &[2, 3], 0.5);
    let mut missing = peft("SHIRA", json!({}));
    missing.tensor("shira_weight", &[3], 0.5);
    let mut outside = peft("SHIRA", json!({}));
    outside.tensor("shira_weight", &[2], 0.5);
    positions(&mut outside, "shira_indices", &[2, 2], &[0, 4, 0, 5]);
    let mut negative = peft("SHIRA", json!({}));
    negative.tensor("shira_weight", &[2], 0.5);
    positions(&mut negative, "shira_indices", &[2, 2], &[0, 1, -1, 5]);
    let mut fewer = peft("SUPERTUNING", json!({}));
    fewer.tensor("supertuning_values", &[3], 0.5);
    positions(&mut fewer, "supertuning_indices", &[2], &[0, 1]);
    let mut unsaved = peft("SUPERTUNING", json!({}));
    unsaved.tensor("supertuning_values", &[3], 0.5);
    let mut alone = peft("SUPERTUNING", json!({}));
    alone.tensor("supertuning_values", &[1], 0.5);
    positions(&mut alone, "supertuning_indices", &[1], &[0]);
    alone.tensor("supertuning_lora_A.weight", &[2, 6], 0.5);
    let mut group = peft("ROAD", json!({"group_size": 64}));
    group.tensor("road_theta", &[2], 0.5);
    group.tensor("road_alpha", &[2], 0.5);
    let mut variant = peft("ROAD", json!({"variant": "road_3"}));
    variant.tensor("road_theta", &[2], 0.5);
    variant.tensor("road_alpha", &[2], 0.5);
    let mut shared = peft("PVERA", json!({"save_projection": false}));
    shared.tensor("pvera_lambda_b", &[4], 0.5);
    shared.tensor("pvera_lambda_d", &[4], 0.5);
    let mut vector = peft("UNILORA", json!({}));
    vector.tensor("unilora_scales_A", &[2, 6], 0.5);
    long_positions(&mut vector, "unilora_indices_A", &[2, 6], &[0; 12]);
    let mut path = peft("GLORA", json!({}));
    path.tensor("glora_A.X", &[4, 1], 0.5);
    path.tensor("glora_B.X", &[4, 1], 0.5);
    path.tensor("glora_C.X", &[6, 1], 0.5);
    let mut paths = peft("GLORA", json!({}));
    paths.tensor("glora_A.X", &[4, 1], 0.5);
    let mut projection = peft("TINYLORA", json!({}));
    projection.tensor("tinylora_A", &[2, 6], 0.5);
    projection.tensor("tinylora_B", &[4, 2], 0.5);
    let mut injected = peft("DEFT", json!({}));
    injected.tensor("deft_P", &[4, 2], 0.5);
    let mut method = peft("DEFT", json!({"decomposition_method": "svd"}));
    method.tensor("deft_P", &[4, 2], 0.5);
    for (case, expected) in [
        (spectrum, vec!["fourierft_spectrum", "one dimension"]),
        (many, vec!["fourierft_spectrum", "25 values", "4 × 6"]),
        (endless, vec!["waveft_spectrum", "element 0 is inf"]),
        (seed, vec!["random_loc_seed", "-1"]),
        (wavelet, vec!["wavelet_family", "db38"]),
        (kernel, vec!["c3a_kernel", "[out / block"]),
        (missing, vec!["shira_indices"]),
        (outside, vec!["shira_indices", "more than 4 rows and 5 columns"]),
        (negative, vec!["shira_indices", "element 2 is -1"]),
        (fewer, vec!["supertuning_indices", "3 elements"]),
        (unsaved, vec!["supertuning_indices", "save_precomputed_indices"]),
        (alone, vec!["supertuning_lora_B"]),
        (group, vec!["road_theta", "`group_size` 64"]),
        (variant, vec!["road_3"]),
        (shared, vec!["pvera_A and pvera_B", "save_projection"]),
        (vector, vec!["unilora_theta_d"]),
        (path, vec!["C, which adds W·C"]),
        (paths, vec!["glora_B"]),
        (projection, vec!["tinylora_P", "save_projection"]),
        (injected, vec!["deft_R"]),
        (method, vec!["decomposition_method", "svd"]),
    ] {
        let bench = Bench::new();
        let base = Tensors::new().f32("layer.weight", &[4, 6], &[0.5; 24]);
        let base = base.save(&bench.path("model.safetensors"));
        let said = bench.refuse(&base, &[&case.save(&bench)], "");
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}

#[test]
fn several_vectors_of_tinylora_belong_to_nobody_knows_which_layer() {
    let mut case = Case::peft(71, config("TINYLORA", json!({})));
    case.tensor("tinylora_A", &[2, 6], 0.5);
    case.tensor("tinylora_B", &[4, 2], 0.5);
    case.tensor("tinylora_P", &[3, 2, 2], 0.5);
    case.prefix = "base_model";
    case.tensor("tinylora_v.0", &[3], 0.5);
    case.tensor("tinylora_v.1", &[3], 0.5);
    let bench = Bench::new();
    let base = Tensors::new().f32("layer.weight", &[4, 6], &[0.5; 24]);
    let said =
        bench.refuse(&base.save(&bench.path("model.safetensors")), &[&case.save(&bench)], "");
    assert!(said.contains("tinylora_v.1") && said.contains("which module has which"), "{said}");
}

#[test]
fn a_bias_goes_with_the_outputs_in_part() {
    // At half the weight a bias goes half the way.
    let bench = Bench::new();
    let base = fixture("golden/merge_road_2/input/base");
    let adapter = fixture("golden/merge_road_2/input/adapter");
    let before = read(&base)["blocks.0.q.bias"].values();
    let full = read(&bench.merge(&base, &[&adapter], "--verify"))["blocks.0.q.bias"].values();
    let half =
        read(&bench.merge(&base, &[&adapter], "-w 0.5 --verify"))["blocks.0.q.bias"].values();
    for ((before, full), half) in before.iter().zip(full).zip(half) {
        assert!(((before + full) / 2.0 - half).abs() < 1e-6);
    }
}

#[test]
fn flattened_factors_get_the_kernel_of_the_base() {
    // PEFT's LoHa of a convolution is flattened; its LoRA has to have the kernel, or PEFT cannot load it.
    for kernel in [3, 1] {
        let fields = json!({"r": 2, "alpha": 4});
        let mut case = Case::peft(72, config("LOHA", fields));
        let inputs = 5 * kernel * kernel;
        for (a, b) in [("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b")] {
            case.tensor(a, &[4, 2], 0.5);
            case.tensor(b, &[2, inputs], 0.5);
        }
        let bench = Bench::new();
        let base =
            Tensors::new().f32("layer.weight", &[4, 5, kernel, kernel], &vec![0.5; 4 * inputs]);
        let base = base.save(&bench.path("model.safetensors"));
        let (adapter, out) = (case.save(&bench), bench.path("lora"));
        let mut convert = lora_tool();
        convert.arg("convert").arg(&adapter).args(["--as", "lora", "--rank", "4", "--reference"]);
        convert.arg(&base).arg("-o").arg(&out).assert().success();
        let written = read(&out.join("adapter_model.safetensors"));
        let shape = |part: &str| &written[&format!("base_model.model.layer.{part}.weight")].shape;
        assert_eq!(*shape("lora_A"), [4, 5, kernel, kernel]);
        assert_eq!(*shape("lora_B"), [4, 4, 1, 1]);
        let (once, again) = (bench.merge(&base, &[&adapter], ""), bench.merge(&base, &[&out], ""));
        let (once, again) = (read(&once), read(&again));
        let pairs = once["layer.weight"].values().into_iter().zip(again["layer.weight"].values());
        assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 1e-6);
    }
}
