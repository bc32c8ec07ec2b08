//! Names of stacks of experts that PEFT adapts as parameters, and of the modules of single experts that they are
//! taken apart into. [`stacks`](super::stacks) does that, and PEFT's convention puts them together again.

use std::collections::BTreeSet;

/// How a stack's factors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Matrices of the stack.
    pub experts: usize,
    /// Whether A's columns are the outputs, as PEFT has them for some models.
    pub crossed: bool,
}

/// Parameters that modules hold beside each other, in the order in which they register them
/// (transformers `models/*`; DBRX's `w1`, `v1`, `w2`).
pub(super) const ORDER: [&str; 10] =
    ["gate_up_proj", "gate_proj", "up_proj", "w13", "w1", "v1", "fc1", "w2", "fc2", "down_proj"];

/// What stands before a wrapped module's own path ends.
pub(super) const WRAPPED: &str = ".base_layer";

/// A stack's name and an expert's number, of a module that [`expand`](super::stacks::expand) may have named; whether there is
/// such a stack, the adapter's [`stacks`](super::Adapter::stacks) say.
pub(crate) fn expert_of(module: &str) -> Option<(String, usize)> {
    let (above, parameter) = module.rsplit_once('.')?;
    let (holder, expert) = above.rsplit_once('.')?;
    let digits = expert.bytes().all(|byte| byte.is_ascii_digit());
    let expert = expert.parse().ok().filter(|_| digits && !holder.is_empty())?;
    Some((format!("{holder}.{parameter}"), expert))
}

/// Where PEFT's keys have the factors of a stack, of all those that are written.
pub(super) fn place_of(label: &str, written: &BTreeSet<String>) -> String {
    let (holder, parameter) = label.rsplit_once('.').unwrap_or(("", label));
    let behind = ORDER.iter().skip_while(|known| **known != parameter).skip(1);
    let outer = behind.filter(|known| written.contains(&format!("{holder}.{known}"))).count();
    format!("{holder}{}", WRAPPED.repeat(outer))
}

/// The module in such a name.
pub(super) fn holder(place: &str) -> &str {
    place.trim_end_matches(WRAPPED)
}
