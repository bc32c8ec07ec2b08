//! What every verb makes of every family, on adapters that PEFT wrote (`fixtures/golden`): the right value, or a
//! refusal that says what to do.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::common::{fixture, lora_tool, read};

/// What a family's updates are made of.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    /// Factors, in the file.
    Factors,
    /// Factors or a matrix, whose size only the base tells.
    Sizes,
    /// As many values as the weight.
    Matrix,
    /// The base's own weights.
    Base,
    /// Tensors that replace the base's.
    Replaced,
}

const FAMILIES: [(&str, &str, Has); 29] = [
    ("lora", "merge_lora_f32", Has::Factors),
    ("lora", "merge_rslora", Has::Factors),
    ("lora", "merge_rank_alpha_pattern", Has::Factors),
    ("bdlora", "merge_bdlora", Has::Factors),
    ("dora", "merge_dora", Has::Base),
    ("adalora", "merge_adalora", Has::Factors),
    ("loha", "merge_loha", Has::Factors),
    ("lokr", "merge_lokr", Has::Factors),
    ("delora", "merge_delora", Has::Factors),
    ("gralora", "merge_gralora", Has::Factors),
    ("vblora", "merge_vblora", Has::Factors),
    ("tinylora", "merge_tinylora", Has::Factors),
    ("unilora", "merge_unilora", Has::Factors),
    ("pvera", "merge_pvera", Has::Sizes),
    ("vera", "merge_vera", Has::Sizes),
    ("randlora", "merge_randlora", Has::Sizes),
    ("miss", "merge_miss", Has::Sizes),
    ("fourierft", "merge_fourierft", Has::Sizes),
    ("c3a", "merge_c3a", Has::Matrix),
    ("shira", "merge_shira", Has::Matrix),
    ("waveft", "merge_waveft", Has::Matrix),
    ("oft", "merge_oft", Has::Base),
    ("boft", "merge_boft", Has::Base),
    ("hra", "merge_hra", Has::Base),
    ("ia3", "merge_ia3", Has::Base),
    ("road", "merge_road_1", Has::Base),
    ("deft", "merge_deft", Has::Base),
    ("glora", "merge_glora", Has::Base),
    ("", "merge_trainable_tokens", Has::Replaced),
];

/// A family's adapter, its base, and a place for outputs.
struct Cell {
    base: PathBuf,
    adapter: PathBuf,
    scratch: tempfile::TempDir,
}

impl Cell {
    fn run(&self, verb: &str, words: &[&str]) -> Output {
        let place = |word: &&str| match *word {
            "ADAPTER" => self.adapter.clone(),
            "BASE" => self.base.clone(),
            out if out.starts_with("OUT") => self.scratch.path().join(out),
            other => PathBuf::from(other),
        };
        lora_tool().arg(verb).args(words.iter().map(place)).output().expect("it runs")
    }

    /// What a merge of an adapter adds to the base.
    fn update(&self, adapter: &Path) -> Vec<f64> {
        let out = self.scratch.path().join("merged");
        let mut merge = lora_tool();
        merge.arg("merge").arg(&self.base).arg(adapter).args(["--force", "-o"]).arg(&out);
        merge.assert().success();
        let (before, after) = (read(&self.base), read(&out));
        let each = after.iter().flat_map(|(name, tensor)| {
            tensor.values().into_iter().zip(before[name].values()).map(|(a, b)| a - b)
        });
        each.collect()
    }
}

/// ‖a − b‖ / ‖a‖.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm: f64 = a.iter().map(|a| a * a).sum();
    let off: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (off / norm).sqrt()
}

#[test]
fn every_verb_takes_every_family_or_says_what_to_do() {
    for (family, golden, has) in FAMILIES {
        let at = fixture("golden").join(golden).join("input");
        let adapter =
            if at.join("adapter").is_dir() { at.join("adapter") } else { at.join("lora") };
        let scratch = tempfile::tempdir().expect("a directory");
        let cell = Cell { base: at.join("base"), adapter, scratch };
        let update = cell.update(&cell.adapter);
        let text = |done: &Output| String::from_utf8_lossy(&done.stderr).into_owned();
        let json = |done: &Output| -> Value {
            serde_json::from_slice(&done.stdout)
                .unwrap_or_else(|_| panic!("{golden}: {}", text(done)))
        };
        let same = |out: &str, limit: f64| {
            let off = apart(&update, &cell.update(&cell.scratch.path().join(out)));
            assert!(off <= limit, "{golden} {out}: {off}");
        };
        // A verb that wants factors: it writes the same update, or names the way to it.
        let factors = |verb: &str, words: &[&str], out: &str| {
            let done = cell.run(verb, words);
            match has {
                Has::Factors => {
                    assert!(done.status.success(), "{golden} {verb}: {}", text(&done));
                    if !out.is_empty() {
                        same(out, 1e-5);
                    }
                }
                Has::Replaced => {
                    assert!(text(&done).contains("merge it"), "{golden}: {}", text(&done));
                }
                _ => {
                    assert_eq!(done.status.code(), Some(2), "{golden} {verb}");
                    assert!(
                        text(&done).contains("convert ADAPTER --as lora"),
                        "{golden} {verb}: {}",
                        text(&done)
                    );
                }
            }
        };
        let shown = json(&cell.run("inspect", &["--json", "ADAPTER"]));
        if has != Has::Replaced {
            assert_eq!(shown["items"][0]["modules"][0]["family"], family, "{golden}");
        }
        let peft =
            json(&cell.run("check", &["ADAPTER", "--for", "peft", "--against", "BASE", "--json"]));
        assert_eq!(peft["programs"][0]["verdict"], "loads", "{golden}: {peft}");
        assert!(cell.run("list", &["ADAPTER"]).status.success(), "{golden}");
        assert_eq!(cell.run("diff", &["ADAPTER", "ADAPTER"]).status.code(), Some(0), "{golden}");
        let done = cell.run("convert", &["ADAPTER", "--to", "peft", "-o", "OUT-peft"]);
        assert!(done.status.success(), "{golden}: {}", text(&done));
        same("OUT-peft", 1e-6);
        let as_lora = [
            "ADAPTER",
            "--as",
            "lora",
            "--rank",
            "lossless",
            "--reference",
            "BASE",
            "-o",
            "OUT-lora",
        ];
        let done = cell.run("convert", &as_lora);
        if has == Has::Replaced {
            assert!(text(&done).contains("merge it"), "{golden}: {}", text(&done));
        } else {
            assert!(done.status.success(), "{golden}: {}", text(&done));
            same("OUT-lora", 1e-5);
        }
        factors("resize", &["ADAPTER", "--rank", "lossless", "-o", "OUT-resized"], "OUT-resized");
        let halves = ["ADAPTER", "ADAPTER", "-w", "0.5", "0.5", "-o", "OUT-combined"];
        factors("combine", &halves, "OUT-combined");
        if has != Has::Replaced {
            factors("compare", &["ADAPTER", "ADAPTER"], "");
        }
    }
}
