//! Which modules a command is for, and how strongly: `--include`, `--exclude` and `--module-weight`. Every verb
//! that takes them asks here, and refuses an option that matches nothing.

use std::collections::BTreeSet;

use regex::Regex;

use super::rules::{Names, matches};
use crate::error::{Result, RuleError};

/// The options about modules that hold for all inputs of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    /// Only modules that match.
    pub(crate) include: Option<&'a Regex>,
    /// No modules that match.
    pub(crate) exclude: Option<&'a Regex>,
    /// Factors for the weight of modules that match; the last match wins.
    pub(crate) module_weights: &'a [(Regex, f64)],
}

/// Which of the options have decided something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    include: bool,
    exclude: bool,
    module_weights: BTreeSet<usize>,
}

impl Selection<'_> {
    /// Whether a module takes part.
    pub(crate) fn selects(&self, names: Names<'_>) -> bool {
        self.include.is_none_or(|regex| matches(regex, names))
            && !self.exclude.is_some_and(|regex| matches(regex, names))
    }

    /// What `--module-weight` multiplies a module's weight by.
    pub(crate) fn weight(&self, names: Names<'_>) -> f64 {
        self.module_weight(names).map_or(1.0, |(_, weight)| weight)
    }

    fn module_weight(&self, names: Names<'_>) -> Option<(usize, f64)> {
        let weights = self.module_weights.iter().enumerate();
        let mut found = weights.rev().filter(|(_, (regex, _))| matches(regex, names));
        found.next().map(|(at, (_, weight))| (at, *weight))
    }

    /// Notes which options decide something about this module.
    pub(crate) fn note(&self, names: Names<'_>, usage: &mut Usage) {
        usage.include |= self.include.is_some_and(|regex| matches(regex, names));
        usage.exclude |= self.exclude.is_some_and(|regex| matches(regex, names));
        usage.module_weights.extend(self.module_weight(names).map(|(at, _)| at));
    }

    /// Fails if an option decides nothing about any module that was noted.
    ///
    /// # Errors
    /// [`RuleError::NoMatch`], of the first such option.
    pub(crate) fn check(&self, usage: &Usage) -> Result<()> {
        let no_match = |option: &'static str, regex: &Regex| {
            Err(RuleError::NoMatch { option, pattern: regex.to_string() }.into())
        };
        if let Some(regex) = self.include.filter(|_| !usage.include) {
            return no_match("include", regex);
        }
        if let Some(regex) = self.exclude.filter(|_| !usage.exclude) {
            return no_match("exclude", regex);
        }
        let mut weights = self.module_weights.iter().enumerate();
        match weights.find(|(at, _)| !usage.module_weights.contains(at)) {
            Some((_, (regex, _))) => no_match("module-weight", regex),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_option_must_decide_something() {
        let regex = |text: &str| Regex::new(text).unwrap();
        let (mlp, missing, all) = (regex("mlp"), regex("mlq"), regex("."));
        let modules = [["layers.0.mlp", ""], ["layers.0.attn", ""]];
        let says = |selection: Selection<'_>| {
            let mut usage = Usage::default();
            for names in modules {
                selection.note(names, &mut usage);
            }
            selection.check(&usage).err().map(|error| error.to_string())
        };
        let none = Selection { include: None, exclude: None, module_weights: &[] };
        assert_eq!(says(none), None);
        assert_eq!(says(Selection { include: Some(&mlp), exclude: Some(&mlp), ..none }), None);
        assert!(says(Selection { include: Some(&missing), ..none }).unwrap().contains("`mlq`"));
        assert!(says(Selection { exclude: Some(&missing), ..none }).unwrap().contains("`mlq`"));
        let weights = [(mlp.clone(), 0.5), (missing, 2.0)];
        assert!(says(Selection { module_weights: &weights, ..none }).unwrap().contains("`mlq`"));
        // The last match wins, so nothing is left for the first.
        let weights = [(mlp, 0.5), (all, 2.0)];
        let shadowed = Selection { module_weights: &weights, ..none };
        assert!(says(shadowed).unwrap().contains("`mlp`"));
        assert_eq!(shadowed.weight(["layers.0.mlp", ""]), 2.0);
    }
}
