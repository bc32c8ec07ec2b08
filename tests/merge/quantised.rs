//! Merges into quantised bases made by the packages themselves (`fixtures/quant`): what nothing touches is the
//! package's own dequantisation bit for bit, what an adapter touches is that plus scale · B · A.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lora_tool::format::{Access, Dtype};
use lora_tool::weight;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::quant::merged;
pub(super) use crate::common::quant::{adapter, base};
use crate::common::{Bench, Peft, Read, Tensors, fixture, lora_tool, read};

/// llama.cpp's names of what the adapters change.
const GGUF: [(&str, &str); 6] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

fn merge(bench: &Bench, case: &str, options: &str) -> PathBuf {
    bench.merge(&base(case), &[&adapter(case)], options)
}

/// SHA-256 of each quantised weight's f32 bytes, by its name.
fn dequantised(case: &str) -> BTreeMap<String, String> {
    let text = std::fs::read(fixture("quant").join(case).join("dequantised.json")).expect("a file");
    let values: Value = serde_json::from_slice(&text).expect("JSON");
    let values = values.as_object().expect("an object").iter();
    values
        .map(|(name, value)| (name.clone(), value["sha256"].as_str().expect("a digest").to_owned()))
        .collect()
}

/// A tensor of this name, with or without `.weight`.
fn named<'a>(tensors: &'a BTreeMap<String, Read>, name: &str) -> (&'a String, &'a Read) {
    let weight = format!("{name}.weight");
    tensors.get_key_value(name).or_else(|| tensors.get_key_value(&weight)).expect(name)
}

/// The updates of a case's adapter, 2 · B · A, as outputs × inputs in the base's order of rows, by base tensor.
fn updates(case: &str, merged: &BTreeMap<String, Read>) -> BTreeMap<String, Vec<f64>> {
    let factors = read(&adapter(case).join("adapter_model.safetensors"));
    let downs = factors.iter().filter(|(name, _)| name.ends_with(".lora_A.weight"));
    let update = |(name, down): (&String, &Read)| {
        let up = &factors[&name.replace("lora_A", "lora_B")];
        let module =
            name.trim_end_matches(".lora_A.weight").trim_start_matches("base_model.model.");
        let (rows, rank, columns) = (up.shape[0], down.shape[0], down.shape[1]);
        let (a, b) = (down.values(), up.values());
        let mut values = vec![0.0; rows * columns];
        for (at, value) in values.iter_mut().enumerate() {
            let (row, column) = (at / columns, at % columns);
            let row =
                if case == "gguf_llama_q8q4" { transformers_row(module, row, rows) } else { row };
            *value = (0..rank).map(|k| 2.0 * b[row * rank + k] * a[k * columns + column]).sum();
        }
        let name = match module.strip_prefix("model.layers.0.").filter(|_| case.starts_with("gguf"))
        {
            Some(below) => {
                let found = GGUF.iter().find(|(own, _)| *own == below).expect("known");
                format!("blk.0.{}", found.1)
            }
            None => module.to_owned(),
        };
        (named(merged, &name).0.clone(), values)
    };
    downs.map(update).collect()
}

/// The row of a transformers' weight that llama.cpp has at `row`: `reshape(heads, 2, half).swapaxes(1, 2)`.
fn transformers_row(module: &str, row: usize, rows: usize) -> usize {
    let heads = match module.rsplit('.').next() {
        Some("q_proj") => 4,
        Some("k_proj") => 2,
        _ => return row,
    };
    let half = rows / heads / 2;
    let (head, within) = (row / (2 * half), row % (2 * half));
    head * 2 * half + (within % 2) * half + within / 2
}

#[test]
fn the_packages_own_numbers_plus_the_update() {
    let bench = Bench::new();
    for case in merged().filter(|case| *case != "mxfp4_gptoss") {
        let out = bench.merge(&base(case), &[&adapter(case)], "--dtype f32 --verify");
        let merged = read(&out);
        let before = weight::open(&base(case), Access::Map).expect(case);
        let updates = updates(case, &merged);
        assert!(updates.len() > 1, "{case}");
        let mut left = 0;
        for (name, sha) in dequantised(case) {
            let (name, tensor) = named(&merged, &name);
            assert_eq!(tensor.dtype, Dtype::F32, "{case}: {name}");
            let Some(update) = updates.get(name) else {
                assert_eq!(format!("{:x}", Sha256::digest(&tensor.bytes)), sha, "{case}: {name}");
                left += 1;
                continue;
            };
            let mut scratch = Vec::new();
            let view = before.tensor(name).expect(name);
            let old = Read {
                dtype: view.spec.dtype,
                shape: view.spec.shape.clone(),
                bytes: view.all(&mut scratch).expect("decodes").to_vec(),
            };
            for ((new, old), update) in tensor.values().iter().zip(old.values()).zip(update) {
                let expected = old + update;
                let off = (new - expected).abs();
                assert!(off <= 1e-7 + 2e-6 * expected.abs(), "{case}: {name}: {new}, {expected}");
            }
        }
        let counted = dequantised(case).len();
        assert!(left > 0 || updates.len() >= counted, "{case}: {left} of {counted} untouched");
    }
}

