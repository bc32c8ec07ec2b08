//! One changed tensor at work: its factors packed once, its rows computed in any order.

pub(in crate::ops) mod bands;
pub(in crate::ops) mod direct;
pub(in crate::ops) mod elementwise;
pub(in crate::ops) mod encoded;
pub(in crate::ops) mod factored;
pub(in crate::ops) mod fused;
pub(in crate::ops) mod lost;
pub(in crate::ops) mod making;
pub(in crate::ops) mod module_delta;
pub(in crate::ops) mod product;
pub(in crate::ops) mod scratch;
pub(in crate::ops) mod tensor_merge;
pub(in crate::ops) mod transform;
pub(in crate::ops) mod update;
