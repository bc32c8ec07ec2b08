//! What methods do to single elements: select, sparsify, blend, and draw random numbers by place.

pub mod blend;
pub mod random;
pub mod select;
pub mod sparsify;
pub mod torch_random;