#[test]
fn stacks_of_mxfp4_experts_are_turned_as_their_parameter_is() {
    let bench = Bench::new();
    let out = merge(&bench, "mxfp4_gptoss", "--dtype f32 --verify");
    let (merged, hashes) = (read(&out), dequantised("mxfp4_gptoss"));
    assert!(!merged.keys().any(|name| name.ends_with("_blocks") || name.ends_with("_scales")));
    let before = weight::open(&base("mxfp4_gptoss"), Access::Map).expect("a base");
    for name in hashes.keys() {
        let (name, tensor) = named(&merged, name);
        let view = before.tensor(name).expect(name);
        assert_eq!((&tensor.shape, tensor.shape.len()), (&view.spec.shape, 3), "{name}");
    }
}

#[test]
fn what_is_written_is_a_plain_model() {
    let bench = Bench::new();
    for case in merged() {
        let base = base(case);
        let out = merge(&bench, case, "--threads 1");
        let merged = read(&out);
        let before = weight::open(&base, Access::Map).expect(case);
        let names: BTreeSet<_> = before.names().map(str::to_owned).collect();
        assert_eq!(merged.keys().cloned().collect::<BTreeSet<_>>(), names, "{case}");
        for (name, tensor) in &merged {
            let view = before.tensor(name).expect("named");
            let dtype = if view.is_computed() { wanted(&base) } else { view.spec.dtype };
            assert_eq!((tensor.dtype, &tensor.shape), (dtype, &view.spec.shape), "{case}: {name}");
        }
        if let Ok(config) = std::fs::read_to_string(out.join("config.json")) {
            assert!(!config.contains("quantization"), "{case}: {config}");
        }
        for name in ["quantize_config.json", "hf_quant_config.json"] {
            assert!(!out.join(name).exists(), "{case}: {name}");
        }
        // The same bytes whatever the threads, and verify knows what should be there.
        assert_eq!(read(&merge(&bench, case, "--threads 3")), merged, "{case}");
        let mut verify = lora_tool();
        verify.arg("verify").arg(&out).arg("--base").arg(&base).arg("--adapter").arg(adapter(case));
        let said = verify.output().expect("it runs");
        assert!(said.status.success(), "{case}: {}", String::from_utf8_lossy(&said.stdout));
    }
}

/// The dtype that a base's config names for its weights, if it is one of numbers.
fn wanted(base: &Path) -> Dtype {
    let config = std::fs::read_to_string(base.join("config.json")).unwrap_or_default();
    if config.contains("\"float16\"") { Dtype::F16 } else { Dtype::BF16 }
}

#[test]
fn the_report_says_from_what_and_how_much_larger() {
    let bench = Bench::new();
    let (_, done) = bench.run(&base("fp8_tensor_ct"), &[&adapter("fp8_tensor_ct")], "--json");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let found = &report["dequantised"];
    assert_eq!(found["encodings"], serde_json::json!(["fp8_scaled, F8_E4M3, one scale"]));
    assert_eq!((&found["weights"], &found["dtypes"]), (&3.into(), &serde_json::json!(["BF16"])));
    let bytes = |key: &str| found[key].as_u64().expect(key);
    assert!(bytes("written_bytes") > bytes("stored_bytes"), "{found}");
    let (_, done) = bench.run(&base("fp8_tensor_ct"), &[&adapter("fp8_tensor_ct")], "");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("3 weights (fp8_scaled, F8_E4M3, one scale) to BF16"), "{text}");
    assert!(text.contains("2.0 times as much"), "{text}");
}

/// A module of a base that is not quantised, beside one that is.
fn mixed(bench: &Bench) -> (PathBuf, PathBuf) {
    let codes: Vec<u8> = (0..12).collect();
    let base = Tensors::new()
        .raw("a.weight", Dtype::F8_E4M3, &[4, 3], &codes)
        .f32("a.weight_scale", &[1], &[0.3])
        .f32("b.weight", &[4, 3], &[0.5; 12])
        .save(&bench.path("mixed.safetensors"));
    let peft = Peft::new(1, 1.0).linear("b", 1, &[1.0; 3], &[1.0; 4]);
    (base, peft.save(&bench.path("beside")))
}

#[test]
fn what_no_adapter_touches_keeps_its_codes_whatever_the_mode() {
    let bench = Bench::new();
    let (base, beside) = mixed(&bench);
    let before = read(&base);
    for options in ["", "--quantized refuse", "--dtype bf16"] {
        let merged = read(&bench.merge(&base, &[&beside], options));
        for name in ["a.weight", "a.weight_scale"] {
            assert_eq!(merged[name], before[name], "{options}: {name}");
        }
        assert_ne!(merged["b.weight"], before["b.weight"], "{options}");
    }
    // A receipt of it gives the base back.
    let receipt = bench.path("receipt");
    let out = bench.merge(&base, &[&beside], &format!("--receipt {}", receipt.display()));
    let mut undo = lora_tool();
    let back = bench.path("back.safetensors");
    undo.arg("undo").arg(&out).arg("--receipt").arg(&receipt).arg("-o").arg(&back);
    let done = undo.output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(std::fs::read(back).expect("a file"), std::fs::read(base).expect("a file"));
}

