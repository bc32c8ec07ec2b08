//! What users type and names that are shown: rank policies, amounts, block weights, escaping.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lora_tool::error::{harmless, one_line};
use lora_tool::math::rank::policy::RankPolicy;
use lora_tool::ops::amount;

fuzz_target!(|text: &str| {
    if let Ok(policy) = text.parse::<RankPolicy>() {
        let again = policy.to_string().parse::<RankPolicy>();
        assert!(again.is_ok(), "{text:?} as {policy}");
    }
    for whole in [false, true] {
        let _ = amount(text, whole);
    }
    let safe = one_line(text);
    assert!(!safe.chars().any(char::is_control));
    assert_eq!(one_line(&safe), safe);
    assert!(harmless(text).chars().all(|c| c == '\n' || !c.is_control()));
});
