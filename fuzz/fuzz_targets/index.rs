//! Checkpoint indexes: any bytes; what is read is written and read back.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use lora_tool::format::index::Index;

fuzz_target!(|data: &[u8]| {
    let name = "model.safetensors.index.json".to_owned();
    if let Ok(index) = Index::parse(data, name.clone()) {
        for shard in index.weight_map.values() {
            let parts: Vec<_> = Path::new(shard).components().collect();
            assert!(!parts.is_empty());
            assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{shard:?}");
        }
        let again = Index::rewrite(Some(&index), &index.weight_map, 1, 1);
        let again = Index::parse(&again, name).expect("what we write we read");
        assert_eq!(again.weight_map, index.weight_map);
    }
});
