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
            finds: decomposed,
        },
        Rule {
            severity: Severity::Changes,
            says: "it has no place for tensors that replace the base's; merge them instead",
            finds: replaced,
        },
        Rule { severity: Severity::Changes, says: "it has no biases of B", finds: biased },
        Rule {
            severity: Severity::Breaks,
            says: "it knows plain factors only; converting makes them where that is exact",
            finds: other_families,
        },
    ],
};
