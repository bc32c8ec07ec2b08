//! run: a merge or a combination written down. A recipe is another way to say what the command line says:
//! it becomes the very options of `merge` or `combine`, which do the rest.

mod adapter_params;
pub(in crate::ops) mod fields;
mod inputs;
mod module_rules;
mod params;
mod plan;
pub(in crate::ops) mod recipe;

pub use plan::{Options, Planned, plan};
pub use recipe::{Asked, Recipe};
