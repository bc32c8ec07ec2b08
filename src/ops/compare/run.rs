//! A comparison from the options to the report.

use rayon::prelude::*;

use super::clusters::{by_interest, clusters};
use super::report::{AdapterSummary, Measures, ModulePair, Pair, Report};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::natural::natural;
use crate::math::linalg::grams::Grams;
use crate::math::linalg::spectrum::{overlap, sign_conflict};
use crate::math::rank::policy::Candidate;
use crate::math::{LowRank, Matrix, RankPolicy};
use crate::ops::combine::group::{Group, group};
use crate::ops::combine::{self, align};
use crate::ops::shared::advice::advise;
use crate::ops::shared::facts::ModuleFacts;
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::shared::spills::PairSpill;
use crate::ops::thread_pool;
use crate::ops::{Progress, open_adapters};

/// Elements at which signs are compared, over all modules.
const SAMPLES: usize = 200_000;
/// The fewest of them in one module.
const LEAST_SAMPLES: usize = 256;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapters, with the weights they would have in a sum.
    pub adapters: Vec<AdapterInput>,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// Chooses the elements at which signs are compared.
    pub seed: u64,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// Compares all adapters with one another.
///
/// # Errors
/// If an adapter cannot be read, or has updates that do not add up (DoRA).
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Report> {
    if options.adapters.len() < 2 {
        return Err(
            ErrorKind::BadOption("a comparison takes two adapters or more".to_owned()).into()
        );
    }
    let adapters = open_adapters(&options.adapters, &options.open)?;
    let common = align::common(&adapters);
    let adapters = align::align(adapters, common, None)?;
    // Grouping leaves out weights of 0, which a comparison may still ask about.
    let unweighted =
        options.adapters.iter().map(|input| AdapterInput { weight: 1.0, ..input.clone() });
    let grouping =
        combine::Options { adapters: unweighted.collect(), ..combine::Options::default() };
    let groups = group(&grouping, &adapters, &[])?;
    let pool = thread_pool(options.threads)?;
    progress.begin(groups.len() as u64);
    let samples = (SAMPLES / groups.len().max(1)).max(LEAST_SAMPLES);
    let compared: Vec<Compared> = pool.install(|| {
        let modules = groups.par_iter().enumerate().map(|(at, group)| {
            let seed = options.seed.wrapping_add(at as u64);
            let compared = Compared::new(options, &adapters, group, (samples, seed));
            let compared = compared.in_tensor(&group.name);
            progress.advance(1);
            compared
        });
        modules.collect::<Result<_>>()
    })?;
    Ok(summarise(options, &adapters, &compared))
}

/// One module: inner products of all its adapters, and what else a pair needs.
struct Compared {
    name: String,
    /// Number of the adapter of each member.
    members: Vec<usize>,
    /// ⟨Δᵢ, Δⱼ⟩ of members.
    gram: Matrix,
    /// What the weighted deltas are to each other.
    facts: ModuleFacts,
    /// (a, b) as members → (output overlap, input overlap, sign conflict).
    pairs: Vec<(usize, usize, [f64; 3])>,
}

impl Compared {
    fn new(
        options: &Options,
        adapters: &[Adapter],
        group: &Group,
        (samples, seed): (usize, u64),
    ) -> Result<Self> {
        let mut weights = Vec::with_capacity(group.members.len());
        let mut deltas = Vec::with_capacity(group.members.len());
        let mut bases = Vec::with_capacity(group.members.len());
        for member in &group.members {
            let adapter = adapters.get(member.adapter).ok_or(ErrorKind::NotFound)?;
            let module = adapter.modules.get(member.module).ok_or(ErrorKind::NotFound)?;
            let factors = adapter.factors(module)?;
            let scale = module.scale.value;
            let delta = LowRank::new(factors.up * scale, factors.down);
            bases.push(basis(&delta, group));
            let weight = options.adapters.get(member.adapter).map_or(1.0, |input| input.weight);
            weights.push(weight);
            deltas.push(delta);
        }
        let count = deltas.len();
        let grams = Grams::of(&deltas);
        let mut gram = Matrix::zeros(count, count);
        let mut pairs = Vec::new();
        for (a, first) in deltas.iter().enumerate() {
            for (b, second) in deltas.iter().enumerate().skip(a) {
                let inner = grams.inner(a, b);
                gram[(a, b)] = inner;
                gram[(b, a)] = inner;
                if let (true, Some(x), Some(y)) = (a != b, bases.get(a), bases.get(b)) {
                    let conflict = sign_conflict(first, second, samples, seed);
                    pairs.push((a, b, [overlap(&x.0, &y.0), overlap(&x.1, &y.1), conflict]));
                }
            }
        }
        let members: Vec<usize> = group.members.iter().map(|member| member.adapter).collect();
        let grams = grams.weighted(&weights);
        let facts = ModuleFacts::new(adapters.len(), &members, &grams, group.is_convolution());
        Ok(Self { name: group.name.clone(), members, gram, facts, pairs })
    }

