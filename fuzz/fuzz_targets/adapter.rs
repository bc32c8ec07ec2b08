//! A whole adapter file: opened, checked, inspected with its spectrum.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use lora_tool::adapter::{Adapter, OpenOptions};
use lora_tool::format::Access;
use lora_tool::ops::inspect;

fuzz_target!(|data: &[u8]| {
    let path = PathBuf::from(format!("/dev/shm/lora-tool-fuzz-{}.safetensors", std::process::id()));
    std::fs::write(&path, data).expect("a file in memory");
    let open = OpenOptions { access: Access::Read, ..OpenOptions::default() };
    if let Ok(mut adapter) = Adapter::open(&path, &open) {
        let _ = adapter.check_finite();
        let _ = adapter.sound();
    }
    let options = inspect::Options { paths: vec![path], spectrum: true, open, ..Default::default() };
    let _ = inspect::run(&options);
});
