//! PEFT's adapter_config.json: any bytes, and questions to what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lora_tool::adapter::sidecar::PeftConfig;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = PeftConfig::parse(data, &[], false) {
        for module in ["model.layers.0.self_attn.q_proj", "", "q_proj\n"] {
            assert!(config.rank_of(module).is_none_or(|rank| rank > 0));
            assert!(config.alpha_of(module).is_none_or(f64::is_finite));
        }
        let _ = config.base_model();
    }
});
