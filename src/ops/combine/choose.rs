//! Which method, where it looks, what it takes, and which conventions the result goes through.

use super::options::Options;
use crate::adapter::Adapter;
use crate::adapter::convention::{self, Convention};
use crate::error::{ErrorKind, Result};
use crate::math::RankPolicy;
use crate::method::{Compat, Kind, Method, Settings, Space};
use crate::ops::shared::method_name::named;
use crate::ops::write;

/// What was asked for.
pub(super) struct Choice {
    pub(super) method: &'static Method,
    pub(super) space: Space,
    pub(super) settings: Settings,
}

/// Makes sense of the method's name, the peer, the space and the parameters together.
pub(super) fn choose(options: &Options) -> Result<Choice> {
    let asked = options.method.as_deref().unwrap_or("linear");
    let method = named(asked, options.compat)?;
    let space = space(options, asked, method)?;
    let adapters = options.adapters.len();
    let settings = Settings::new(method.name, method.takes, &options.params, adapters)
        .map_err(|error| ErrorKind::BadOption(error.to_string()))?;
    check_policies(options)?;
    if matches!(method.kind, Kind::Elementwise(_)) && space == Space::Delta {
        check_numbers(options, method)?;
    }
    Ok(Choice { method, space, settings })
}

/// PEFT's names without `_svd` look at A and B apart.
fn space(options: &Options, asked: &str, method: &Method) -> Result<Space> {
    let apart = options.compat == Some(Compat::Peft) && !asked.ends_with("svd");
    match (method.elementwise(), options.space) {
        (Some(_), Some(space)) => Ok(space),
        (Some(_), None) => Ok(if apart { Space::Factors } else { Space::Delta }),
        (None, None | Some(Space::Delta)) => Ok(Space::Delta),
        (None, Some(space)) => {
            let reason = format!(
                "--space {} is for methods that look at elements; `{}` does not",
                space.name(),
                method.name
            );
            Err(ErrorKind::BadOption(reason).into())
        }
    }
}

/// A budget is shared out over all modules, so none of them can have a policy of its own beside it.
fn check_policies(options: &Options) -> Result<()> {
    if options.max_rank == Some(0) || options.conv_max_rank == Some(0) {
        return Err(ErrorKind::BadOption("--max-rank 0 would leave nothing".to_owned()).into());
    }
    let Some(conv) = options.conv_rank else { return Ok(()) };
    let shared = options.rank.into_iter().chain([conv]).find(|policy| policy.is_global());
    let Some(shared) = shared else { return Ok(()) };
    let reason = format!(
        "{shared} is shared out over all modules; leave out --conv-rank, or give both a rank of their own"
    );
    Err(ErrorKind::BadOption(reason).into())
}

/// What has no low rank has as many singular values as the weight; only the first ones are looked for.
fn check_numbers(options: &Options, method: &Method) -> Result<()> {
    let policies = options.rank.iter().chain(&options.conv_rank);
    let Some(policy) = policies.into_iter().find(|policy| !matches!(policy, RankPolicy::Fixed(_)))
    else {
        return Ok(());
    };
    let reason = format!(
        "`{}` leaves no low rank that {policy} could be of; give --rank a number, or stay within the \
         adapters' ranks with --space core",
        method.name
    );
    Err(ErrorKind::BadOption(reason).into())
}

/// The convention that modules are computed in, which is the inputs' if it can be written so, and the one
/// to write.
///
/// # Errors
/// A convention that cannot be written there, and a budget of bytes for a file that `convert` makes.
pub(super) fn conventions(
    options: &Options,
    adapters: &[Adapter],
) -> Result<(&'static Convention, &'static Convention)> {
    // One that can hold whatever the others can wins: a directory of PEFT's.
    let first = adapters.first().map(|adapter| adapter.convention);
    let mut conventions = adapters.iter().map(|adapter| adapter.convention);
    let computed = match conventions.find(|convention| convention.holds.replacements) {
        Some(holder) => holder,
        None => match first {
            Some(first) if write::is_native(first) => first,
            Some(first) => convention::computed_for(first.names),
            None => convention::peft(),
        },
    };
    let target = write::convention(options.to.as_deref(), Some(computed), &options.output)?;
    let has_target = adapters.iter().any(|adapter| adapter.convention == target);
    let native = if has_target && write::is_native(target) { target } else { computed };
    if native != target && matches!(options.rank, Some(RankPolicy::Size(_))) {
        let reason = format!(
            "a budget of bytes is for the {} convention that the inputs have; leave out --to, and \
             convert the result",
            native.name
        );
        return Err(ErrorKind::BadOption(reason).into());
    }
    Ok((native, target))
}
