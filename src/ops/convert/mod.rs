//! convert: the same update in another convention's file. Tensors are carried as they are wherever the
//! target can hold them; scales that it cannot say go into the factors; what would be lost is an error.

mod fit;
mod fold;
mod native;
mod rows;
mod shape;
mod stored;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Progress, check_output, files_of};
use crate::adapter::convention::gguf_names::{Architecture, Heads};
use crate::adapter::convention::{self, Convention, Names, ScalePlace};
use crate::adapter::layout::{self, Layout, Source};
use crate::adapter::place::Placement;
use crate::adapter::rename::Renamer;
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement};
use crate::adapter::sidecar::PeftConfig;
use crate::adapter::stacks::ExpertSizes;
use crate::adapter::write::check_ending;
use crate::adapter::{Adapter, OpenOptions, gguf, target};
use crate::error::{ConvertError, Error, ErrorKind, ExpertsError, Locate, Result};
use crate::format::{Checkpoint, Metadata};

/// A program that shall load the result, where it takes less than the convention can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// vLLM: one rank, one scale, factors only.
    Vllm,
}

/// What to convert, and to what.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The convention's name.
    pub to: String,
    /// A program with limits of its own.
    pub program: Option<For>,
    /// A base to take names and heads from.
    pub reference: Option<PathBuf>,
    /// Where the result goes.
    pub output: PathBuf,
    /// Leave out what the target cannot hold.
    pub allow_loss: bool,
    /// How the adapter is opened.
    pub open: OpenOptions,
    /// Replace an existing output.
    pub force: bool,
}

/// One module of the result.
#[derive(Debug, Clone, Serialize)]
pub struct ModuleReport {
    /// The modules of the adapter that it is made of; more than one where the target's layout has them
    /// in one, and one may be in several.
    pub from: Vec<String>,
    /// Its name in the result.
    pub to: String,
    /// Its family, where it was turned into plain factors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factored: Option<&'static str>,
    /// What was folded into its factors; 1 if nothing.
    pub folded: f64,
    /// ‖written − original‖ / ‖original‖, once it is written.
    pub relative_error: f64,
}

/// What a conversion will do, or did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the result is.
    pub output: PathBuf,
    /// The adapter's convention.
    pub from: &'static str,
    /// The result's.
    pub to: &'static str,
    /// The modules.
    pub modules: Vec<ModuleReport>,
    /// The largest relative error of a module's delta.
    pub max_relative_error: f64,
    /// What the target cannot hold and was left out.
    pub lost: Vec<String>,
    /// Bytes of the result's tensor file.
    pub bytes: u64,
}

/// A conversion with its adapter open.
#[derive(Debug)]
pub struct Convert {
    /// What will be, or is.
    pub report: Report,
    adapter: Adapter,
    target: &'static Convention,
    fitted: NewAdapter,
    sources: Vec<Source>,
    base: Base,
    options: Options,
}

/// What a reference says.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    architecture: Option<&'static Architecture>,
    heads: Option<Heads>,
    experts: Option<ExpertSizes>,
    expert_count: Option<usize>,
}

/// Opens the adapter and decides every module's name, tensors and scale.
///
/// # Errors
/// What is wrong with the adapter, names that cannot be known, what would be lost, and an output that
/// cannot be started.
pub fn plan(options: &Options) -> Result<Convert> {
    let target = convention::by_name(&options.to).ok_or_else(|| {
        let names = convention::names(true);
        ErrorKind::BadOption(format!("convention `{}` is unknown; there are {names}", options.to))
    })?;
    check_ending(target, &options.output)?;
    check_output(&options.output, [options.adapter.as_path()], options.force)?;
    let base = match &options.reference {
        Some(path) => {
            // A config alone tells names and heads.
            let tensors = Checkpoint::open(path, options.open.access).ok();
            Base { experts: tensors.as_ref().and_then(ExpertSizes::of), ..read_base(path)? }
        }
        None => Base::default(),
    };
    let open = OpenOptions { heads: base.heads, experts: base.experts, ..options.open.clone() };
    let mut adapter = Adapter::open(&options.adapter, &open)?;
    adapter.sound()?;
    adapter.check_finite()?;
    if let Some(reference) = &options.reference {
        shape::complete(&mut adapter, reference, options.open.access)?;
    }
    let files = files_of(&adapter);
    check_output(&options.output, files.iter().map(PathBuf::as_path), options.force)?;
    check_gguf(target, base)?;
    let layout = layout(&adapter, target, base, options)?;
    let goal = fit::Goal { target, program: options.program };
    let fit::All { modules, reports, sources, replacements, lost } =
        fit::all(&adapter, goal, &layout, base)?;
    if !lost.is_empty() && !options.allow_loss {
        return Err(ConvertError::Losses { losses: lost }).in_file(&options.adapter);
    }
    if modules.is_empty() && replacements.is_empty() {
        return Err(ErrorKind::NothingSelected.into());
    }
    let fitted = assemble(&adapter, target, base, modules, replacements);
    let report = Report {
        output: options.output.clone(),
        from: adapter.convention.name,
        to: target.name,
        modules: reports,
        max_relative_error: 0.0,
        lost,
        bytes: 0,
    };
    Ok(Convert { report, adapter, target, fitted, sources, base, options: options.clone() })
}

