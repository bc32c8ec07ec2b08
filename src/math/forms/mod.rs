//! Matrices that are kept as their parts and never formed.

pub mod chain;
pub mod composite;
pub mod residual;
pub mod row_matrix;
pub mod transform;
pub mod wavelet;
