//! From modules with new factors to an adapter's files: tensors, config and header of a convention.

mod encode;
mod size;

pub use encode::bias_part;
pub use size::{Sized, file_size};

pub use super::new_adapter::{Encoded, Kept, NewAdapter, NewModule, NewReplacement, PartTensor};
