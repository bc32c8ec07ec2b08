//! The options of one verb.

use super::spec::OptionSpec;
use super::table::OPTIONS;

/// The options of a verb, in the order in which they are shown.
pub fn options_of(verb: &str) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.verbs.contains(&verb))
}

/// The option of a verb by its name, with dashes or underscores.
pub fn option(verb: &str, name: &str) -> Option<&'static OptionSpec> {
    let name = name.replace('-', "_");
    options_of(verb).find(|option| option.name == name)
}
