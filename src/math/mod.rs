//! Matrices in memory: element types, the merge kernel, and the exact low-rank algebra.
//!
//! **Invariant:** nothing here knows files, tensor names, alpha, or dtype strings, and nothing here
//! fails on user data: shapes and finiteness were checked before. A wrong shape is the caller's bug
//! and panics.

pub mod elements;
pub mod forms;
pub mod kernel;
pub mod linalg;
pub mod rank;

pub use forms::chain::{Chain, Stage};
pub use forms::composite::{Composite, Joint};
pub use forms::row_matrix::RowMatrix;
pub use forms::transform::Transform;
pub use kernel::delta::DeltaStats;
pub use kernel::element::{Element, ElementType};
pub use kernel::factor::{Factor, PackedLeft, PackedRight};
pub use linalg::low_rank::{LowRank, Svd};
pub use linalg::matrix::Matrix;
pub use rank::amount;
pub use rank::policy::RankPolicy;
