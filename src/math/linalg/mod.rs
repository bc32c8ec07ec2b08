//! Dense and low-rank linear algebra in f64: products, QR, singular values, and what they say.

pub mod grams;
pub mod joint;
pub mod low_rank;
pub mod matrix;
pub mod panels;
pub mod qr;
pub mod sketch;
pub mod spectrum;
pub mod spill;
