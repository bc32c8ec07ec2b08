//! What quantising takes from a merge, given back beside it: the dense merge minus the quantised one, as a PEFT adapter
//! of a rank. No difference is ever held: each is decomposed from passes over its rows (`math/linalg/sketch.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::compute::lost::{Given, Lost};
use super::open::Merge;
use super::plan::tensor_plan::{Encode, TensorPlan};
use crate::adapter::convention;
use crate::adapter::module::{Kind, Nature};
use crate::adapter::save::{NewAdapter, NewModule};
use crate::error::{ErrorKind, Locate, PairError, Result};
use crate::format::{Checkpoint, Dtype, Metadata};
use crate::math::RankPolicy;
use crate::math::elements::random::Stream;
use crate::ops::extract::{self, Form, RankChoice, depth};
use crate::ops::merge::OutputTensor;
use crate::ops::write::Destination;

/// The adapter that gives back what quantising took.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Residual {
    /// Where it is.
    pub output: PathBuf,
    /// Its rank.
    pub rank: usize,
    /// Bytes of its tensors' file.
    pub bytes: u64,
    /// ‖dense − quantised‖ over ‖update‖, of all weights together.
    pub lost: f64,
    /// The same of the quantised merge with the adapter.
    pub left: f64,
    /// Of each weight.
    pub modules: Vec<ResidualModule>,
    /// Weights that no module of an adapter stands for: what they lost stays lost.
    pub left_out: Vec<String>,
}

/// What one weight lost and has back.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ResidualModule {
    /// The weight.
    pub name: String,
    /// ‖dense − quantised‖ / ‖update‖.
    pub lost: f64,
    /// ‖dense − quantised − residual‖ / ‖update‖.
    pub left: f64,
    /// The share of the update that the quantised weight and the residual hold together.
    pub gain: f64,
}

/// An adapter that is made and not yet written.
pub(in crate::ops::merge) struct Made {
    adapter: NewAdapter,
    report: Residual,
}

impl Merge {
    /// Decomposes what every weight that is quantised loses, if that is asked for; on the current pool's threads.
    ///
    /// # Errors
    /// Reading; an update that is lost to the end although its weight has a module.
    pub(in crate::ops::merge) fn residual(&self) -> Result<Option<Made>> {
        let Some(output) = &self.options.residual else { return Ok(None) };
        let rank = self.options.residual_rank.unwrap_or_else(|| self.largest_rank()).max(1);
        let base = &self.inputs.base;
        let orientation = &self.options.open.orientation;
        let pairs = extract::modules_of(base, orientation, convention::peft())?;
        let pairs: BTreeMap<&str, &extract::Pair> =
            pairs.iter().map(|pair| (pair.base.as_str(), pair)).collect();
        let again = self.plan.tensors().filter_map(|tensor| match &tensor.plan {
            TensorPlan::Encode(Encode { part: 0, dense }) if dense.plan.changes() => Some(&**dense),
            _ => None,
        });
        let (mut wanted, mut left_out) = (Vec::new(), Vec::new());
        for dense in again {
            match pairs.get(dense.base.as_str()).map(|pair| (&pair.module, &pair.form)) {
                Some((module, Form::Factors { kind: Kind::Linear, turned })) => {
                    wanted.push((dense, module, *turned));
                }
                _ => left_out.push(dense.full_name.clone()),
            }
        }
        let made = wanted.par_iter().map(|(dense, module, turned)| {
            self.give_back(dense, (module, *turned), rank).in_tensor(&dense.full_name)
        });
        let made: Vec<(NewModule, Given)> = made.collect::<Result<_>>()?;
        let sum = |of: fn(&Given) -> f64| made.iter().map(|(_, given)| of(given)).sum::<f64>();
        let asked = sum(|given| given.asked);
        let share = |part: f64, all: f64| if all > 0.0 { (part / all).sqrt() } else { 0.0 };
        let modules = wanted.iter().zip(&made).map(|((dense, ..), (_, given))| ResidualModule {
            name: dense.full_name.clone(),
            lost: share(given.lost, given.asked),
            left: share(given.left, given.asked),
            gain: if given.asked > 0.0 { given.dot / given.asked } else { 1.0 },
        });
        let report = Residual {
            output: output.clone(),
            rank,
            bytes: 0,
            lost: share(sum(|given| given.lost), asked),
            left: share(sum(|given| given.left), asked),
            modules: modules.collect(),
            left_out,
        };
        if report.modules.is_empty() {
            let reason = "no weight that is quantised again is a linear layer".to_owned();
            return Err(PairError::Nothing(reason)).in_file(output);
        }
        let any_turned = wanted.iter().any(|(.., turned)| *turned);
        let adapter = NewAdapter {
            modules: made.into_iter().map(|(module, _)| module).collect(),
            replacements: Vec::new(),
            metadata: self.described(rank),
            config: Some(self.config(any_turned)?),
            stacks: BTreeMap::new(),
            target_modules: None,
            kept: None,
        };
        Ok(Some(Made { adapter, report }))
    }

