//! Reports as text for people: one file a verb, and what they are made of.

pub(crate) mod as_lora;
pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod collect;
pub(crate) mod combine;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod diff;
pub(crate) mod explore;
pub(crate) mod extract;
pub(crate) mod inspect;
mod lines;
pub(crate) mod list;
pub(crate) mod merge;
pub(crate) mod metadata;
pub(crate) mod methods;
mod names;
mod numbers;
pub(crate) mod tune;
pub(crate) mod verify;
pub(crate) mod work;

use lines::LISTED;

pub(crate) use lines::{Cell, Lines, columns, cut, table};
pub(crate) use names::{Names, tidy};
pub(crate) use numbers::{bytes, count, error, kept, number, percent, policy, weight};
