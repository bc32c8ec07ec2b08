//! inspect: what is in these adapters or checkpoints. Reads headers only.

mod encodings;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::adapter::module::{Kind, Module, Replaces};
use crate::adapter::place::Placement;
use crate::adapter::scale::ScaleSource;
use crate::adapter::sidecar::CONFIG_NAME;
use crate::adapter::training::summary;
use crate::adapter::{Adapter, OpenOptions, convention, layout, orientation, promised, target};
use crate::error::{Error, ErrorKind, Locate, Result, UnmatchedName};
use crate::format::checkpoint::{Layout, PICKLES};
use crate::format::json::model_config;
use crate::format::natural::natural;
use crate::format::{Checkpoint, Metadata, TensorSpec};
use crate::math::linalg::spectrum::Spectrum;
use crate::ops::merge::plan::misfit::{self, Misfit};
use crate::ops::merge::tied_head;
use crate::ops::shared::base::open_base;
use crate::ops::shared::model_family;

pub use encodings::EncodingItem;
pub use report::{Item, ModuleItem, ReplacementItem, Report, ShardItem, SpectrumItem, TensorItem};

/// Modules that are named one by one in notes; of more there are the number and the first.
const LISTED: usize = 4;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Adapters or checkpoints.
    pub paths: Vec<PathBuf>,
    /// A base to find the adapters' targets in.
    pub against: Option<PathBuf>,
    /// Read the factors and describe each module's singular values.
    pub spectrum: bool,
    /// List the tensors of checkpoints.
    pub tensors: bool,
    /// How adapters are opened.
    pub open: OpenOptions,
}

/// Looks at every path.
///
/// # Errors
/// If a path is neither a readable adapter nor a readable checkpoint. Faults of single modules are
/// warnings here.
pub fn run(options: &Options) -> Result<Report> {
    let with: Vec<_> = options.paths.iter().map(PathBuf::as_path).collect();
    let base = options.against.as_ref().map(|path| open_base(path, &with, options.open.access));
    let base = base.transpose()?;
    let mut items = Vec::with_capacity(options.paths.len());
    for path in &options.paths {
        items.push(if is_adapter(path, options)? {
            adapter_item(path, options, base.as_ref())?
        } else {
            checkpoint_item(path, options)?
        });
    }
    Ok(Report { items })
}

/// An adapter has its config beside it, or keys that only adapters have.
fn is_adapter(path: &Path, options: &Options) -> Result<bool> {
    if options.open.convention.is_some() || path.join(CONFIG_NAME).is_file() {
        return Ok(true);
    }
    if path.is_dir() && path.join("adapter_model.safetensors").is_file() {
        return Ok(true);
    }
    if path.extension().is_some_and(|end| PICKLES.iter().any(|p| end == *p)) {
        return Ok(false);
    }
    if path.to_string_lossy().ends_with(".index.json") {
        return Ok(false);
    }
    let file = Checkpoint::open(path, options.open.access)?;
    let spelled = |key: &str| convention::CONVENTIONS.iter().any(|c| (c.recognises)(key));
    Ok(file.names().any(spelled))
}

fn common(path: &Path, kind: &'static str, file: &Checkpoint) -> Item {
    let mut item = Item { path: path.to_path_buf(), kind, tensors: file.len(), ..Item::default() };
    for spec in file.shards.iter().flat_map(|shard| &shard.header.tensors) {
        item.parameters += spec.elements() as u64;
        item.bytes += spec.bytes();
        *item.dtypes.entry(spec.dtype.to_string()).or_default() += 1;
    }
    if let Some(metadata) = file.shards.first().and_then(|shard| shard.header.metadata.as_ref()) {
        item.metadata = shorten(metadata);
    }
    item
}

/// Metadata for reading: kohya keeps whole tag tables in single values.
fn shorten(metadata: &Metadata) -> Map<String, Value> {
    let short = |(key, value): (&String, &String)| (key.clone(), summary(key, value).into());
    metadata.iter().map(short).collect()
}

