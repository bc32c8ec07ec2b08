//! run: a merge or a combination written down. A recipe is another way to say what the command line says:
//! it becomes the very options of `merge` or `combine`, which do the rest.

mod adapter_params;
mod fields;
mod inputs;
mod module_rules;
mod params;
mod plan;
mod recipe;

pub use plan::{Options, Planned, plan};
pub use recipe::{Asked, Recipe};
