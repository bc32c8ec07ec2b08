//! Names and families: every convention, every parametrisation, every table of names, and back.
#![allow(clippy::disallowed_methods, reason = "tests read what they have written")]

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod architectures;
mod check_rules;
mod conventions_of_verbs;
mod convert_peers;
mod converting;
mod families;
mod family_verbs;
mod fixes;
mod key_spellings;
mod layout_verbs;
mod layouts;
mod model_layouts;
mod model_spellings;
mod parameters;
mod peft_types;
mod prefixes;
mod renames;
mod roundtrip;
mod served_experts;
mod served_names;
mod serving;
mod soundness;
mod writers;
