//! How deltas are combined: one pure file a method, `methods!` the one list.
//!
//! **Invariant:** a method sees matrices and numbers, never files, alpha or dtypes; a module's name only
//! chooses its random numbers.

#[macro_use]
mod registry;

pub mod catalogue;
mod compat;
mod deltas;
pub mod elementwise;
mod inputs;
mod kind;
mod overlap;
mod panel;
pub mod params;
mod rule;
mod settings;
mod space;

pub use compat::Compat;
pub use deltas::{Blended, Deltas};
pub use elementwise::{Blending, Elementwise};
pub use inputs::{Check, Combined, Problem, Refusal, Sketch, Weighted};
use inputs::{add_factors, anything, equal_ranks, positive_scales};
pub use kind::{Kind, Law, Method};
pub use panel::{Counts, InputWeight, Panel};
pub use params::Param;
pub use registry::by_name;
pub use settings::Settings;
pub use space::Space;

methods! {
    linear, cat, shared_basis, df_regmean, ties, dare_linear, dare_ties, magnitude_prune, breadcrumbs,
    breadcrumbs_ties, della, della_linear, sce, ram, ram_plus, slerp, karcher, model_stock, ema, tsv, iso_c, iso_cts, star,
    peft_linear, kohya_linear, kohya_cat,
}
