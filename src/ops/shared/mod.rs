//! What verbs share: adapters as they are given, selections and rules of modules, opening a base, pairing two
//! checkpoints, where an output may stand and where it comes from, and the table of options.

pub mod advice;
pub(in crate::ops) mod base;
pub(in crate::ops) mod card;
pub(in crate::ops) mod facts;
pub mod inputs;
pub(in crate::ops) mod left_over;
pub(in crate::ops) mod method_name;
pub(in crate::ops) mod model_family;
pub(in crate::ops) mod names;
pub mod options;
pub(in crate::ops) mod output;
pub(in crate::ops) mod pairing;
pub mod param_rules;
pub(in crate::ops) mod pool;
pub(in crate::ops) mod progress;
pub(in crate::ops) mod provenance;
pub mod rules;
pub(in crate::ops) mod selection;
pub mod side_file;
pub mod spills;
