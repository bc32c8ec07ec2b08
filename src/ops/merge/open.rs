//! A plan with its inputs open: how options become one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::compute::making::Making;
use super::plan::gguf_types::{self, Type};
use super::plan::layout::OutputShard;
use super::plan::open_inputs::{OpenInputs, Quantised};
use super::plan::options::Options;
use super::plan::output::Plan;
use super::plan::recoding::Recoding;
use super::plan::{
    self, bind, consensus, inputs, layout, method_choice, origin, recast, sibling, side, trained,
};
use crate::adapter::promised;
use crate::error::Result;
use crate::format::{Checkpoint, Metadata};
use crate::ops::merge::OutputTensor;
use crate::ops::shared::base::open_stored;
use crate::ops::shared::provenance;
use crate::ops::{files_of, thread_pool};

/// A plan, its inputs open, and the options that asked for it.
#[derive(Debug)]
pub struct Merge {
    /// What will be written.
    pub plan: Plan,
    /// What it is made from.
    pub inputs: OpenInputs,
    pub(in crate::ops::merge) options: Options,
    /// What kept shards must have been made for, if they are kept.
    pub(in crate::ops::merge) resume: Option<String>,
}

/// Opens the inputs and decides the output; `raised` has types of weights of a GGUF result that their own is too small
/// for.
pub(in crate::ops::merge) fn prepare_with(
    asked: &Options,
    raised: &BTreeMap<String, Type>,
) -> Result<Merge> {
    let (options, chosen) = &method_choice::settle(asked)?;
    let with: Vec<_> = options.adapters.iter().map(|input| input.path.as_path()).collect();
    options.check_together()?;
    let open = |path: &Path| open_stored(path, "a base", &with, options.open.access);
    let sibling = |path: &Path| open_stored(path, "a quantised", &[], options.open.access);
    let (mut values, mut as_trained) = (None, None);
    let mut quantised = match (&options.quantize_like, &options.as_trained) {
        (Some(path), _) => {
            let (base, own) = sibling::read(open(&options.base)?, sibling(path)?)?;
            values = Some(own);
            base
        }
        (None, Some(scheme)) => {
            let (base, report, read) = trained::read(options, scheme, open(&options.base)?)?;
            as_trained = Some((report, read));
            base
        }
        (None, None) => recast::open(options, open(&options.base)?)?,
    };
    let (as_trained, trained) = as_trained.unzip();
    let kept = || match &options.quantize_like {
        Some(path) => sibling(path),
        None => open(recast::kept_from(options)),
    };
    let method = method_choice::choose(options)?;
    let base = &quantised.checkpoint;
    let options = &method_choice::weights(&options.over_layers(base), method.as_ref())?;
    let inputs = inputs::open(options, base)?;
    let bound = bind::bind(&inputs.adapter_options(options), base, &inputs.adapters);
    let mut bound = bound.map_err(|error| quantised.explain(error))?;
    let base = &quantised.checkpoint;
    inputs.add_tuned(options, base, &mut bound)?;
    if let Some(method) = &method {
        consensus::bind(options, (method, &inputs), &mut bound)?;
        consensus::settle(options, (method, &inputs), base, &mut bound)?;
    }
    options.check_selection(&bound.usage, &bound.adapters)?;
    let one_file = layout::is_file(options, base)?;
    gguf_types::check(options.types, options.is_gguf())?;
    quantised.settle(options, &bound, raised, kept)?;
    let dtypes = quantised.dtypes(options)?;
    let base = &quantised.checkpoint;
    let shards =
        layout::shards(options, (base, &dtypes, quantised.recoding.as_ref()), &bound, one_file)?;
    let sides =
        side::collect((base, &dtypes, quantised.recoding.as_ref()), &bound, &shards, one_file)?;
    bound.warnings.extend(sides.warnings);
    for adapter in &inputs.adapters {
        let missing = promised::missing(adapter, Some(base.names()));
        bound.warnings.extend(missing.map(|text| format!("{}: {text}", adapter.path.display())));
    }
    let plan = Plan {
        base: options.base.clone(),
        chosen: chosen.clone(),
        adapters: bound.adapters,
        output: options.output.clone(),
        method,
        recipe: options.recipe.clone(),
        asked: asked.provenance.then(|| plan::asked::asked(asked)).transpose()?,
        origin: None,
        one_file,
        bytes: shards.iter().map(OutputShard::bytes).sum(),
        dequantised: quantised.dequantised(
            shards.iter().flat_map(|shard| &shard.tensors).filter_map(OutputTensor::source),
        ),
        requantised: quantised.requantised(options),
        prediction: None,
        as_trained,
        shards,
        side_files: sides.carried,
        not_carried: sides.not_carried,
        unmatched: bound.unmatched,
        warnings: bound.warnings,
    };
    let inputs::Inputs { adapters, tuned, .. } = inputs;
    let recast = quantised.recast;
    let stored = quantised.recoding.map(|recoding| {
        let Recoding { stored, weights, .. } = recoding;
        Quantised { stored, weights, writing: options.writing }
    });
    Ok(Merge {
        plan,
        inputs: OpenInputs {
            base: quantised.checkpoint,
            adapters,
            tuned,
            quantised: stored,
            values,
            trained,
            recast,
        },
        options: asked.clone(),
        resume: None,
    })
}

