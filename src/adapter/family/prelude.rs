//! What nearly every family's file is made of: `use super::prelude::*;`.

pub(super) use super::definition::Family;
pub(super) use super::matrices::read_matrix;
pub(super) use super::source::{Source, check_length};
pub(super) use crate::adapter::key::Part;
pub(super) use crate::adapter::module::{Bound, Form, Kind, Module, Nature, Update};
pub(super) use crate::adapter::scale::Scale;
pub(super) use crate::adapter::slice::find;
pub(super) use crate::adapter::tensor::read_f64;
pub(super) use crate::error::{ErrorKind, FamilyError, Locate, Result};
pub(super) use crate::format::Checkpoint;
pub(super) use crate::math::{LowRank, Matrix};
