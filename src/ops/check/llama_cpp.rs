//! llama.cpp (`src/llama-adapter.cpp`): a GGUF file of plain factors.

use super::{Rule, Severity, Target, biased, decomposed, other_families, replaced};

pub(super) static TARGET: Target = Target {
    name: "llama.cpp",
    reads: &["gguf"],
    convert: "--for llama.cpp --reference BASE",
    rules: &[
        Rule {
            severity: Severity::Changes,
            says: "it has no DoRA; converting with --allow-loss drops the magnitudes",
            mends: true,
            finds: decomposed,
        },
        Rule {
            severity: Severity::Changes,
            says: "it has no place for tensors that replace the base's; merge them instead",
            mends: false,
            finds: replaced,
        },
        Rule {
            severity: Severity::Changes,
            says: "it has no biases of B",
            mends: true,
            finds: biased,
        },
        Rule {
            severity: Severity::Breaks,
            says: "it knows plain factors only; converting makes them where that is exact",
            mends: true,
            finds: other_families,
        },
    ],
};
