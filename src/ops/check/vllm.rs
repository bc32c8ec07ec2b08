//! vLLM (`vllm/lora/peft_helper.py`, `vllm/lora/utils.py`): one rank and alpha, factors only.

use super::{Rule, Severity, Target, biased, decomposed, modules, other_families, replaced};
use crate::adapter::Adapter;

pub(super) static TARGET: Target = Target {
    name: "vllm",
    reads: &["peft"],
    convert: "--for vllm",
    rules: &[
        Rule {
            severity: Severity::Changes,
            says: "it ignores rank_pattern and alpha_pattern, and scales these modules by r and lora_alpha",
            mends: true,
            finds: patterned,
        },
        Rule {
            severity: Severity::Breaks,
            says: "it refuses DoRA; converting with --allow-loss drops the magnitudes",
            mends: true,
            finds: decomposed,
        },
        Rule {
            severity: Severity::Breaks,
            says: "it refuses tensors that replace the base's (modules_to_save, biases); merge them instead",
            mends: false,
            finds: replaced,
        },
        Rule {
            severity: Severity::Breaks,
            says: "it refuses biases of B",
            mends: true,
            finds: biased,
        },
        Rule {
            severity: Severity::Breaks,
            says: "it loads LoRA only",
            mends: true,
            finds: other_families,
        },
    ],
};

/// Modules whose scale is another than the config's r and alpha say.
fn patterned(adapter: &Adapter) -> Vec<String> {
    let Some(config) = &adapter.config else { return Vec::new() };
    let field = |name: &str, default: f64| {
        config.document.get(name).and_then(serde_json::Value::as_f64).unwrap_or(default)
    };
    let rslora = config.document.get("use_rslora").and_then(serde_json::Value::as_bool);
    let (rank, alpha) = (field("r", 8.0), field("lora_alpha", 8.0));
    let scale = alpha / if rslora == Some(true) { rank.sqrt() } else { rank };
    modules(adapter, |module| {
        module.rank as f64 != rank || (module.scale.value - scale).abs() > scale.abs() * 1e-9
    })
}
