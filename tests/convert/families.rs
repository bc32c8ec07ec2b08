//! Every family's formula: merged tensors against plain dense matrices in f64, on bases stored either
//! way round, whole and in part.

pub(crate) mod case;
mod factors;
mod products;
mod transforms;
mod verbs;
mod whole;
