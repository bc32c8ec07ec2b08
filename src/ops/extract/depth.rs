//! How deep each difference must be looked into for a rank policy, and what rank it gives.

use super::options::{Options, RankChoice};
use crate::error::{ErrorKind, Result};
use crate::math::elements::random::Stream;
use crate::math::linalg::panels::Panels;
use crate::math::linalg::sketch::{Settings, Sketch, exact, sketch};
use crate::math::rank::noise::above_noise;
use crate::math::rank::policy::Candidate;
use crate::math::{Matrix, RankPolicy};

/// Singular values that are looked for first where the policy does not say how many.
const FIRST_DEPTH: usize = 32;

/// A sketch seen by a rank policy: its accurate values, and the rest of the energy spread evenly over
/// the values that were not looked for. Whoever wants more than the accurate ones must look deeper.
pub(in crate::ops) fn candidate(sketch: &Sketch, rows: usize, columns: usize) -> Candidate {
    let mut singular_values = sketch.singular_values().to_vec();
    let unseen = rows.min(columns).saturating_sub(singular_values.len());
    let last = singular_values.last().copied().unwrap_or(0.0);
    if unseen > 0 && !sketch.exact {
        let each = (sketch.squared_error(sketch.rank) / unseen as f64).sqrt().min(last);
        singular_values.extend(std::iter::repeat_n(each, unseen));
    }
    Candidate { singular_values, rows, columns, scale: 1.0 }
}

/// The rank that a policy of one module's own gives: 0 where nothing is above the noise.
pub(super) fn rank_of(choice: RankChoice, sketch: &Sketch, rows: usize, columns: usize) -> usize {
    match choice {
        RankChoice::Auto => {
            above_noise(sketch.singular_values(), sketch.squared_norm, rows, columns)
        }
        RankChoice::Policy(policy) => policy.of(&candidate(sketch, rows, columns)),
    }
}

/// Looks into a difference until its policy is sure of the rank, or `least` values are known.
///
/// # Errors
/// If reading fails.
pub(in crate::ops) fn look<P: Panels<Error = crate::Error>>(
    panels: &mut P,
    choice: RankChoice,
    options: &Options,
    stream: Stream,
    least: usize,
) -> Result<Sketch> {
    let (rows, columns) = (panels.rows(), panels.columns());
    let full = rows.min(columns);
    let most = options.max_rank.unwrap_or(usize::MAX).min(full);
    let whole = matches!(
        choice,
        RankChoice::Policy(RankPolicy::Nuclear(_) | RankPolicy::KohyaCumulative(_))
    );
    if options.exact || (whole && most == full) {
        return exact(panels);
    }
    let mut depth = match choice {
        RankChoice::Policy(RankPolicy::Fixed(rank)) => rank,
        _ => FIRST_DEPTH,
    };
    depth = depth.max(least).min(most).max(1);
    let mut start: Option<Matrix> = None;
    let mut passes = 0;
    loop {
        let settings = Settings { start: start.as_ref(), ..Settings::new(depth, stream) };
        let mut found = sketch(panels, &settings)?;
        passes += found.passes;
        found.passes = passes;
        if !found.squared_norm.is_finite() || found.exact || depth >= most {
            return Ok(found);
        }
        let settled = match choice {
            RankChoice::Policy(RankPolicy::Fixed(_)) => true,
            // Shares are settled when all modules are known.
            RankChoice::Policy(policy) if policy.is_global() => true,
            _ => rank_of(choice, &found, rows, columns) < depth,
        };
        if settled {
            return Ok(found);
        }
        start = Some(found.svd.vectors(depth).1);
        depth = depth.saturating_mul(2).min(most);
    }
}

/// Fails if a policy cannot be had.
pub(super) fn check(options: &Options) -> Result<()> {
    if options.max_rank == Some(0) {
        return Err(ErrorKind::BadOption("--max-rank 0 would leave nothing".to_owned()).into());
    }
    let global = |choice: &RankChoice| match choice {
        RankChoice::Policy(policy) if policy.is_global() => Some(policy.to_string()),
        _ => None,
    };
    let Some(conv) = &options.conv_rank else { return Ok(()) };
    let Some(shared) = global(&options.rank).or(global(conv)) else { return Ok(()) };
    let reason = format!(
        "{shared} is shared out over all modules; leave out --conv-rank, or give both a rank of their own"
    );
    Err(ErrorKind::BadOption(reason).into())
}
