//! mlx-lm (`tuner/utils.py`): a directory of its own, one scale.

use super::{Rule, Severity, Target, biased, other_families, replaced};

pub(super) static TARGET: Target = Target {
    name: "mlx",
    reads: &["mlx"],
    convert: "--for mlx",
    rules: &[
        Rule {
            severity: Severity::Breaks,
            says: "it knows LoRA and DoRA only; converting makes factors where that is exact",
            mends: true,
            finds: other_families,
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
    ],
};
