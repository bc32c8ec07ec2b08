//! What a merge leaves behind and says: bytes that pass through, side files, plans, reports, and
//! `verify`'s judgement of them.
#![allow(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};

use crate::common::{Bench, Tensors, fixture, lora_tool, read};
use lora_tool::format::{Access, Dtype, Header, Metadata, Shard};
use serde_json::Value;

/// A base of every dtype, in no alphabetical order, and the file of an adapter for `m.weight`.
fn every_dtype() -> (Tensors, Tensors) {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut base = Tensors::new()
        .raw("z.flags", Dtype::BOOL, &[3], &[1, 0, 1])
        .raw("y.codes", Dtype::U8, &[5], &bytes[250..255])
        .raw("x.steps", Dtype::I64, &[], &bytes[..8])
        .raw("w.e4m3", Dtype::F8_E4M3, &[2, 4], &bytes[120..128])
        .raw("v.e5m2", Dtype::F8_E5M2, &[3], &bytes[124..127])
        .float("m.weight", Dtype::BF16, &[5, 7], &[0.5; 35])
        .raw("empty", Dtype::F32, &[0, 4], &[])
        // Not a number, which only a tensor that is left alone may hold.
        .raw("u.scalar", Dtype::F32, &[], &[255, 255, 255, 127])
        .raw("t.words", Dtype::I32, &[2], &bytes[30..38])
        .raw("s.shorts", Dtype::I16, &[1], &bytes[3..5])
        .raw("r.double", Dtype::F64, &[1], &bytes[60..68]);
    let metadata = [("zebra", "1 \"quoted\" \u{2713}"), ("format", "pt"), ("a", "")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    base.metadata = Some(Metadata::from_iter(metadata));
    let adapter = Tensors::new().f32("m.lora_down.weight", &[1, 7], &[1.0; 7]).f32(
        "m.lora_up.weight",
        &[5, 1],
        &[0.25; 5],
    );
    (base, adapter)
}

fn header(file: &Path) -> Header {
    Shard::open(file, String::new(), Access::Read).expect("a weight file").header
}

/// Where a tensor's bytes lie in its file.
fn range(file: &Path, tensor: &str) -> std::ops::Range<usize> {
    let header = header(file);
    let spec = header.tensors.iter().find(|spec| spec.name == tensor).expect("there");
    (header.data_start + spec.start) as usize..(header.data_start + spec.end) as usize
}

/// The same file with `extra` more spaces after its header.
fn lengthen_header(file: &[u8], extra: usize) -> Vec<u8> {
    let length = u64::from_le_bytes(*file.first_chunk().expect("a header")) as usize;
    let mut longer = ((length + extra) as u64).to_le_bytes().to_vec();
    longer.extend_from_slice(&file[8..8 + length]);
    longer.resize(8 + length + extra, b' ');
    longer.extend_from_slice(&file[8 + length..]);
    longer
}

#[test]
fn all_bytes_but_the_merged_tensors_pass_through() {
    let (mut base, adapter) = every_dtype();
    for metadata in [base.metadata.clone(), None] {
        base.metadata = metadata;
        // Headers of odd length leave every tensor unaligned.
        for extra in [0, 1, 3, 8] {
            let bench = Bench::new();
            let (input, factors) = (bench.path("base"), bench.path("lora"));
            let before = lengthen_header(&base.bytes(), extra);
            std::fs::write(&input, &before).expect("written");
            std::fs::write(&factors, lengthen_header(&adapter.bytes(), extra)).expect("written");
            for options in ["", "--no-mmap"] {
                let out = bench.path(&format!("merged{options}.safetensors"));
                let options = format!("{options} --no-provenance -o {}", out.display());
                bench.merge(&input, &[&factors], &options);
                let mut after = std::fs::read(&out).expect("written");
                let values = read(&out)["m.weight"].values();
                assert_eq!(values, [0.75; 35], "{extra} more bytes");
                let merged = range(&input, "m.weight");
                after[merged.clone()].copy_from_slice(&before[merged]);
                assert!(after == before, "a byte beside the merged tensor changed");
            }
        }
    }
}

#[test]
fn a_rewritten_header_keeps_order_metadata_and_other_dtypes() {
    let (mut base, adapter) = every_dtype();
    let bench = Bench::new();
    base.entries.retain(|(name, ..)| name != "u.scalar");
    let base = base.save(&bench.path("model.safetensors"));
    let adapter = adapter.save(&bench.path("lora.safetensors"));
    let out = bench.merge(&base, &[&adapter], "--dtype f32 --no-provenance");
    let out = out.join("model.safetensors");
    let (before, after) = (read(&base), read(&out));
    for (name, tensor) in &after {
        match before[name].dtype {
            Dtype::BF16 | Dtype::F64 | Dtype::F32 => assert_eq!(tensor.dtype, Dtype::F32, "{name}"),
            _ => assert_eq!(tensor, &before[name], "{name}"),
        }
    }
    let (before, after) = (header(&base), header(&out));
    let names = before.tensors.iter().map(|spec| &spec.name);
    assert!(names.eq(after.tensors.iter().map(|spec| &spec.name)));
    // As text: maps are equal whatever their order.
    assert_eq!(format!("{:?}", after.metadata), format!("{:?}", before.metadata));
}

#[test]
fn side_files_come_along_and_weights_of_other_formats_do_not() {
    let bench = Bench::new();
    let base = bench.path("base");
    let (tensors, adapter) = every_dtype();
    tensors.save(&base.join("model.safetensors"));
    let adapter = adapter.save(&bench.path("lora.safetensors"));
    let copied = "1_Pooling/config.json README.md chat_template.jinja config.json merges.txt \
                  generation_config.json tokenizer.json tokenizer.model tokenizer_config.json";
    let left = ".gitattributes consolidated.pth flax_model.msgpack model.ckpt model.gguf model.onnx \
                onnx/model.onnx optimizer.pt pytorch_model.bin pytorch_model.bin.index.json \
                tf_model.h5 other.safetensors";
    let (copied, left) = (copied.split(' '), left.split(' '));
    for name in copied.clone().chain(left.clone()) {
        let path = base.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, format!("{{\"name\": \"{name}\"}}\n")).expect("written");
    }
    let out = bench.merge(&base, &[&adapter], "--max-shard-size 60");
    for name in copied {
        let [before, after] = [&base, &out].map(|path| std::fs::read(path.join(name)).ok());
        assert_eq!(after, before, "{name}");
    }
    for name in left {
        assert!(!out.join(name).exists(), "{name}");
    }
    assert!(!out.join("model.safetensors").exists());
    assert!(out.join("model.safetensors.index.json").exists());
}