fn checkpoint_item(path: &Path, options: &Options) -> Result<Item> {
    let file = Checkpoint::open(path, options.open.access)?;
    let mut item = common(path, "checkpoint", &file);
    let shards = file.shards.iter().map(|shard| ShardItem {
        file: shard.relative.clone(),
        tensors: shard.header.tensors.len(),
        bytes: shard.header.tensors.iter().map(TensorSpec::bytes).sum(),
    });
    item.shards = Some(shards.collect());
    (item.model, item.layers) = told_by_config(path)?;
    item.tensor_list = options.tensors.then(|| tensor_list(&file));
    if options.spectrum {
        item.warnings.push(
            "a checkpoint has no factors to decompose; `lora-tool extract BASE TUNED` makes an adapter of a fine-tuned one"
                .to_owned(),
        );
    }
    match encodings::encodings(&file) {
        Ok(Some((encodings, parameters))) => {
            (item.encodings, item.parameters) = (Some(encodings), parameters);
        }
        Ok(None) => {}
        Err(error) => item.warnings.push(format!("its quantised weights cannot be read: {error}")),
    }
    match tied_head(&file) {
        Ok(Some(_)) => {
            item.warnings.push("the output head is tied to the input embedding".to_owned());
        }
        Ok(None) => {}
        Err(error) => item.warnings.push(error.to_string()),
    }
    if file.layout == Layout::Pipeline {
        let names: Vec<_> =
            file.components.iter().map(|c| c.prefix.trim_end_matches('/')).collect();
        item.warnings.push(format!("a pipeline of {}", names.join(", ")));
    }
    Ok(item)
}

/// The class of a model and how many layers it has, as its config says.
fn told_by_config(path: &Path) -> Result<(Option<String>, Option<u64>)> {
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let Some(config) = model_config(directory)? else { return Ok((None, None)) };
    let listed = config.get("architectures").and_then(|list| list.get(0));
    let class = listed.or_else(|| config.get("_class_name")).or_else(|| config.get("model_type"));
    let inner = config.get("text_config").and_then(Value::as_object).unwrap_or(&config);
    let mut layers = ["num_hidden_layers", "n_layer", "num_layers"].into_iter();
    let layers = layers.find_map(|field| inner.get(field)?.as_u64());
    Ok((class.and_then(Value::as_str).map(str::to_owned), layers))
}

/// All tensors, in natural order.
fn tensor_list(file: &Checkpoint) -> Vec<TensorItem> {
    let specs = file.shards.iter().flat_map(|shard| &shard.header.tensors);
    let mut list: Vec<TensorItem> = specs
        .map(|spec| TensorItem {
            name: spec.name.clone(),
            dtype: spec.dtype.to_string(),
            shape: spec.shape.clone(),
            bytes: spec.bytes(),
        })
        .collect();
    list.sort_by(|a, b| natural(&a.name, &b.name));
    list
}

