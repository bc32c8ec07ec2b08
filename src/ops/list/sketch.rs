//! Which adapters add nearly the same, whatever their factors, ranks, dtypes and conventions.
//!
//! Every module's update is applied to a fixed vector of random signs. For two adapters, the squared distance of
//! what comes out is in expectation the squared Frobenius distance of the updates (Hutchinson's estimator), whatever
//! the factors that they are written with. Modules are paired by their names, or else by what the probe makes of
//! them, so that another convention's names do not matter; one that joins projections in one module has others.

use crate::adapter::Adapter;
use crate::adapter::module::Module;
use crate::error::{Locate, Result};
use crate::math::elements::random::Stream;
use crate::math::{LowRank, Matrix};

/// Numbers that a module's outputs are folded to.
const FOLDED: usize = 4;
/// The seed of the signs: any will do, and this one always gives the same answer.
const SEED: u64 = 0;

type Values = [f64; FOLDED];
pub(super) type Shapes = Vec<(usize, usize)>;

/// What the modules of an adapter make of the probe.
pub(super) struct Sketch {
    /// Outputs and inputs of every module, ascending.
    pub(super) shapes: Shapes,
    /// What comes of each, modules of one shape by name.
    by_name: Vec<Values>,
    /// The same, modules of one shape by what comes of them.
    by_value: Vec<Values>,
    norm: f64,
}

/// The sketch of an adapter's update; none, if it depends on a base, has no factors, or is not finite.
///
/// # Errors
/// If the factors cannot be read.
pub(super) fn sketch(adapter: &Adapter) -> Result<Option<Sketch>> {
    let has_factors = |module: &Module| adapter.check_factors(module).is_ok();
    if !adapter.faults.is_empty() || !adapter.modules.iter().all(has_factors) {
        return Ok(None);
    }
    let mut modules = Vec::with_capacity(adapter.modules.len());
    for module in &adapter.modules {
        let factors =
            adapter.factors(module).in_tensor(&module.name).in_file(&adapter.file.path)?;
        let values = probed(&factors, module.scale.value);
        modules.push(((module.outputs, module.inputs), values));
    }
    // Modules are in the order of their names, which a stable sort keeps.
    modules.sort_by_key(|(shape, _)| *shape);
    let shapes = modules.iter().map(|(shape, _)| *shape).collect();
    let by_name: Vec<Values> = modules.iter().map(|(_, values)| *values).collect();
    let norm = by_name.iter().map(squared).sum::<f64>().sqrt();
    modules.sort_by(|(a, x), (b, y)| a.cmp(b).then(squared(x).total_cmp(&squared(y))));
    let by_value = modules.into_iter().map(|(_, values)| values).collect();
    Ok(norm.is_finite().then_some(Sketch { shapes, by_name, by_value, norm }))
}

/// scale · up · down · x, folded.
fn probed(factors: &LowRank, scale: f64) -> Values {
    let signs = |what: &str, count: usize| {
        let stream = Stream::new(SEED, what, 0);
        let mut bits = vec![0; count];
        stream.fill(0, &mut bits);
        bits.into_iter().map(|bits| if bits & 1 == 0 { 1.0 } else { -1.0 }).collect::<Vec<f64>>()
    };
    let probe = Matrix::from_vec(factors.columns(), 1, signs("probe", factors.columns()));
    let outputs = &factors.up * (&factors.down * probe);
    let mut folded = [0.0; FOLDED];
    for (at, (value, sign)) in outputs.iter().zip(signs("fold", factors.rows())).enumerate() {
        if let Some(sum) = folded.get_mut(at % FOLDED) {
            *sum += scale * sign * value;
        }
    }
    folded
}

fn squared(values: &Values) -> f64 {
    values.iter().map(|value| value * value).sum()
}

/// How far two updates of the same shapes are apart, relative to the larger.
pub(super) fn distance(a: &Sketch, b: &Sketch) -> f64 {
    let larger = a.norm.max(b.norm);
    if larger == 0.0 {
        return 0.0;
    }
    let apart = |a: &[Values], b: &[Values]| {
        let difference = |(a, b): (&Values, &Values)| -> f64 {
            a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        a.iter().zip(b).map(difference).sum::<f64>().sqrt() / larger
    };
    apart(&a.by_name, &b.by_name).min(apart(&a.by_value, &b.by_value))
}
