//! What a method's name means, alone and where a peer's arithmetic is asked for.

use super::inputs::AdapterInput;
use crate::error::{ErrorKind, Result, near};
use crate::method::{self, Compat, Method};

/// The name by which the choice is left to the rule.
pub(in crate::ops) const AUTO: &str = "auto";

/// The method of a name, or the one that has the peer's arithmetic.
///
/// # Errors
/// A name that no method has, and a peer that has no such method.
pub(in crate::ops) fn named(asked: &str, compat: Option<Compat>) -> Result<&'static Method> {
    let method = method::by_name(asked).ok_or_else(|| {
        let names = || method::METHODS.iter().flat_map(|m| m.aliases.iter().chain([&m.name]));
        let near = near(asked, names().copied());
        let all: Vec<_> = method::METHODS.iter().map(|method| method.name).collect();
        ErrorKind::UnknownMethod {
            name: asked.to_owned(),
            near: near.map(str::to_owned),
            all: all.join(", "),
        }
    })?;
    let Some(compat) = compat else { return Ok(method) };
    let twin = match (compat, method.name) {
        (Compat::Peft, "linear") if asked != "svd" => Some("peft-linear"),
        (Compat::Kohya, "linear") if asked != "svd" => Some("kohya-linear"),
        (Compat::Kohya, "cat") => Some("kohya-cat"),
        _ => None,
    };
    let twin = twin.and_then(method::by_name).unwrap_or(method);
    if twin.peers.contains(&compat) || twin.name.starts_with(compat.name()) {
        return Ok(twin);
    }
    let reason = format!("{} has no `{}` to reproduce", compat.name(), method.name);
    Err(ErrorKind::BadOption(reason).into())
}

/// Whether a method's name, or none, means the plain sum, which peers have a way of their own with.
pub(in crate::ops) fn is_sum(method: Option<&str>) -> bool {
    matches!(method, None | Some("linear"))
}

/// Makes the weights what a peer makes of them: mergekit's `linear` divides by their sum.
///
/// # Errors
/// Weights that sum to 0, by which nothing can be divided, or that differ by module.
pub(in crate::ops) fn peer_weights(
    compat: Option<Compat>,
    method: Option<&str>,
    adapters: &mut [AdapterInput],
) -> Result<()> {
    if compat != Some(Compat::Mergekit) || !is_sum(method) {
        return Ok(());
    }
    if adapters.iter().any(|input| input.rules.weighs()) {
        let reason = "mergekit divides by the sum of the weights, so each must be one number here";
        return Err(ErrorKind::BadOption(reason.to_owned()).into());
    }
    let total: f64 = adapters.iter().map(|input| input.weight).sum();
    if total == 0.0 {
        let reason = "mergekit divides by the sum of the weights, which is 0".to_owned();
        return Err(ErrorKind::BadOption(reason).into());
    }
    for input in adapters {
        input.weight /= total;
    }
    Ok(())
}
