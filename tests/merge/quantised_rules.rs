//! What a naive merge into a quantised base leaves behind or takes apart: companions, skip lists in every loader's
//! spelling, what programs load as one, and what the config still says.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use lora_tool::format::Dtype;
use serde_json::{Value, json};

use super::quantised::{adapter, base};
use crate::common::{Bench, Peft, Tensors, read};

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// A list that holds all of these names.
#[track_caller]
fn holds(list: &Value, names: &[&str]) {
    let list = list.as_array().expect("a list");
    for name in names {
        assert!(list.iter().any(|entry| entry == name), "no {name} in {list:?}");
    }
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.0.self_attn.k_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";

/// Endings of everything that belongs to one quantised weight, in all formats.
const COMPANIONS: [&str; 17] = [
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "input_scale",
    "input_scale_ub",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "SCB",
    "weight_format",
    "weight.absmax",
    "weight.quant_map",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
];

#[test]
fn rule_25_what_is_plain_loses_its_companions_and_stands_in_the_loaders_skip_list() {
    let bench = Bench::new();
    let hybrid = |case: &str| {
        let out = bench.merge(&base(case), &[&adapter(case)], "--quantized hybrid");
        let after = read(&out);
        for module in [Q, K, DOWN] {
            assert!(after.contains_key(&format!("{module}.weight")), "{case}: {module}");
            for ending in COMPANIONS {
                let name = format!("{module}.{ending}");
                assert!(!after.contains_key(&name), "{case}: {name} is left");
            }
        }
        let config = json_of(&out.join("config.json"));
        (out, config)
    };
    for case in ["fp8_block128_ragged", "fp8_row_fbgemm"] {
        let (_, config) = hybrid(case);
        for key in ["modules_to_not_convert", "ignored_layers"] {
            holds(&config["quantization_config"][key], &[Q, K, DOWN]);
        }
    }
    for case in ["fp8_tensor_ct", "int8_channel_ct", "nvfp4_ct"] {
        holds(&hybrid(case).1["quantization_config"]["ignore"], &["lm_head", Q, K, DOWN]);
    }
    for case in ["bnb_nf4_nested", "bnb_fp4_plain", "bnb_int8"] {
        let skipped = &hybrid(case).1["quantization_config"]["llm_int8_skip_modules"];
        holds(skipped, &["lm_head", Q, K, DOWN]);
    }
    holds(&hybrid("awq_gemm").1["quantization_config"]["modules_to_not_convert"], &[Q, K, DOWN]);
    let rules = hybrid("gptq_v1_sym").1["quantization_config"]["dynamic"].clone();
    assert_eq!(rules["-:^model\\.layers\\.0\\.self_attn\\.q_proj$"], json!({}), "{rules}");
    let (_, mlx) = hybrid("mlx_q4_g64");
    for key in ["quantization", "quantization_config"] {
        assert_eq!((&mlx[key][Q], &mlx[key][DOWN]), (&json!(false), &json!(false)), "{key}");
        assert_eq!(mlx[key]["bits"], json!(4), "{key}");
    }
    // ModelOpt says it twice.
    let (out, config) = hybrid("fp8_tensor_modelopt");
    holds(&config["quantization_config"]["ignore"], &[Q, K, DOWN]);
    let beside = out.join("hf_quant_config.json");
    holds(&json_of(&beside)["quantization"]["exclude_modules"], &[Q, K, DOWN]);
}

#[test]
fn rule_25_experts_of_gpt_oss_are_skipped_by_their_layer() {
    let bench = Bench::new();
    let case = "mxfp4_gptoss";
    let out = bench.merge(&base(case), &[&adapter(case)], "--quantized hybrid");
    let skipped = json_of(&out.join("config.json"));
    let experts = "model.layers.0.mlp.experts";
    holds(&skipped["quantization_config"]["modules_to_not_convert"], &[experts]);
    assert!(read(&out).keys().all(|name| !name.ends_with("_blocks") && !name.ends_with("_scales")));
}

/// fp8 weights of these modules, each with a scale, and an adapter of one of them.
fn of_modules(bench: &Bench, modules: &[&str], touched: &str) -> (std::path::PathBuf, Peft) {
    let mut tensors = Tensors::new();
    for module in modules {
        tensors = tensors
            .raw(&format!("{module}.weight"), Dtype::F8_E4M3, &[2, 2], &[0x38, 0x40, 0x30, 0xb8])
            .f32(&format!("{module}.weight_scale"), &[1], &[0.5]);
    }
    let base = bench.path("base");
    tensors.save(&base.join("model.safetensors"));
    let config = json!({"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}});
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    (base, Peft::new(1, 1.0).linear(touched, 1, &[1.0; 2], &[1.0; 2]))
}

#[test]
fn rule_26_what_is_loaded_as_one_is_quantised_as_one() {
    let groups: [(&str, &[&str], &[&str]); 5] = [
        ("attn.q_proj", &["attn.k_proj", "attn.v_proj"], &["attn.o_proj"]),
        ("mlp.up_proj", &["mlp.gate_proj"], &["mlp.down_proj"]),
        ("attn.q_a_proj", &["attn.kv_a_proj_with_mqa"], &["attn.kv_b_proj"]),
        (
            "mlp.experts.1.up_proj",
            &["mlp.experts.0.down_proj", "mlp.experts.0.gate_proj", "mlp.experts.1.down_proj"],
            &["mlp.shared_experts.down_proj"],
        ),
        ("attn.o_proj", &[], &["attn.q_proj", "mlp.down_proj"]),
    ];
    for (touched, with, without) in groups {
        let bench = Bench::new();
        let name = |module: &&str| format!("model.layers.0.{module}");
        let modules: Vec<String> =
            std::iter::once(&touched).chain(with).chain(without).map(name).collect();
        let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
        let (base, peft) = of_modules(&bench, &modules, modules[0]);
        let out = bench.merge(&base, &[&peft.save(&bench.path("peft"))], "--quantized hybrid");
        let after = read(&out);
        let before = read(&base);
        for module in with.iter().map(name) {
            let plain = &after[&format!("{module}.weight")];
            // What only goes along keeps its numbers: codes 1, 2, 0.5, −1 times 0.5.
            assert_eq!(plain.dtype, Dtype::BF16, "{touched}: {module}");
            assert_eq!(plain.values(), [0.5, 1.0, 0.25, -0.5], "{touched}: {module}");
        }
        for module in without.iter().map(name) {
            for part in [format!("{module}.weight"), format!("{module}.weight_scale")] {
                assert_eq!(after[&part], before[&part], "{touched}: {part}");
            }
        }
        let changed = &after[&format!("{}.weight", modules[0])];
        assert_eq!(changed.values(), [1.5, 2.0, 1.25, 0.5], "{touched}");
    }
}

#[test]
fn rule_27_no_config_of_a_plain_result_speaks_of_quantisation() {
    let bench = Bench::new();
    let (base, peft) = of_modules(&bench, &["model.a"], "model.a");
    let fields = json!({"quant_method": "fp8"});
    let config = json!({
        "torch_dtype": "float16",
        "text_config": {"hidden_size": 2, "quantization_config": fields},
        "quantization": {"group_size": 64, "bits": 4},
        "compression_config": fields,
    });
    std::fs::write(base.join("config.json"), config.to_string()).expect("written");
    for name in ["hf_quant_config.json", "quantize_config.json"] {
        std::fs::write(base.join(name), "{}").expect("written");
    }
    let out = bench.merge(&base, &[&peft.save(&bench.path("peft"))], "");
    let config = json_of(&out.join("config.json"));
    assert_eq!(config["text_config"], json!({"hidden_size": 2}));
    for key in ["quantization", "compression_config", "quantization_config"] {
        assert!(config.get(key).is_none(), "{key}: {config}");
    }
    assert!(
        !out.join("hf_quant_config.json").exists() && !out.join("quantize_config.json").exists()
    );
    assert_eq!(read(&out)["model.a.weight"].dtype, Dtype::F16);
}

/// The case's adapter with zeros in the up factor of `down_proj`, and in the first rows of that of `q_proj`.
pub(super) fn half_trained(bench: &Bench, case: &str, rows: usize) -> std::path::PathBuf {
    let (from, to) = (adapter(case), bench.path(&format!("{case}-half")));
    let mut tensors = Tensors::new();
    for (name, mut tensor) in read(&from.join("adapter_model.safetensors")) {
        if name.ends_with("down_proj.lora_B.weight") {
            tensor.bytes.fill(0);
        } else if name.ends_with("q_proj.lora_B.weight") {
            let end = rows * tensor.shape[1] * 4;
            tensor.bytes[..end].fill(0);
        }
        tensors = tensors.raw(&name, tensor.dtype, &tensor.shape, &tensor.bytes);
    }
    tensors.save(&to.join("adapter_model.safetensors"));
    let config = std::fs::read(from.join("adapter_config.json")).expect("a config");
    std::fs::write(to.join("adapter_config.json"), config).expect("written");
    to
}

#[test]
fn rule_28_rows_that_nothing_changes_keep_their_codes_and_scales() {
    let bench = Bench::new();
    // Stored tensors with a row for every output, and what of q_proj an adapter leaves alone.
    let cases = [
        ("int4_sym_g32_ct", 64, &["weight_packed", "weight_scale"][..]),
        ("int8_channel_ct", 64, &["weight", "weight_scale"]),
        ("mlx_q4_g64", 64, &["weight", "scales", "biases"]),
        ("fp8_row_fbgemm", 64, &["weight", "weight_scale"]),
        ("fp8_block128_ragged", 128, &["weight", "weight_scale_inv"]),
    ];
    for (case, rows, parts) in cases {
        let before = read(&base(case));
        let options = "--quantized requantize --min-survival 0";
        let out = bench.merge(&base(case), &[&half_trained(&bench, case, rows)], options);
        let after = read(&out);
        for (name, tensor) in before.iter().filter(|(name, _)| name.starts_with(DOWN)) {
            assert!(&after[name] == tensor, "{case}: {name}");
        }
        for part in parts {
            let name = format!("{Q}.{part}");
            let (old, new) = (&before[&name], &after[&name]);
            // Rows of scales: one for each of the weight, or one for 128.
            let kept = if old.shape[0] < rows { 1 } else { rows };
            let bytes = old.bytes.len() / old.shape[0] * kept;
            assert!(old.bytes[..bytes] == new.bytes[..bytes], "{case}: {name}");
            assert!(old.bytes[bytes..] != new.bytes[bytes..], "{case}: {name} is as it was");
        }
        let verify = [("--base", base(case)), ("--adapter", bench.path(&format!("{case}-half")))];
        let mut tool = crate::common::lora_tool();
        tool.arg("verify").arg(&out).args(options.split_whitespace());
        for (option, path) in verify {
            tool.arg(option).arg(path);
        }
        assert_eq!(tool.output().expect("it runs").status.code(), Some(0), "{case}");
    }
    // Transposed codes: what no factor moves is not moved.
    for case in ["gptq_v1_sym", "awq_gemm"] {
        let before = read(&base(case));
        let options = "--quantized requantize --min-survival 0";
        let after = read(&bench.merge(&base(case), &[&half_trained(&bench, case, 0)], options));
        for part in ["qweight", "qzeros", "scales"] {
            let name = format!("{DOWN}.{part}");
            assert!(after[&name] == before[&name], "{case}: {name}");
        }
    }
}
