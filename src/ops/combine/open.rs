//! A combination with its inputs open.

use std::path::Path;

use super::group::Group;
use super::options::Options;
use super::plan::Plan;
use super::replacements::Carried;
use super::sum::Sum;
use crate::adapter::Adapter;
use crate::adapter::convention::Convention;
use crate::format::Dtype;
use crate::method::{Method, Settings, Space};
use crate::ops::write;

/// A plan with its inputs open.
#[derive(Debug)]
pub struct Combine {
    /// What will be written.
    pub plan: Plan,
    pub(super) adapters: Vec<Adapter>,
    pub(super) groups: Vec<Group>,
    pub(super) sums: Vec<Sum>,
    pub(super) method: &'static Method,
    pub(super) space: Space,
    pub(super) settings: Settings,
    /// The convention that modules are computed in, and the one that is written.
    pub(super) convention: &'static Convention,
    pub(super) target: &'static Convention,
    pub(super) dtype: Dtype,
    pub(super) carried: Carried,
    pub(super) options: Options,
}

impl Combine {
    /// Whether elements of the deltas themselves are looked at.
    pub(super) fn by_elements(&self) -> bool {
        self.method.elementwise().is_some() && self.space == Space::Delta
    }

    /// The method's parameters in a group.
    pub(super) fn settings<'a>(&'a self, group: &'a Group) -> &'a Settings {
        group.settings.as_ref().unwrap_or(&self.settings)
    }

    /// Whether the factors themselves are the result, unless a rank is asked for.
    pub(super) fn keeps_factors(&self) -> bool {
        let apart = self.method.elementwise().is_some() && self.space == Space::Factors;
        self.method.keeps_factors || apart
    }

    /// Whether the method is a sum that is not quite one, as a peer has it.
    pub(super) fn reproduces_a_peers_sum(&self) -> bool {
        self.method.name.starts_with("peft-") || self.method.name.starts_with("kohya-")
    }

    pub(super) fn destination(&self) -> write::Destination<'_> {
        write::Destination {
            native: self.convention,
            target: self.target,
            program: None,
            reference: self.options.reference.as_deref(),
            output: &self.options.output,
            // There is at least one adapter, and each is at least one file.
            beside: self.adapters.first().map_or(Path::new(""), |adapter| &adapter.file.path),
            force: self.options.force,
        }
    }
}
