//! GGUF files of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lora_tool::format::{Access, Source, gguf};

fuzz_target!(|data: &[u8]| {
    let path = format!("/dev/shm/lora-tool-fuzz-{}.gguf", std::process::id());
    std::fs::write(&path, data).expect("a file in memory");
    let source = Source::open(path.as_ref(), Access::Read).expect("it is there");
    if gguf::is_gguf(&source)
        && let Ok(read) = gguf::read(&source, |_| Ok(()))
    {
        for (name, dtype, shape, bytes) in &read.tensors {
            let elements: usize = shape.iter().product();
            assert_eq!(bytes.len(), elements * dtype.bitsize() / 8, "{name}");
        }
    }
});
