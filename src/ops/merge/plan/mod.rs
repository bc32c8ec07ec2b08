//! What a merge is asked to do, and what that means for every tensor of the output; no base data is read.

pub(in crate::ops) mod added;
pub(in crate::ops) mod attach;
pub(in crate::ops) mod bind;
pub(in crate::ops) mod binder;
pub(in crate::ops) mod consensus;
pub(in crate::ops) mod gguf_types;
pub(in crate::ops) mod inputs;
pub(in crate::ops) mod kept;
pub(in crate::ops) mod layout;
pub(in crate::ops) mod method_choice;
pub(in crate::ops) mod misfit;
pub(in crate::ops) mod open_inputs;
pub(in crate::ops) mod options;
pub(in crate::ops) mod origin;
pub(in crate::ops) mod output;
pub(in crate::ops) mod quantised;
pub(in crate::ops) mod recast;
pub(in crate::ops) mod recoded;
pub(in crate::ops) mod recoding;
pub(in crate::ops) mod region;
pub(in crate::ops) mod replaced;
pub(in crate::ops) mod side;
pub(in crate::ops) mod sides;
pub(in crate::ops) mod step;
pub(in crate::ops) mod tensor_plan;
pub(in crate::ops) mod tuned;
