//! Our reader of headers against the safetensors crate's: what we take it takes too, and sees the same
//! tensors; what only we refuse has a name twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lora_tool::format::Header;
use lora_tool::format::header::{encode, header_length};
use safetensors::SafeTensors;

fuzz_target!(|data: &[u8]| {
    // The input is JSON and, after the last newline, the tensors' bytes.
    let cut = data.iter().rposition(|byte| *byte == b'\n').unwrap_or(data.len());
    let (json, rest) = data.split_at(cut);
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json);
    file.extend_from_slice(rest);
    let mut first = [0; 8];
    first.copy_from_slice(data.get(..8).unwrap_or(&[0; 8]));
    let _ = header_length(first, data.len() as u64);
    let theirs = SafeTensors::read_metadata(&file)
        .and_then(|(_, metadata)| SafeTensors::deserialize(&file).map(|_| metadata));
    match (Header::parse(json, file.len() as u64), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.tensors.len(), theirs.tensors().len());
            for tensor in &ours.tensors {
                let info = theirs.info(&tensor.name).expect("a tensor of both");
                assert_eq!((info.dtype, &info.shape), (tensor.dtype, &tensor.shape));
                let offsets = (tensor.start as usize, tensor.end as usize);
                assert_eq!(info.data_offsets, offsets);
            }
            if let Ok(again) = encode(ours.metadata.as_ref(), &ours.tensors) {
                let length = (again.len() + rest.len()) as u64;
                let again = Header::parse(&again[8..], length).expect("what we write we read");
                assert_eq!(again.tensors, ours.tensors);
                assert_eq!(again.metadata, ours.metadata);
            }
        }
        (Ok(_), Err(error)) => panic!("only we read this: {error}"),
        (Err(error), Ok(_)) => {
            let said = error.to_string();
            assert!(said.contains("twice"), "only we refuse this: {said}");
        }
        (Err(_), Err(_)) => {}
    }
});