/// The name of the output head that a checkpoint does not store, because its input embedding is it.
///
/// # Errors
/// If there is a config that cannot be read.
pub(in crate::ops) fn tied_head(base: &Checkpoint) -> Result<Option<String>> {
    Ok(crate::weight::tied::find(base)?.map(|tied| tied.head))
}

impl Merge {
    /// Every file that is read, also those that no option names: shards, configs, side files.
    pub(in crate::ops) fn input_files(&self) -> Vec<PathBuf> {
        let models = self.inputs.models().flat_map(|model| &model.shards);
        let models = models.map(|shard| shard.path.clone());
        let side_files = self.plan.side_files.iter().filter_map(|file| file.source.clone());
        models.chain(self.inputs.adapters.iter().flat_map(files_of)).chain(side_files).collect()
    }

    /// What its shards are made from.
    pub(in crate::ops) fn making(&self) -> Making<'_> {
        Making { plan: &self.plan, inputs: &self.inputs, block_rows: self.options.block_rows }
    }

    /// Threads that compute; 0 for one a core.
    pub(in crate::ops) fn threads(&self) -> usize {
        self.options.threads
    }

    /// What every header says of where the result comes from, if a recipe asked for it.
    ///
    /// # Errors
    /// If an input cannot be read for its hash.
    pub(in crate::ops) fn origin(&self) -> Result<Option<Metadata>> {
        origin::metadata(&self.plan, &self.inputs)
    }

    /// Takes what the header of a result says of where it comes from for its own, where it is true of these inputs.
    ///
    /// # Errors
    /// If an input cannot be read for its hash.
    pub(in crate::ops) fn expect_origin(&mut self, header: Option<&Metadata>) -> Result<()> {
        let found = header.map(provenance::entries).unwrap_or_default();
        let Some(made) = found.get(provenance::MADE) else {
            self.plan.asked = None;
            return Ok(());
        };
        self.plan.asked = Some(plan::asked::asked(&self.options)?);
        let expected = thread_pool(self.options.threads)?.install(|| self.origin())?;
        let expected = expected.as_ref().and_then(|expected| expected.get(provenance::MADE));
        if expected.is_some_and(|expected| provenance::agree(expected, made)) {
            self.plan.origin = Some(found);
        }
        Ok(())
    }

    /// Takes a text for the recipe that asked for the merge, if there is none; whether it did.
    pub(in crate::ops) fn take_recipe(&mut self, text: String) -> bool {
        let none = self.plan.recipe.is_none();
        self.plan.recipe.get_or_insert(text);
        none
    }
}
