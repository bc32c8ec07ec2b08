//! What the adapters of a collection have: modules, ranks and norms, from one look at each of them.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::document::ModuleSpec;
use super::sources::{Sources, check_plain, delta};
use crate::adapter::Adapter;
use crate::adapter::module::{Kind, Module};
use crate::adapter::sidecar::PeftConfig;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Dtype, TensorSpec};
use crate::math::LowRank;
use crate::ops::Progress;
use crate::weight::element::widest;

/// A module of an adapter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Where it is among the adapter's own modules.
    pub(super) at: usize,
    pub(super) rank: usize,
    /// ‖Δ‖² of the module.
    pub(super) energy: f64,
}

/// An adapter, as far as it concerns a collection.
#[derive(Debug, Clone)]
pub(super) struct Surveyed {
    /// By the module's number in the collection.
    pub(super) parts: BTreeMap<usize, Part>,
    /// ‖Δ‖² of all modules.
    pub(super) energy: f64,
    /// PEFT's config, as one of plain factors.
    pub(super) config: Option<Map<String, Value>>,
    /// Bytes of its tensors.
    pub(super) bytes: u64,
}

impl Surveyed {
    /// What the adapter's squared distances are multiplied by, so that all adapters count alike.
    pub(super) fn weight(&self) -> f64 {
        if self.energy > 0.0 { 1.0 / self.energy } else { 0.0 }
    }

    /// The update of a module of the collection, if the adapter has it.
    ///
    /// # Errors
    /// If reading fails.
    pub(super) fn delta(&self, adapter: &Adapter, module: usize) -> Result<Option<LowRank>> {
        let module = self.parts.get(&module).and_then(|part| adapter.modules.get(part.at));
        module.map(|module| delta(adapter, module)).transpose()
    }
}

/// All adapters, and the modules that any of them has.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) modules: Vec<ModuleSpec>,
    pub(super) adapters: Vec<Surveyed>,
    /// A dtype that holds the values of all factors.
    pub(super) dtype: Dtype,
}

/// What one look finds out.
struct Look {
    modules: Vec<(ModuleSpec, Part)>,
    dtype: Dtype,
    config: Option<Map<String, Value>>,
    bytes: u64,
}

/// Looks at every adapter once.
///
/// # Errors
/// What is wrong with any of them, in their order: what cannot be collected, values that are not finite, modules of
/// other sizes than another adapter's.
pub(super) fn survey(sources: &Sources, progress: &dyn Progress) -> Result<Survey> {
    progress.begin(sources.len() as u64);
    let look = |at: usize| {
        let found = look(&sources.open(at)?);
        progress.advance(1);
        found
    };
    let looks: Vec<Result<Look>> = (0..sources.len()).into_par_iter().map(look).collect();
    let looks: Vec<Look> = looks.into_iter().collect::<Result<_>>()?;
    let mut specs: BTreeMap<&str, &ModuleSpec> = BTreeMap::new();
    for (look, source) in looks.iter().zip(&sources.all) {
        for (spec, _) in &look.modules {
            let first = *specs.entry(&spec.name).or_insert(spec);
            if first != spec {
                let expected =
                    format!("{} × {} as in another adapter", first.outputs, first.inputs);
                let found = vec![spec.outputs, spec.inputs];
                return Err(ErrorKind::BadShape { expected, found })
                    .in_tensor(&spec.name)
                    .in_file(&source.path);
            }
        }
    }
    let modules: Vec<ModuleSpec> = specs.into_values().cloned().collect();
    let numbers: BTreeMap<&str, usize> =
        modules.iter().enumerate().map(|(at, spec)| (spec.name.as_str(), at)).collect();
    let dtype = widest(looks.iter().map(|look| look.dtype));
    let adapters = looks.iter().map(|look| {
        let parts = look.modules.iter();
        let parts: BTreeMap<usize, Part> = parts
            .filter_map(|(spec, part)| Some((*numbers.get(spec.name.as_str())?, *part)))
            .collect();
        let energy = parts.values().map(|part| part.energy).sum();
        Surveyed { parts, energy, config: look.config.clone(), bytes: look.bytes }
    });
    Ok(Survey { adapters: adapters.collect(), dtype, modules: modules.clone() })
}

/// One adapter alone, its modules matched with those that are known.
///
/// # Errors
/// As [`survey`], and the first module that is not known, by what `unknown` makes of it.
pub(super) fn of_known(
    adapter: &Adapter,
    modules: &[ModuleSpec],
    unknown: impl Fn() -> ErrorKind,
) -> Result<Surveyed> {
    let look = look(adapter)?;
    let mut parts = BTreeMap::new();
    for (spec, part) in look.modules {
        let known = modules.iter().position(|module| *module == spec);
        let known = known
            .ok_or_else(|| crate::Error::from(unknown()).in_tensor(&spec.name))
            .in_file(&adapter.path)?;
        parts.insert(known, part);
    }
    let energy = parts.values().map(|part| part.energy).sum();
    Ok(Surveyed { parts, energy, config: look.config, bytes: look.bytes })
}

fn look(adapter: &Adapter) -> Result<Look> {
    check_plain(adapter)?;
    adapter.check_finite()?;
    let mut modules = Vec::with_capacity(adapter.modules.len());
    for (at, module) in adapter.modules.iter().enumerate() {
        let delta = delta(adapter, module)?;
        let (rank, energy) = (delta.rank(), delta.squared_norm());
        if !energy.is_finite() {
            return Err(ErrorKind::UpdateNotFinite { dtype: "f64" })
                .in_tensor(&module.name)
                .in_file(&adapter.path);
        }
        modules.push((spec(module), Part { at, rank, energy }));
    }
    let names = adapter.modules.iter().flat_map(Module::tensors);
    let dtypes = names.filter_map(|name| Some(adapter.file.tensor(name)?.spec.dtype));
    let config = adapter.config.as_ref().map(PeftConfig::as_lora);
    let tensors = adapter.file.shards.iter().flat_map(|shard| &shard.header.tensors);
    let bytes = tensors.map(TensorSpec::bytes).sum();
    Ok(Look { modules, dtype: widest(dtypes), config, bytes })
}

/// A 1 × 1 convolution and a linear layer are one matrix.
fn spec(module: &Module) -> ModuleSpec {
    let kind = match &module.kind {
        Kind::Channels => Kind::Linear,
        kind => kind.clone(),
    };
    let (outputs, inputs) = (module.outputs, module.inputs);
    ModuleSpec { name: module.name.clone(), kind, outputs, inputs }
}