#[test]
fn other_verbs_read_the_same_numbers() {
    let bench = Bench::new();
    for case in ["fp8_block128_ragged", "gptq_v1_sym", "bnb_nf4_nested"] {
        let (base, adapter) = (base(case), adapter(case));
        let out = merge(&bench, case, "--dtype f32");
        let back = bench.path(&format!("{case}-extracted"));
        let run = |words: &[&std::ffi::OsStr]| {
            let done = lora_tool().args(words).output().expect("it runs");
            let said = String::from_utf8_lossy(&done.stdout).into_owned()
                + &String::from_utf8_lossy(&done.stderr);
            (done.status.code(), said)
        };
        let word = |text: &'static str| std::ffi::OsStr::new(text);
        let (base, adapter, out) = (base.as_os_str(), adapter.as_os_str(), out.as_os_str());
        let (code, said) = run(&[
            word("extract"),
            base,
            out,
            word("-o"),
            back.as_os_str(),
            word("--rank"),
            word("4"),
        ]);
        assert_eq!(code, Some(0), "{case}: {said}");
        let factors = read(&back.join("adapter_model.safetensors"));
        let asked = read(&Path::new(adapter).join("adapter_model.safetensors"));
        assert_eq!(factors.len(), asked.len(), "{case}: {:?}", factors.keys());
        let (code, said) = run(&[word("diff"), base, out]);
        assert_eq!(code, Some(1), "{case}: {said}");
        let (code, said) = run(&[word("diff"), base, base]);
        assert_eq!(code, Some(0), "{case}: {said}");
        let (code, said) = run(&[word("inspect"), adapter, word("--against"), base]);
        assert!(code == Some(0) && !said.contains("unmatched"), "{case}: {said}");
    }
}

/// What a merge says that is refused, and leaves nothing.
fn refused(bench: &Bench, base: &Path, adapter: &Peft) -> String {
    let adapter = adapter.save(&bench.path("refused"));
    let (out, done) = bench.run(base, &[&adapter], "");
    assert_eq!(done.status.code(), Some(2), "{}", base.display());
    assert!(!out.exists(), "{}", base.display());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// A GGUF base that says that it is of another architecture, of a name as long.
fn renamed(bench: &Bench, case: &str, architecture: [u8; 5]) -> PathBuf {
    let mut bytes = std::fs::read(base(case)).expect("a file");
    let at = bytes.windows(5).position(|five| five == b"llama").expect("its architecture");
    bytes[at..at + 5].copy_from_slice(&architecture);
    let path = bench.path("renamed.gguf");
    std::fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn names_and_rows_of_gguf() {
    let bench = Bench::new();
    let case = "gguf_llama_q8q4";
    let before = weight::open(&base(case), Access::Map).expect(case);
    let view = before.tensor("blk.0.attn_q.weight").expect("a tensor");
    let mut scratch = Vec::new();
    let bytes = view.all(&mut scratch).expect("decodes").to_vec();
    let old = Read { dtype: view.spec.dtype, shape: view.spec.shape.clone(), bytes };
    // Row r gets r / 8: exact, and other in every row.
    let up: Vec<f32> = (0..96_u8).map(|row| f32::from(row) / 8.0).collect();
    let linear = |name: &str| Peft::new(1, 1.0).linear(name, 1, &[1.0; 128], &up);
    for (at, name) in ["blk.0.attn_q", "model.layers.0.self_attn.q_proj"].into_iter().enumerate() {
        let adapter = linear(name).save(&bench.path(name));
        let merged = read(&bench.merge(&base(case), &[&adapter], "--dtype f32"));
        let new = merged["blk.0.attn_q.weight"].values();
        for (place, (new, old)) in new.iter().zip(old.values()).enumerate() {
            let row = match at {
                // The file's own names are for the file's own order.
                0 => place / 128,
                _ => transformers_row("q_proj", place / 128, 96),
            };
            let expected = old + f64::from(up[row]);
            assert!((new - expected).abs() < 1e-5, "{name}: {place}: {new}, {expected}");
        }
    }
    let q = "model.layers.0.self_attn.q_proj";
    let magnitude = format!("{q}.lora_magnitude_vector");
    let dora = linear(q).field("use_dora", true).tensor(&magnitude, &[96], &[1.0; 96]);
    let said = refused(&bench, &base(case), &dora);
    assert!(said.contains("llama.cpp reorders the rows"), "{said}");
    let said = refused(&bench, &renamed(&bench, case, *b"bloom"), &linear(q));
    assert!(said.contains("a GGUF file of the architecture `bloom`"), "{said}");
}