fn read_base(path: &Path) -> Result<Base> {
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let config = directory.join("config.json");
    let Ok(text) = std::fs::read(&config) else { return Ok(Base::default()) };
    let document: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })
        .in_file(&config)?;
    let model_type = document.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| {
        let number = document.get(field)?.as_u64()?;
        usize::try_from(number).ok().filter(|number| *number > 0)
    };
    let heads = number("num_attention_heads")
        .map(|queries| Heads { queries, keys: number("num_key_value_heads").unwrap_or(queries) });
    let expert_count = number("num_experts").or_else(|| number("num_local_experts"));
    let architecture = Architecture::of_model_type(model_type);
    Ok(Base { architecture, heads, experts: None, expert_count })
}

fn check_gguf(target: &Convention, base: Base) -> Result<()> {
    if target.names != Names::Gguf {
        return Ok(());
    }
    let reason = match base {
        Base { architecture: None, .. } => {
            "the architecture, or one that has a table of llama.cpp's names (--reference BASE)"
        }
        Base { architecture: Some(found), heads: None, .. } if found.permuted => {
            "num_attention_heads, by which llama.cpp orders rows (--reference BASE)"
        }
        _ => return Ok(()),
    };
    Err(ConvertError::Reference { reason: reason.to_owned() }.into())
}

/// The modules of the result, and those of the adapter that have no name in it.
fn layout(
    adapter: &Adapter,
    to: &'static Convention,
    base: Base,
    options: &Options,
) -> Result<Layout> {
    let second = |name: &str| ["text_encoder_2.", "lora_te2_"].iter().any(|s| name.starts_with(s));
    // SDXL's blocks are the only ones with more than one layer each.
    let deep = |name: &str| name.starts_with("unet.") && name.contains(".transformer_blocks.1.");
    let two = |name: &str| second(name) || deep(name);
    let renamer = Renamer {
        from: adapter.convention,
        to,
        two_encoders: adapter.modules.iter().any(|module| two(&module.name)),
        t5: None,
        architecture: base.architecture,
    };
    let flat = adapter.convention.names == Names::Flattened;
    let opened = options.reference.as_ref().map(|path| Checkpoint::open(path, options.open.access));
    let reference = match opened {
        // A config alone says what llama.cpp needs.
        Some(Err(error)) if !flat && matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) => None,
        opened => opened.transpose()?,
    };
    let places = match &reference {
        Some(base) if adapter.convention.names == Names::Flattened => {
            let found = target::find(adapter, base, None)?.modules;
            // A part of a tensor has no name of its own.
            let whole = |places: Vec<Placement>| match places.as_slice() {
                [one] if one.is_whole() => Some(one.tensor.clone()),
                _ => None,
            };
            found.into_iter().map(whole).collect()
        }
        _ => Vec::new(),
    };
    let mut found = layout::of(adapter, &renamer, reference.as_ref(), &places)?;
    if let Some(architecture) = base.architecture.filter(|_| to.names == Names::Gguf) {
        layout::divide_experts(adapter, architecture, &mut found);
        check_experts(&found, base)?;
    }
    let mut seen = BTreeMap::new();
    for target in found.modules.iter().flatten() {
        let module = target.source.modules().first().copied().unwrap_or_default();
        if let Some(first) = seen.insert(target.name.as_str(), module) {
            let name =
                |at: usize| adapter.modules.get(at).map(|m| m.name.clone()).unwrap_or_default();
            let (first, second) = (name(first), name(module));
            return Err(
                Error::from(ErrorKind::SameTarget { first, second }).in_tensor(&target.name)
            );
        }
    }
    Ok(found)
}

