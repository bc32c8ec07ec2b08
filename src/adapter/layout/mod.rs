//! What an adapter's modules become in another convention: their names, and where the model's layout is
//! another one too, which rows of which modules lie in which.
//!
//! The layouts are those of `architecture/`. Which one an adapter has is told by
//! its own names, or by a base's; what no layout knows is [`Renamer`](super::rename::Renamer)'s.

mod atoms;
mod experts;
mod fit;
mod model_part;
mod names;
mod spelling;
mod target;

pub use experts::divide_experts;
pub use model_part::{architectures, counts, is_known, of_one_layout};
pub use names::of;
pub use spelling::several_spellings;
pub use target::{Layout, MadeOf, Piece, Rows, Target, Wanted};
