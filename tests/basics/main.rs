//! What a newcomer meets first: the layout of the sources, the README, help and hints, and the commands that only look.
#![allow(clippy::disallowed_methods, reason = "tests read what they have written")]

#[path = "../common/mod.rs"]
mod common;

mod architecture;
mod book;
mod cards;
mod check;
mod check_spellings;
mod check_tables;
mod circles;
mod compare;
mod conventions;
mod diff;
mod encodings;
mod folders;
mod hints;
mod inspect;
mod library;
mod list;
mod metadata;
mod options;
mod page;
mod readme;
mod reports;
mod schema;
mod spellings;
mod weights;
mod weights_layouts;
mod weights_made;
mod weights_refused;
mod weights_rules;
mod weights_written;