fn adapter_item(path: &Path, options: &Options, base: Option<&Checkpoint>) -> Result<Item> {
    let open = base.map_or_else(|| Ok(options.open.clone()), |base| options.open.for_base(base))?;
    let adapter = match Adapter::open(path, &open) {
        Err(error) if matches!(error.kind(), ErrorKind::UnsupportedType { .. }) => {
            return unmergeable_item(path, options, error);
        }
        opened => opened?,
    };
    let mut item = common(path, "adapter", &adapter.file);
    item.convention = Some(adapter.convention.name);
    item.base_model = adapter.base_model().map(str::to_owned);
    item.model = model_family::family(&adapter, &model_family::Seen::default());
    item.parts = layout::counts(&adapter);
    item.rslora = adapter.config.as_ref().is_some_and(|config| config.rslora);
    let mut ranks = BTreeMap::new();
    for module in adapter.modules.iter().filter(|module| module.rank > 0) {
        *ranks.entry(module.rank).or_default() += 1;
    }
    item.ranks = Some(ranks);
    let find = |base| target::find(&adapter, base, tied_head(base)?.as_deref());
    let targets = base.map(find).transpose()?;
    let places = |at| targets.as_ref().and_then(|targets| targets.modules.get(at));
    let landing = |at: usize| places(at).cloned().unwrap_or_default();
    let modules = adapter.modules.iter().enumerate();
    let mut modules: Vec<_> =
        modules.map(|(at, m)| module_item(m, &adapter, landing(at))).collect();
    let misfits = match (base, &targets) {
        (Some(base), Some(targets)) => misfit::misfits(&adapter, base, targets)?,
        _ => Vec::new(),
    };
    for Misfit { name, error } in &misfits {
        if let Some(module) = modules.iter_mut().find(|module| module.name == *name) {
            module.misfit = Some(error.kind().to_string());
        }
    }
    let unsettled =
        base.map_or(0, |base| settle_orientation(&adapter, base, &places, &mut modules));
    if options.spectrum {
        add_spectra(&adapter, &mut modules)?;
    }
    modules.sort_by(|a, b| natural(&a.name, &b.name));
    item.modules = Some(modules);
    let replacements = adapter.replacements.iter().enumerate().map(|(at, replacement)| {
        let rows = match &replacement.replaces {
            Replaces::Rows(rows) => Some(rows.len()),
            _ => None,
        };
        let base_tensor = targets.as_ref().and_then(|t| t.replacements.get(at)?.clone());
        ReplacementItem { name: replacement.label(), rows, base_tensor }
    });
    item.replacements = Some(replacements.collect());
    if let Some(base) = base {
        let all: u64 =
            base.shards.iter().flat_map(|s| &s.header.tensors).map(|t| t.elements() as u64).sum();
        item.share_of_base = (all > 0).then(|| item.parameters as f64 / all as f64);
    }
    item.warnings = warnings(&adapter, targets.as_ref());
    item.warnings.extend(promised::missing(&adapter, base.map(Checkpoint::names)));
    item.warnings.extend(misfit::summary(&misfits, &adapter));
    item.warnings.extend(not_finite(item.modules.as_deref().unwrap_or_default()));
    if unsettled > 0 {
        item.warnings.push(format!(
            "nothing tells which way round the base stores {unsettled} square weights that these \
             modules are for; --orientation says it"
        ));
    }
    Ok(item)
}

/// Notes which modules' weights the base stores inputs × outputs; how many are not settled.
fn settle_orientation<'a>(
    adapter: &Adapter,
    base: &Checkpoint,
    places: &impl Fn(usize) -> Option<&'a Vec<Placement>>,
    items: &mut [ModuleItem],
) -> usize {
    let mut unsettled = 0;
    for (at, (module, item)) in adapter.modules.iter().zip(items).enumerate() {
        for place in places(at).into_iter().flatten() {
            match orientation::is_turned(module, place, base) {
                Some(turned) => item.transposed |= turned,
                None => unsettled += 1,
            }
        }
    }
    unsettled
}

/// An adapter of a type that no weight can hold: its tensors, and why.
fn unmergeable_item(path: &Path, options: &Options, error: Error) -> Result<Item> {
    let tensors = path.join("adapter_model.safetensors");
    if !tensors.is_file() {
        return Err(error);
    }
    let file = Checkpoint::open(&tensors, options.open.access)?;
    let mut item = common(path, "adapter", &file);
    item.convention = Some(convention::peft().name);
    item.ranks = Some(BTreeMap::new());
    item.modules = Some(Vec::new());
    item.warnings.push(error.kind().to_string());
    Ok(item)
}

fn module_item(module: &Module, adapter: &Adapter, places: Vec<Placement>) -> ModuleItem {
    let first = module.tensors().find_map(|name| adapter.file.tensor(name));
    let dtype = first.map(|view| view.spec.dtype.to_string());
    ModuleItem {
        name: module.name.clone(),
        family: module.family,
        kind: match module.kind {
            Kind::Linear => "linear",
            Kind::Conv(_) | Kind::Channels => "conv",
            Kind::Embedding => "embedding",
            Kind::Whole(_) => "whole",
        },
        rank: module.rank,
        alpha: module.scale.alpha,
        scale: module.scale.value,
        // A convention without a file of its own keeps PEFT's config in the header.
        scale_source: match module.scale.source {
            ScaleSource::Config if adapter.config_path.is_none() => ScaleSource::Header.name(),
            source => source.name(),
        },
        inputs: module.inputs,
        outputs: module.outputs,
        dtype: dtype.unwrap_or_default(),
        base_tensor: places.first().map(|place| place.tensor.clone()),
        places: if places.iter().all(Placement::is_whole) { Vec::new() } else { places },
        misfit: None,
        transposed: false,
        spectrum: None,
    }
}

