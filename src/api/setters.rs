//! Setters of options: each takes the options and gives them back with one of them set.

/// Setters of an `Options` around the verb's own ones: a name with its argument, and the field that it sets.
macro_rules! setters {
    ($($(#[$about:meta])* $name:ident($argument:ident: $type:ty) => $($field:ident).+ = $value:expr;)*) => {
        $(
            $(#[$about])*
            #[must_use]
            pub fn $name(mut self, $argument: $type) -> Self {
                self.inner.$($field).+ = $value;
                self
            }
        )*
    };
}
