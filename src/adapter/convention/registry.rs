//! All conventions, and those that others fall back on.

use super::definition::{Convention, Names};
use super::{CONVENTIONS, kohya};
use crate::adapter::new_adapter::Output;

/// Declares the file of every convention and lists them.
macro_rules! conventions {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// All conventions; the first that recognises a file reads it.
        pub static CONVENTIONS: &[&Convention] = &[$(&$name::CONVENTION),+];
    };
}

/// The conventions' names, for messages: of all, or of those that can be written.
pub fn names(written: bool) -> String {
    let shown = CONVENTIONS.iter().filter(|c| !written || c.output != Output::Never);
    shown.map(|convention| convention.name).collect::<Vec<_>>().join(", ")
}

/// The convention of this name.
pub fn by_name(name: &str) -> Option<&'static Convention> {
    CONVENTIONS.iter().copied().find(|convention| convention.name == name)
}

/// The convention of a directory that says nothing else, and of modules with paths as transformers has them: PEFT's,
/// which can hold whatever the others can.
pub fn peft() -> &'static Convention {
    &super::peft::CONVENTION
}

/// The convention of one file that says nothing else: kohya's, which has a name for every module.
pub fn one_file() -> &'static Convention {
    &kohya::CONVENTION
}

/// The convention in which modules of another one are computed that they cannot be written in as they are: PEFT's
/// for paths as transformers has them, else kohya's.
pub fn computed_for(names: Names) -> &'static Convention {
    if names == Names::Dotted { peft() } else { one_file() }
}