    /// What a weight loses, as a module of the rank, and what that gives back of it.
    fn give_back(
        &self,
        dense: &OutputTensor,
        (module, turned): (&str, bool),
        rank: usize,
    ) -> Result<(NewModule, Given)> {
        let mut lost = Lost::new(self.making(), dense)?;
        let choice = RankChoice::Policy(RankPolicy::Fixed(rank));
        let options = extract::Options::default();
        let stream = Stream::new(options.seed, &dense.full_name, 0);
        let sketch = depth::look(&mut lost, choice, &options, stream, 0)?;
        if !sketch.squared_norm.is_finite() {
            return Err(ErrorKind::UpdateNotFinite { dtype: "f32" }.into());
        }
        let factors = sketch.svd.truncate(rank.min(sketch.singular_values().len()));
        let given = lost.with(&factors)?;
        let factors = if turned { factors.transposed() } else { factors };
        let new = NewModule::new(module, &Kind::Linear, &factors, 1.0, None, Dtype::F32)?;
        Ok((new, given))
    }

    /// The largest rank of the adapters' modules.
    fn largest_rank(&self) -> usize {
        let modules = self.inputs.adapters.iter().flat_map(|adapter| &adapter.modules);
        let ranks = modules.filter_map(|module| match module.form.nature() {
            Nature::LowRank(rank) => Some(rank),
            Nature::Full | Nature::Dense | Nature::Dependent => None,
        });
        ranks.max().unwrap_or(DEFAULT_RANK)
    }

    fn described(&self, rank: usize) -> Metadata {
        let made = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "residual_of": self.plan.output.file_name().unwrap_or_default().to_string_lossy(),
            "rank": rank,
        });
        Metadata::from_iter([
            ("format".to_owned(), "pt".to_owned()),
            ("lora_tool".to_owned(), made.to_string()),
        ])
    }

    /// The fields of PEFT's config that do not follow from the modules.
    fn config(&self, turned: bool) -> Result<Map<String, Value>> {
        let task = extract::task(&self.inputs.base)?;
        let base = self.plan.output.to_string_lossy().into_owned();
        let config = json!({
            "peft_type": "LORA", "base_model_name_or_path": base, "task_type": task, "bias": "none",
            "fan_in_fan_out": turned, "lora_dropout": 0.0, "inference_mode": true,
        });
        Ok(if let Value::Object(config) = config { config } else { Map::new() })
    }
}

/// The rank where no adapter has one.
const DEFAULT_RANK: usize = 16;

impl Made {
    /// What of each update the quantised weight and the residual hold together.
    pub(in crate::ops::merge) fn gains(&self) -> Vec<(&str, f64)> {
        self.report.modules.iter().map(|module| (module.name.as_str(), module.gain)).collect()
    }

    /// Writes it and puts it in place.
    ///
    /// # Errors
    /// I/O, inputs that changed; nothing is left at its path then.
    pub(in crate::ops::merge) fn write(mut self, merge: &Merge) -> Result<Residual> {
        let inputs: Vec<&Checkpoint> = merge.inputs.models().collect();
        let first = inputs.first().and_then(|base| base.shards.first());
        let destination = Destination {
            native: convention::peft(),
            target: convention::peft(),
            program: None,
            reference: None,
            output: &self.report.output,
            beside: first.map_or(&merge.plan.base, |shard| &shard.path),
            force: merge.options.force,
        };
        self.report.bytes = destination.write(self.adapter, &inputs, &())?;
        Ok(self.report)
    }
}
