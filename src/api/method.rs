//! The methods that combine adapters.

use crate::method::{METHODS, Param, by_name};

/// One way to combine adapters, by which [`merge`](crate::merge) and [`combine`](crate::combine) are told it.
///
/// ```
/// use lora_tool::Method;
///
/// let ties = Method::named("ties").expect("one of the methods");
/// assert!(ties.parameters().any(|parameter| parameter.name() == "density"));
/// assert!(Method::all().count() > 20);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Method(&'static crate::method::Method);

/// A number or a word that a [`Method`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Parameter(&'static Param);

impl Method {
    /// All methods; the first, `linear`, is the default.
    pub fn all() -> impl Iterator<Item = Self> {
        METHODS.iter().map(|method| Self(method))
    }

    /// The method of this name or alias.
    pub fn named(name: &str) -> Option<Self> {
        by_name(name).map(Self)
    }

    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What it does, in a line.
    pub fn summary(self) -> &'static str {
        self.0.summary
    }

    /// The paper or the program that its formula is from.
    pub fn source(self) -> &'static str {
        self.0.source
    }

    /// The parameters that it takes.
    pub fn parameters(self) -> impl Iterator<Item = Parameter> {
        self.0.takes.iter().map(Parameter)
    }
}

impl Parameter {
    /// Its name, as options take it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What it does, in a line.
    pub fn summary(self) -> &'static str {
        self.0.about
    }

    /// Its value where none is given, as text.
    pub fn default_value(self) -> String {
        self.0.default_text()
    }
}