fn run(command: &mut assert_cmd::Command, code: i32) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let result = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{result}{said}");
    result
}

fn json(command: &mut assert_cmd::Command, code: i32) -> Value {
    serde_json::from_str(&run(command.arg("--json"), code)).expect("one JSON object")
}

/// `lora-tool merge` of the Llama fixture and two adapters.
fn llama(out: &Path) -> assert_cmd::Command {
    let mut command = lora_tool();
    let [base, style, task] = ["base", "style", "task"].map(|name| fixture("llama").join(name));
    command.arg("merge").arg(base).arg(style).arg(task).args(["-w", "1", "-0.5", "-o"]).arg(out);
    command
}

/// The sorted keys of an object.
fn keys(value: &Value) -> String {
    let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    keys.join(" ")
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let bench = Bench::new();
    let out = bench.path("out");
    let text = run(llama(&out).arg("--dry-run"), 0);
    assert!(text.contains("14/14 modules") && text.contains("6/6 modules"), "{text}");
    assert!(text.contains("14 changed, 7 copied"), "{text}");
    let plan = json(llama(&out).arg("--dry-run"), 0);
    assert_eq!((&plan["tool"], &plan["command"]), (&"lora-tool".into(), &"merge".into()));
    assert_eq!((&plan["dry_run"], &plan["shards"]), (&true.into(), &2.into()));
    let files = plan["files"].as_array().expect("files");
    let tensors = files.iter().map(|file| file["tensors"].clone());
    assert_eq!(tensors.collect::<Vec<_>>(), [10, 11]);
    assert_eq!(plan["warnings"], Value::Array(Vec::new()));
    assert_eq!(std::fs::read_dir(bench.path("")).expect("a directory").count(), 0);
    // What the plan says is what the run does.
    assert_eq!(json(&mut llama(&out), 0)["bytes"], plan["bytes"]);
}

#[test]
fn a_report_says_what_was_done() {
    let bench = Bench::new();
    let report = json(llama(&bench.path("out")).arg("--verify"), 0);
    let fields = "adapters base bytes command dequantised dry_run effective files modules modules_applied not_carried \
                  output receipt_bytes requantised shards shards_reused side_files survival tensors tensors_changed tensors_converted \
                  tensors_copied tool unmatched verification version warnings";
    assert_eq!(keys(&report), fields);
    let adapter = "applied convention left_out path total weight";
    assert_eq!(keys(&report["adapters"][1]), adapter);
    assert_eq!(report["adapters"][1]["weight"], -0.5);
    assert_eq!((&report["modules"], &report["modules_applied"]), (&20.into(), &20.into()));
    assert_eq!(report["tensors_changed"], 14);
    assert_eq!(report["tensors_copied"], 7);
    assert_eq!(report["tensors"].as_array().map(Vec::len), Some(14));
    assert_eq!(report["verification"]["ok"], true);
    assert_eq!(report["verification"]["copied"], 7);
    assert_eq!(report["verification"]["recomputed"], 14);
    assert_eq!(keys(&report["effective"]), "cosine norm_ratio unchanged untouched");
    let effective = |field: &str| report["effective"][field].as_f64().expect("a number");
    assert!((0.999..=1.0).contains(&effective("cosine")));
    assert!((0.99..1.01).contains(&effective("norm_ratio")));
    assert!((0.0..0.1).contains(&effective("unchanged")));
}