/// llama.cpp reads as many experts of an adapter as the base has.
fn check_experts(found: &Layout, base: Base) -> Result<()> {
    let mut stacks: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for target in found.modules.iter().flatten() {
        let parts = target.name.rsplit_once('.').filter(|(stack, _)| stack.ends_with("_exps"));
        if let Some((stack, Ok(expert))) = parts.map(|(stack, number)| (stack, number.parse())) {
            stacks.entry(stack).or_default().insert(expert);
        }
    }
    if base.expert_count.is_none() && !stacks.is_empty() {
        let reason = "the number of experts in its config (--reference BASE)".to_owned();
        return Err(ConvertError::Reference { reason }.into());
    }
    let whole = |experts: &BTreeSet<usize>| {
        Some(experts.len()) == base.expert_count && experts.last() == Some(&(experts.len() - 1))
    };
    match stacks.iter().find(|(_, experts)| !whole(experts)) {
        None => Ok(()),
        Some((stack, _)) => {
            let what = "number from the base's";
            Err(ExpertsError::Uneven { what }).in_tensor(stack)
        }
    }
}

fn assemble(
    adapter: &Adapter,
    target: &Convention,
    base: Base,
    modules: Vec<NewModule>,
    replacements: Vec<NewReplacement>,
) -> NewAdapter {
    let own = adapter.file.shards.first().and_then(|shard| shard.header.metadata.clone());
    let mut metadata: Metadata = own.unwrap_or_default();
    if adapter.convention.names == Names::Gguf {
        metadata.retain(|key, _| !key.starts_with("general.") && !key.starts_with("adapter."));
    }
    match (target.names, base.architecture) {
        (Names::Gguf, Some(architecture)) => {
            metadata.insert(gguf::ARCHITECTURE.to_owned(), architecture.name.to_owned());
        }
        _ => {
            metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        }
    }
    // An alpha of the old header would speak of the old factors.
    metadata.retain(|key, _| {
        !["lora_alpha", "network_alpha", "alpha"].contains(&key.as_str())
            && !key.ends_with(".lora_alpha")
    });
    NewAdapter {
        modules,
        replacements,
        metadata,
        stacks: adapter.stacks.clone(),
        config: adapter.config.as_ref().map(PeftConfig::as_lora),
        target_modules: fit::targets(adapter, target),
    }
}

impl Convert {
    /// Writes the result, opens it again, and compares every module before it takes its place.
    ///
    /// # Errors
    /// I/O; [`ConvertError::Differs`], if a delta is not what it was. Nothing is left then.
    pub fn run(mut self, progress: &dyn Progress) -> Result<Report> {
        progress.begin(self.report.modules.len() as u64);
        let encoded = self.fitted.clone().encode(self.target)?;
        let (staging, bytes) = encoded.stage(&self.options.output, self.options.force)?;
        let open = OpenOptions {
            access: self.options.open.access,
            convention: Some(self.target.name.to_owned()),
            heads: self.base.heads,
            experts: self.base.experts,
            ..OpenOptions::default()
        };
        let mut written = Adapter::open(staging.place(), &open)?;
        written.sound()?;
        for (module, source) in self.report.modules.iter_mut().zip(&self.sources) {
            // A GGUF that is opened again has transformers' names.
            let architecture = self.base.architecture.filter(|_| self.target.names == Names::Gguf);
            let name = architecture.and_then(|known| known.from_gguf(&module.to));
            let name = name.as_ref().unwrap_or(&module.to);
            let error = verify::compare(&self.adapter, source, &written, name)
                .map_err(|error| error.in_tensor(&module.to).in_file(&self.options.output))?;
            module.relative_error = error;
            self.report.max_relative_error = self.report.max_relative_error.max(error);
            progress.advance(1);
        }
        verify::replaced(&self.fitted.replacements, &written)?;
        drop(written);
        self.adapter.file.check_unchanged()?;
        staging.commit()?;
        self.report.bytes = bytes;
        Ok(self.report)
    }
}

/// Whether scales must be one number.
fn uniform(target: &Convention, program: Option<For>) -> bool {
    target.scale == ScalePlace::Uniform || program == Some(For::Vllm)
}
