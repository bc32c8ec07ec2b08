//! The one table of options: what each is called, takes and does. The command line takes its help and its other
//! spellings from here, recipes their keys; `docs/options.md` and the Python module's signatures are written from it,
//! which a test holds them to.

mod spec;
mod table;

pub use spec::{Kind, OptionSpec, Recipe};
pub use table::OPTIONS;

/// The options of a verb, in the order in which they are shown.
pub fn options_of(verb: &str) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.verbs.contains(&verb))
}

/// The option of a verb by its name, with dashes or underscores.
pub fn option(verb: &str, name: &str) -> Option<&'static OptionSpec> {
    let name = name.replace('-', "_");
    options_of(verb).find(|option| option.name == name)
}
