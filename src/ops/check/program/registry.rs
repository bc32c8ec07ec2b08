//! The one list of programs, and finding one by its name.

use super::{PROGRAMS, Program};
use crate::error::{ErrorKind, Result};

/// Declares the programs' files and lists what each of them is.
macro_rules! programs {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// All programs.
        pub(in crate::ops) static PROGRAMS: &[&Program] = &[$(&$name::PROGRAM),+];
    };
}

/// The program of this name.
///
/// # Errors
/// [`ErrorKind::BadOption`], with all names.
pub(in crate::ops) fn by_name(name: &str) -> Result<&'static Program> {
    let known = |program: &&&Program| program.name == name || program.aliases.contains(&name);
    PROGRAMS.iter().find(known).copied().ok_or_else(|| {
        let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        let names = names.join(", ");
        ErrorKind::BadOption(format!("nothing is known of `{name}`; there are {names}")).into()
    })
}
