//! What a program wants of an adapter beyond its convention, and the base that it is about.

use super::base_facts::BaseFacts;
use super::goal::Goal;
use super::requirements::{Experts, Takes};
use crate::adapter::Adapter;
use crate::adapter::convention::{Convention, Names};
use crate::error::{ErrorKind, Result};
use crate::format::Checkpoint;
use crate::weight::open_reference;

/// The names of an expert's gate, up and down, and those that some checkpoints have.
pub(super) const MATRICES: [[&str; 3]; 2] =
    [["gate_proj", "up_proj", "down_proj"], ["w1", "w3", "w2"]];

/// How the result has a layer's experts: each by itself, or all in stacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpertForm {
    Single,
    Stacks,
}

/// The adapter, the program that shall load the result, and the base that it serves.
pub(super) struct Served<'a> {
    pub(super) adapter: &'a Adapter,
    /// What the program needs.
    pub(super) takes: &'static Takes,
    /// The convention that is written.
    pub(super) target: &'static Convention,
    /// The base, where more than its config is there.
    pub(super) reference: Option<Checkpoint>,
    /// The class of the base in transformers.
    pub(super) class: Option<&'a str>,
    /// Experts of a layer of the base.
    pub(super) experts: Option<usize>,
    /// Whether the base has stacks of experts outputs × inputs.
    pub(super) plain_stacks: bool,
    /// Whether the base has an expert's gate and up in turns, row by row.
    pub(super) in_turns: bool,
    /// Whether the base has a language model inside another.
    pub(super) wraps: bool,
    /// Whether modules of the result are called by paths.
    pub(super) dotted: bool,
}

impl<'a> Served<'a> {
    /// Nothing, if no program is meant.
    pub(super) fn new(
        adapter: &'a Adapter,
        goal: Goal<'_>,
        base: &'a BaseFacts,
    ) -> Result<Option<Self>> {
        let Some(takes) = goal.program else { return Ok(None) };
        let opened = goal.reference.map(|path| open_reference(path, goal.access));
        let reference = match opened {
            // A config alone says the class.
            Some(Err(error)) if matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) => None,
            opened => opened.transpose()?,
        };
        let (class, experts) = (base.class.as_deref(), base.expert_count);
        let dotted = goal.target.names == Names::Dotted;
        let in_turns = base.architecture.is_some_and(|architecture| architecture.in_turns);
        let (wraps, plain_stacks) = (base.wraps, base.experts.is_some_and(|sizes| !sizes.turned));
        let target = goal.target;
        Ok(Some(Self {
            adapter,
            takes,
            target,
            reference,
            class,
            experts,
            plain_stacks,
            in_turns,
            wraps,
            dotted,
        }))
    }

    /// Whether experts go one by one, or in stacks; `None` where they stay as they are.
    pub(super) fn expert_form(&self) -> Option<ExpertForm> {
        match (self.takes.experts, self.class) {
            _ if !self.dotted => None,
            (Experts::AsTheyAre, _) | (Experts::ByClass(_), None) => None,
            (Experts::ByClass(is_stacked), Some(class)) if is_stacked(class) => {
                Some(ExpertForm::Stacks)
            }
            (Experts::Single | Experts::ByClass(_), _) => Some(ExpertForm::Single),
        }
    }
}

/// The expert of a name such as `…mlp.experts.3.gate_proj`.
pub(super) fn expert_of(name: &str) -> Option<(&str, usize, &str)> {
    let (above, matrix) = name.rsplit_once('.')?;
    let (holder, number) = above.rsplit_once('.')?;
    Some((holder, number.parse().ok().filter(|_| holder.ends_with("experts"))?, matrix))
}