#[test]
fn an_update_that_rounding_swallows_is_warned_of() {
    let bench = Bench::new();
    let base = Tensors::new().float("m.weight", Dtype::BF16, &[5, 7], &[0.5; 35]);
    let base = base.save(&bench.path("base.safetensors"));
    let adapter = every_dtype().1.save(&bench.path("lora.safetensors"));
    let (_, done) = bench.run(&base, &[&adapter], "-w 0.001 --json");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("warning:") && said.contains("rounding"), "{said}");
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["effective"]["unchanged"], 1.0);
    assert_eq!(report["effective"]["cosine"], 0.0);
    assert_eq!(report["warnings"].as_array().map(Vec::len), Some(1));
}

/// A merged file, and what `verify` is to be asked about it.
struct Judged {
    bench: Bench,
    base: PathBuf,
    adapter: PathBuf,
    merged: PathBuf,
}

impl Judged {
    fn new() -> Self {
        let (base, adapter) = every_dtype();
        let bench = Bench::new();
        let base = base.save(&bench.path("base.safetensors"));
        let adapter = adapter.save(&bench.path("lora.safetensors"));
        let merged = bench.path("merged.safetensors");
        bench.merge(&base, &[&adapter], &format!("-o {}", merged.display()));
        Self { bench, base, adapter, merged }
    }

    /// Asks `verify` about some bytes; the names of the tensors it complains of.
    fn faults(&self, bytes: &[u8]) -> Vec<String> {
        let file = self.bench.path("judged.safetensors");
        std::fs::write(&file, bytes).expect("written");
        let mut command = lora_tool();
        command.arg("verify").arg(&file).arg("--base").arg(&self.base);
        command.arg("--adapter").arg(&self.adapter).arg("--json");
        let output = command.output().expect("it runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let faults = report["faults"].as_array().expect("faults");
        let place =
            |fault: &Value| fault["tensor"].as_str().or(fault["file"].as_str()).map(str::to_owned);
        let faults: Vec<_> = faults.iter().filter_map(place).collect();
        assert_eq!(report["ok"], faults.is_empty());
        assert_eq!(report["fault_count"], faults.len());
        assert_eq!(output.status.code(), Some(i32::from(!faults.is_empty())));
        faults
    }

    /// The merged file built anew, with its tensors changed.
    fn rebuilt(&self, change: impl FnOnce(&mut Tensors)) -> Vec<u8> {
        let mut tensors = Tensors::new();
        for (name, tensor) in read(&self.merged) {
            tensors = tensors.raw(&name, tensor.dtype, &tensor.shape, &tensor.bytes);
        }
        change(&mut tensors);
        tensors.bytes()
    }
}

#[test]
fn verify_finds_every_fault() {
    let judged = Judged::new();
    let merged = std::fs::read(&judged.merged).expect("written");
    assert_eq!(judged.faults(&merged), [""; 0]);
    let header = judged.faults(&judged.rebuilt(|_| ()));
    assert_eq!(header, ["judged.safetensors"], "another order, other metadata");
    for tensor in ["m.weight", "z.flags", "x.steps", "w.e4m3", "u.scalar", "r.double"] {
        let range = range(&judged.merged, tensor);
        for at in [range.start, range.end - 1] {
            let mut bytes = merged.clone();
            bytes[at] ^= 1;
            assert_eq!(judged.faults(&bytes), [tensor], "byte {at}");
        }
    }
    let missing = judged.rebuilt(|tensors| tensors.entries.retain(|(name, ..)| name != "y.codes"));
    assert_eq!(judged.faults(&missing), ["y.codes"]);
    let extra = judged.rebuilt(|tensors| {
        *tensors = std::mem::take(tensors).f32("more", &[1], &[0.0]);
    });
    assert_eq!(judged.faults(&extra), ["more"]);
    let reshaped = judged.rebuilt(|tensors| {
        for (_, _, shape, _) in tensors.entries.iter_mut().filter(|(name, ..)| name == "m.weight") {
            shape.reverse();
        }
    });
    assert_eq!(judged.faults(&reshaped), ["m.weight"]);
    let base = std::fs::read(&judged.base).expect("there");
    assert_eq!(judged.faults(&base), ["m.weight"], "the base itself is not merged");
}

#[test]
fn verify_answers_by_its_exit_code() {
    let bench = Bench::new();
    let out = bench.path("out");
    run(&mut llama(&out), 0);
    let verify = |weights: &str| {
        let [base, style, task] = ["base", "style", "task"].map(|name| fixture("llama").join(name));
        let mut command = lora_tool();
        command.arg("verify").arg(&out).arg("--base").arg(base).arg("--adapter");
        command.arg(style).arg(task).args(["-w", weights]);
        command
    };
    assert!(run(&mut verify("1,-0.5"), 0).contains("verified"));
    assert!(run(&mut verify("1,-0.4"), 1).contains("NOT"));
    assert_eq!(json(&mut verify("1,0"), 1)["ok"], false);
    std::fs::remove_file(out.join("model-00002-of-00002.safetensors")).expect("removed");
    assert_eq!(run(&mut verify("1,-0.5"), 2), "", "a broken checkpoint is no answer");
}
