//! What a combination will be.

use std::path::PathBuf;

use serde::Serialize;

use crate::ops::shared::advice::Advice;

/// What a combination will be.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The method.
    pub method: &'static str,
    /// Why it was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
    /// Where it looks, if it is an elementwise one.
    pub space: Option<&'static str>,
    /// The rank policy.
    pub rank: String,
    /// The convention to be written.
    pub convention: &'static str,
    /// The output.
    pub output: PathBuf,
    /// Modules of the result, with each input's rank (0 where it has none).
    pub modules: Vec<PlannedModule>,
    /// Modules that are differences stored whole, summed element by element.
    pub stored: Vec<String>,
    /// Tensors that replace the base's, carried over.
    pub replacements: Vec<String>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// One module of a plan.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PlannedModule {
    /// Its name, in the convention of the inputs that it is computed in.
    pub name: String,
    /// Outputs.
    #[serde(rename = "out")]
    pub outputs: usize,
    /// Inputs.
    #[serde(rename = "in")]
    pub inputs: usize,
    /// Rank in each adapter.
    pub ranks: Vec<usize>,
}
