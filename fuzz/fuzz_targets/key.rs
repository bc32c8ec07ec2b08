//! Key grammars: no key is too odd to read, and what is read and spelled is read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lora_tool::adapter::convention::{CONVENTIONS, foreign_family};

fuzz_target!(|text: &str| {
    let _ = foreign_family(text);
    for convention in CONVENTIONS {
        let _ = (convention.recognises)(text);
        let Some(key) = (convention.parse)(text) else { continue };
        if let Some(spelled) = (convention.format)(&key) {
            assert_eq!((convention.parse)(&spelled), Some(key), "{} of {text:?}", convention.name);
        }
    }
});
