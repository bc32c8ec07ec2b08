//! merge: bake adapters into base weights, W' = round(W + Σ wᵢ·sᵢ·Bᵢ·Aᵢ), in one pass.
//!
//! [`plan`](plan()) opens everything and decides every output tensor; [`Merge::run`] streams the outputs in
//! memory that does not grow with the model. A [`Plan`] is plain data, and each of its shards can be
//! made without the others.

mod card;
pub(super) mod check;
pub(super) mod compute;
mod open;
pub(super) mod plan;
mod prediction;
mod report;
mod residual;
mod run;
mod share;
mod trial;
pub(super) mod write;

pub use crate::method::Compat;
pub use crate::ops::shared::inputs::AdapterInput;
pub use crate::ops::shared::side_file::SideFile;
pub use crate::weight::{Rounding, Scales, TRAINED_NAMES, Writing};
pub use open::Merge;
pub(super) use open::tied_head;
pub(super) use plan::asked::{CHECKPOINTS, asked, restored};
pub use plan::gguf_types::Types;
pub use plan::layout::{OutputShard, OutputTensor};
pub use plan::method_choice::MethodChoice;
pub use plan::open_inputs::OpenInputs;
pub use plan::options::{LeastSurvival, Options, Quantized, TOUCHED, Touched};
pub use plan::output::{Plan, PlannedAdapter};
pub use plan::predicted::{Prediction, SchemePrediction};
pub use plan::quantised::{Dequantised, Requantised};
pub use plan::region::Region;
pub use plan::side::NotCarried;
pub use plan::step::{
    Difference, InputDelta, InputShare, MethodStep, ReplaceStep, RowsStep, Step, Term, TermForm,
};
pub use plan::tensor_plan::{Direct, Encode, TensorPlan};
pub use plan::trained::AsTrained;
pub use report::{Effective, Report, Survival, TensorReport};
pub use residual::{Residual, ResidualModule};
pub use run::plan;
pub(super) use trial::prepare;
