//! The list of all methods, and finding one by its name.

use super::{METHODS, Method};

/// Declares the methods' files and lists what each of them is.
macro_rules! methods {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+
        /// All methods.
        pub static METHODS: &[&Method] = &[$(&$name::METHOD),+];
    };
}

/// The method of a name, with `-` and `_` alike.
pub fn by_name(name: &str) -> Option<&'static Method> {
    let name = name.replace('_', "-");
    METHODS
        .iter()
        .copied()
        .find(|method| method.name == name || method.aliases.contains(&name.as_str()))
}
