//! An adapter in another convention, and what was written compared with what it was made of. Every verb
//! that writes adapters comes here when it is asked for another convention than it computes in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::serve::Serve;
use super::{ModuleReport, fit, kept, verify};
use crate::adapter::convention::gguf_names::{Architecture, Heads};
use crate::adapter::convention::{Convention, Names, ScalePlace, mlx};
use crate::adapter::layout::{self, Layout, Source};
use crate::adapter::mlx::stack_of;
use crate::adapter::module::{Module, Nature};
use crate::adapter::place::Placement;
use crate::adapter::rename::Renamer;
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement};
use crate::adapter::sidecar::PeftConfig;
use crate::adapter::stacks::ExpertSizes;
use crate::adapter::{Adapter, OpenOptions, gguf, target};
use crate::error::{ConvertError, Error, ErrorKind, ExpertsError, Locate, Result};
use crate::format::json::model_config;
use crate::format::{Access, Checkpoint, Metadata, Staging};
use crate::ops::Progress;
use crate::ops::check::program::Takes;
use crate::ops::check::quoted;
use crate::ops::shared::base::open_reference;

/// What shall be written.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct How<'a> {
    pub(in crate::ops) target: &'static Convention,
    /// What a program wants that shall load the result.
    pub(in crate::ops) program: Option<&'static Takes>,
    /// A base to take names and heads from.
    pub(in crate::ops) reference: Option<&'a Path>,
    pub(in crate::ops) allow_loss: bool,
    pub(in crate::ops) access: Access,
}

/// What a reference says.
#[derive(Debug, Clone, Default)]
pub(in crate::ops) struct Base {
    /// The class of the model, by its config.
    pub(super) class: Option<String>,
    pub(super) architecture: Option<&'static Architecture>,
    pub(in crate::ops) heads: Option<Heads>,
    pub(in crate::ops) experts: Option<ExpertSizes>,
    pub(super) expert_count: Option<usize>,
}

/// An adapter as it will be written.
#[derive(Debug)]
pub(in crate::ops) struct Restated {
    pub(in crate::ops) new: NewAdapter,
    pub(in crate::ops) reports: Vec<ModuleReport>,
    /// What each of the new modules is made of.
    pub(in crate::ops) sources: Vec<Source>,
    pub(in crate::ops) lost: Vec<String>,
}

impl How<'_> {
    /// What the reference says; nothing without one.
    pub(in crate::ops) fn base(&self) -> Result<Base> {
        base_of(self.reference, self.access)
    }
}

/// What a reference says; nothing without one.
pub(super) fn base_of(reference: Option<&Path>, access: Access) -> Result<Base> {
    let Some(path) = reference else { return Ok(Base::default()) };
    // A config alone tells names and heads.
    let tensors = Checkpoint::open(path, access).ok();
    Ok(Base { experts: tensors.as_ref().and_then(ExpertSizes::of), ..read_base(path)? })
}

/// Decides every module's name, tensors and scale in the other convention.
///
/// # Errors
/// Names that cannot be known, and what would be lost.
pub(in crate::ops) fn restate(adapter: &Adapter, how: How<'_>, base: &Base) -> Result<Restated> {
    check_gguf(how.target, base)?;
    let mut layout = layout(adapter, how.target, base, how)?;
    let serve = Serve::new(adapter, how, base)?;
    let mut stacks = adapter.stacks.clone();
    if let Some(serve) = &serve {
        serve.names(&mut layout)?;
        stacks = serve.experts(&mut layout)?;
    }
    check_names(adapter, &layout)?;
    if let Some(kept) = kept::whole(adapter, how, &layout)? {
        return Ok(kept);
    }
    let goal = fit::Goal { target: how.target, program: how.program };
    let fit::All { modules, reports, sources, replacements, lost } =
        fit::all(adapter, goal, &layout, base)?;
    if !lost.is_empty() && !how.allow_loss {
        let instead = instead(adapter, how);
        return Err(ConvertError::Losses { losses: lost, instead }).in_file(&adapter.path);
    }
    if modules.is_empty() && replacements.is_empty() {
        return Err(ErrorKind::NothingSelected.into());
    }
    let mut new = assemble(adapter, how.target, base, modules, replacements);
    new.stacks = stacks;
    if let Some(serve) = &serve {
        serve.complete(&mut new)?;
    }
    Ok(Restated { new, reports, sources, lost })
}

/// What makes factors of updates that depend on the base's weights (DoRA): merging, and taking the
/// difference.
fn instead(adapter: &Adapter, how: How<'_>) -> Option<String> {
    let dependent = |module: &Module| module.nature() == Nature::Dependent;
    let takes = |adapter: &Adapter| adapter.modules.iter().any(dependent);
    let servers = how.program.is_some() || how.target.scale == ScalePlace::Uniform;
    if !servers || !takes(adapter) {
        return None;
    }
    let base = how.reference.map_or_else(|| "BASE".to_owned(), quoted);
    let adapter = quoted(&adapter.path);
    let merge = format!("lora-tool merge {base} {adapter} -o MERGED");
    Some(format!("{merge} && lora-tool extract {base} MERGED --rank auto -o LORA"))
}

/// What is written, and what it has to be equal to.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Checked<'a> {
    pub(in crate::ops) from: &'a Adapter,
    /// The files whose permissions the result's are no wider than.
    pub(in crate::ops) inputs: &'a [&'a Checkpoint],
    pub(in crate::ops) target: &'static Convention,
    pub(in crate::ops) sources: &'a [Source],
    pub(in crate::ops) base: &'a Base,
    pub(in crate::ops) access: Access,
    /// The base that a Modelfile beside the adapter names, where there shall be one.
    pub(in crate::ops) modelfile: Option<&'a Path>,
}