    /// ⟨Δₐ, Δ_b⟩ of two adapters; 0 where one has no such module.
    fn inner(&self, a: usize, b: usize) -> f64 {
        let at = |adapter| self.members.iter().position(|member| *member == adapter);
        match (at(a), at(b)) {
            (Some(a), Some(b)) => self.gram[(a, b)],
            _ => 0.0,
        }
    }
}

/// Orthonormal bases of the spaces that a delta writes to and reads from.
fn basis(delta: &LowRank, group: &Group) -> (Matrix, Matrix) {
    let svd = delta.svd();
    let singular_values = svd.singular_values().to_vec();
    let zero = singular_values.first().is_none_or(|first| *first == 0.0);
    let (rows, columns) = (group.outputs, group.inputs);
    let candidate = Candidate { singular_values, rows, columns, scale: 1.0 };
    svd.vectors(if zero { 0 } else { RankPolicy::Lossless.of(&candidate) })
}

fn measures(inner: f64, (a, b): (f64, f64), (wa, wb): (f64, f64), others: [f64; 3]) -> Measures {
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    Measures {
        cosine: ratio(inner, (a * b).sqrt()).clamp(-1.0, 1.0),
        output_overlap: others[0],
        input_overlap: others[1],
        sign_conflict: others[2],
        norm_ratio: ratio(wa.abs() * a.sqrt(), wb.abs() * b.sqrt()),
    }
}

fn summarise(options: &Options, adapters: &[Adapter], compared: &[Compared]) -> Report {
    let weight = |at: usize| options.adapters.get(at).map_or(1.0, |input| input.weight);
    let count = adapters.len();
    let total = |a: usize, b: usize| compared.iter().map(|module| module.inner(a, b)).sum::<f64>();
    let gram = Matrix::from_fn(count, count, total);
    let (facts, spill) = ModuleFacts::all(count, compared.iter().map(|module| &module.facts));
    let mut pairs = Vec::new();
    for a in 0..count {
        for b in a + 1..count {
            pairs.push(pair(compared, &gram, (a, b), (weight(a), weight(b))));
        }
    }
    let summaries = adapters.iter().enumerate().map(|(at, adapter)| AdapterSummary {
        path: adapter.path.clone(),
        weight: weight(at),
        modules: adapter.modules.len(),
        norm: gram[(at, at)].max(0.0).sqrt(),
        spill: spill.on(at),
    });
    let (spills, mean) = (PairSpill::of_all(&spill, count), spill.mean());
    let advice = advise(&facts);
    let (by_interest, clusters) = (by_interest(&pairs), clusters(count, &pairs));
    let adapters = summaries.collect();
    Report { adapters, pairs, by_interest, clusters, spills, spill: mean, advice }
}

fn pair(compared: &[Compared], gram: &Matrix, (a, b): (usize, usize), weights: (f64, f64)) -> Pair {
    let mut modules = Vec::new();
    let mut means = [0.0; 3];
    for module in compared {
        let is_pair = |x: usize, y: usize| {
            (module.members.get(x), module.members.get(y)) == (Some(&a), Some(&b))
        };
        let Some((_, _, others)) = module.pairs.iter().find(|(x, y, _)| is_pair(*x, *y)) else {
            continue;
        };
        let norms = (module.inner(a, a), module.inner(b, b));
        let measures = measures(module.inner(a, b), norms, weights, *others);
        modules.push(ModulePair { name: module.name.clone(), measures });
        for (mean, other) in means.iter_mut().zip(others) {
            *mean += other;
        }
    }
    modules.sort_by(|a: &ModulePair, b| natural(&a.name, &b.name));
    let shared = modules.len();
    let means = means.map(|sum| if shared > 0 { sum / shared as f64 } else { 0.0 });
    let measures = measures(gram[(a, b)], (gram[(a, a)], gram[(b, b)]), weights, means);
    Pair { a, b, shared_modules: shared, measures, modules }
}
