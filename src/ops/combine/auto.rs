//! `--method auto`: the method and the weights that the adapters themselves call for, by the rule that `compare`
//! advises by.

use rayon::prelude::*;

use super::module_inputs::weighted;
use super::options::Options;
use super::{align, group};
use crate::adapter::block_weights::BlockWeights;
use crate::error::{ErrorKind, Locate, Result};
use crate::math::linalg::grams::Grams;
use crate::math::{LowRank, RankPolicy};
use crate::method::params::LAMBDA;
use crate::method::{self, Kind, Weighted};
use crate::ops::open_adapters;
use crate::ops::shared::advice::{Advice, advise};
use crate::ops::shared::facts::ModuleFacts;
use crate::ops::shared::method_name::AUTO;
use crate::ops::thread_pool;

/// The options with what the rule chooses in the place of `auto`, and why; as they are if a method is named.
///
/// # Errors
/// Adapters that cannot be read or combined, and options that are for one method alone.
pub(in crate::ops) fn settle(options: &Options) -> Result<(Options, Option<Advice>)> {
    let mut settled = options.clone();
    if options.method.as_deref() != Some(AUTO) {
        return Ok((settled, None));
    }
    let chosen = choose(options)?;
    settled.method.clone_from(&chosen.advice.method);
    for input in &mut settled.adapters {
        input.weight *= chosen.advice.factor;
    }
    let named = chosen.advice.method.as_deref().and_then(method::by_name);
    if named.is_some_and(|method| matches!(method.kind, Kind::Elementwise(_))) {
        // What elements are left of has no low rank of its own; so much holds what the inputs wrote.
        settled.rank = options.rank.or(Some(RankPolicy::Fixed(chosen.rank)));
    }
    Ok((settled, Some(chosen.advice)))
}

/// What the rule chooses.
pub(in crate::ops) struct Chosen {
    pub(in crate::ops) advice: Advice,
    /// The highest sum of ranks in any module.
    rank: usize,
}

/// Asks the rule about the adapters of some options, at their weights and selection.
///
/// # Errors
/// As [`settle`].
pub(in crate::ops) fn choose(options: &Options) -> Result<Chosen> {
    let has_params = options.params.keys().any(|name| name != LAMBDA.name);
    if has_params
        || !options.param_rules.is_empty()
        || options.space.is_some()
        || options.compat.is_some()
    {
        let reason = "--method auto chooses the method and its parameters; --lambda and weights go with it, --space, \
                      --compat and other parameters with a method that is named";
        return Err(ErrorKind::BadOption(reason.to_owned()).into());
    }
    let adapters = open_adapters(&options.adapters, &options.open)?;
    let common = align::common(&adapters);
    let adapters = align::align(adapters, common, options.reference.as_deref())?;
    let lists = options.block_weights.iter().map(|list| BlockWeights::new(list));
    let blocks: Vec<BlockWeights> = lists.collect::<Result<_>>()?;
    let (groups, _) = group::sort(options, &adapters, &blocks)?;
    let pool = thread_pool(options.threads)?;
    let modules: Vec<ModuleFacts> = pool.install(|| {
        let modules = groups.par_iter().map(|group| {
            let deltas = weighted(&adapters, group).in_tensor(&group.name)?;
            let numbers: Vec<usize> = deltas.iter().map(|input| input.adapter).collect();
            let deltas: Vec<LowRank> = deltas.iter().map(Weighted::delta).collect();
            let grams = Grams::of(&deltas);
            Ok(ModuleFacts::new(adapters.len(), &numbers, &grams, group.is_convolution()))
        });
        modules.collect::<Result<_>>()
    })?;
    let (facts, _) = ModuleFacts::all(adapters.len(), &modules);
    let ranks = groups.iter().map(|group| group.members.iter().map(|m| m.rank).sum());
    Ok(Chosen { advice: advise(&facts), rank: ranks.max().unwrap_or(1) })
}