/// Describes the singular values of every module; modules are independent, so threads share them out.
fn add_spectra(adapter: &Adapter, items: &mut [ModuleItem]) -> Result<()> {
    let pairs = adapter.modules.par_iter().zip(items.par_iter_mut());
    pairs.try_for_each(|(module, item)| {
        let factors =
            adapter.factors(module).in_tensor(&module.name).in_file(&adapter.file.path)?;
        let scale = module.scale.value.abs();
        let svd = factors.svd();
        let singular_values: Vec<f64> =
            svd.singular_values().iter().map(|value| value * scale).collect();
        let spectrum = Spectrum { singular_values };
        item.spectrum = Some(SpectrumItem {
            norm: spectrum.norm(),
            effective_rank: spectrum.effective_rank(),
            stable_rank: spectrum.stable_rank(),
            rank_90: spectrum.rank_for_energy(0.90),
            rank_95: spectrum.rank_for_energy(0.95),
            rank_99: spectrum.rank_for_energy(0.99),
            singular_values: spectrum.singular_values,
        });
        Ok(())
    })
}

/// A warning for modules whose spectrum is none, because a value in them is not finite.
fn not_finite(modules: &[ModuleItem]) -> Option<String> {
    let bad = |module: &&ModuleItem| {
        module.spectrum.as_ref().is_some_and(|spectrum| !spectrum.norm.is_finite())
    };
    let first = &modules.iter().find(bad)?.name;
    let count = modules.iter().filter(bad).count();
    Some(format!(
        "{count} of {} modules hold values that are not finite, such as {first}: the training \
         diverged, and no merge takes them",
        modules.len()
    ))
}

/// What is wrong with single modules, those of one reason together.
fn grouped(faults: &[Error]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&Error>)> = Vec::new();
    for fault in faults {
        let reason = fault.kind().to_string();
        match reasons.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, faults)) => faults.push(fault),
            None => reasons.push((reason, vec![fault])),
        }
    }
    let told = reasons.iter().filter_map(|(reason, faults)| {
        let first = faults.first()?;
        let text = match (faults.len(), first.tensor()) {
            (count, Some(name)) if count > 1 => {
                format!("{count} modules, such as `{name}`: {reason}")
            }
            _ => first.to_string(),
        };
        Some(match first.hint() {
            Some(hint) => format!("{text} ({hint})"),
            None => text,
        })
    });
    told.collect()
}

fn warnings(adapter: &Adapter, targets: Option<&target::Targets>) -> Vec<String> {
    let mut warnings = grouped(&adapter.faults);
    if !adapter.inert.is_empty() {
        warnings.push(format!("{} copies of base tensors that carry nothing", adapter.inert.len()));
    }
    let leaked = ["_fsdp_wrapped_module", "_orig_mod", ".default.", ".modules_to_save."];
    for part in leaked {
        let count = adapter.file.names().filter(|name| name.contains(part)).count();
        if count > 0 {
            let part = part.trim_matches('.');
            warnings.push(format!("{count} names carry a leaked `{part}`, which is read past"));
        }
    }
    let unmatched = targets.map(|targets| targets.unmatched.as_slice()).unwrap_or_default();
    let mut unmatched: Vec<_> = unmatched.iter().collect();
    unmatched.sort_by(|a, b| natural(&a.name, &b.name));
    let nearest = |one: &UnmatchedName| match one.nearest.first() {
        Some(name) => format!("; the nearest is {name}"),
        None => String::new(),
    };
    match unmatched.first() {
        Some(first) if unmatched.len() > LISTED => {
            let all = adapter.modules.len() + adapter.replacements.len();
            let (count, name) = (unmatched.len(), &first.name);
            let nearest = nearest(first);
            warnings.push(format!(
                "{count} of {all} modules fit nothing in the base, such as {name}{nearest}"
            ));
        }
        _ => warnings.extend(
            unmatched
                .iter()
                .map(|one| format!("{} fits nothing in the base{}", one.name, nearest(one))),
        ),
    }
    warnings
}
