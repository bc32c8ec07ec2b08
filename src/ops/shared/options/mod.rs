//! The one table of options: what each is called, takes and does. The command line takes its help and its other
//! spellings from here, recipes their keys; `docs/options.md` and the Python module's signatures are written from it,
//! which a test holds them to.

mod find;
mod spec;
mod table;

pub use find::{option, options_of};
pub use spec::{Kind, OptionSpec, Recipe};
pub use table::{GGUF_TYPES, OPTIONS};