impl Checked<'_> {
    /// Writes the result beside its place, opens it again, and compares every module.
    ///
    /// # Errors
    /// I/O; [`ConvertError::Differs`], if a delta is not what it was. Nothing is left then.
    pub(in crate::ops) fn stage(
        &self,
        new: &NewAdapter,
        reports: &mut [ModuleReport],
        (output, force): (&Path, bool),
        progress: &dyn Progress,
    ) -> Result<(Staging, u64)> {
        progress.begin(reports.len() as u64);
        let mut encoded = new.clone().encode(self.target)?;
        if let Some(base) = self.modelfile {
            encoded.with_modelfile(base);
        }
        let (staging, bytes) = encoded.stage(output, force, self.inputs)?;
        let open = OpenOptions {
            access: self.access,
            convention: Some(self.target.name.to_owned()),
            heads: self.base.heads,
            experts: self.base.experts,
            ..OpenOptions::default()
        };
        let mut written = Adapter::open(staging.place(), &open)?;
        written.sound()?;
        for (module, source) in reports.iter_mut().zip(self.sources) {
            // A GGUF that is opened again has transformers' names.
            let architecture = self.base.architecture.filter(|_| self.target.names == Names::Gguf);
            let name = architecture.and_then(|known| known.from_gguf(&module.to));
            let name = name.as_ref().unwrap_or(&module.to);
            let error = verify::compare(self.from, source, &written, name)
                .map_err(|error| error.in_tensor(&module.to).in_file(output))?;
            module.relative_error = error;
            progress.advance(1);
        }
        verify::replaced(&new.replacements, &written)?;
        Ok((staging, bytes))
    }
}

pub(super) fn read_base(path: &Path) -> Result<Base> {
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let Some(document) = model_config(directory)? else { return Ok(Base::default()) };
    let model_type = document.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| {
        let text = document.get("text_config").and_then(Value::as_object);
        let number = document.get(field).or_else(|| text?.get(field))?.as_u64()?;
        usize::try_from(number).ok().filter(|number| *number > 0)
    };
    let heads = Heads::of_config(&document);
    let expert_count =
        ["num_experts", "num_local_experts", "n_routed_experts"].into_iter().find_map(number);
    let architecture = Architecture::of_model_type(model_type);
    let listed = document.get("architectures").and_then(Value::as_array);
    let class = listed.and_then(|list| list.first()).and_then(Value::as_str);
    let class = class.map(str::to_owned);
    Ok(Base { class, architecture, heads, experts: None, expert_count })
}

fn check_gguf(target: &Convention, base: &Base) -> Result<()> {
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
fn layout(adapter: &Adapter, to: &'static Convention, base: &Base, how: How<'_>) -> Result<Layout> {
    const NUMBERED: [&str; 3] = ["text_encoder_2.", "lora_te1_", "lora_te2_"];
    let second = |name: &str| NUMBERED.iter().any(|start| name.starts_with(start));
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
    let opened = how.reference.as_ref().map(|path| open_reference(path, how.access));
    let reference = match opened {
        // A config alone says what llama.cpp needs.
        Some(Err(error)) if !flat && matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) => None,
        opened => opened.transpose()?,
    };
    // A path of a model does not say below which root a checkpoint has it.
    let paths = [Names::Dotted, Names::Component].contains(&adapter.convention.names);
    let dotted = paths && to.names == Names::Checkpoint;
    let based = flat || dotted && !layout::is_known(adapter);
    let places = match &reference {
        Some(base) if based => {
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
    let in_stacks = to.names == Names::Gguf || to.name == mlx().name;
    if let Some(architecture) = base.architecture.filter(|_| in_stacks) {
        layout::divide_experts(adapter, (architecture, to), &mut found);
        check_experts(&found, to, base)?;
    }
    Ok(found)
}

/// Fails if two modules would have one name.
fn check_names(adapter: &Adapter, found: &Layout) -> Result<()> {
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
    Ok(())
}

/// llama.cpp and mlx-lm read as many experts of an adapter as the base has.
fn check_experts(found: &Layout, to: &Convention, base: &Base) -> Result<()> {
    let place = |name: &str| match to.names {
        Names::Gguf => {
            let (stack, expert) = name.rsplit_once('.')?;
            let expert = expert.parse().ok().filter(|_| stack.ends_with("_exps"))?;
            Some((stack.to_owned(), expert))
        }
        _ => stack_of(name),
    };
    let mut stacks: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for target in found.modules.iter().flatten() {
        if let Some((stack, expert)) = place(&target.name) {
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

/// The metadata of the adapter's header.
pub(super) fn header(adapter: &Adapter) -> Metadata {
    let own = adapter.file.shards.first().and_then(|shard| shard.header.metadata.clone());
    own.unwrap_or_default()
}

fn assemble(
    adapter: &Adapter,
    target: &Convention,
    base: &Base,
    modules: Vec<NewModule>,
    replacements: Vec<NewReplacement>,
) -> NewAdapter {
    let mut metadata = header(adapter);
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
        kept: None,
    }
}

/// Whether scales must be one number.
pub(super) fn uniform(target: &Convention, program: Option<&Takes>) -> bool {
    target.scale == ScalePlace::Uniform || program.is_some_and(|takes| takes.uniform)
}
