//! What the modules of the result are called, and which modules of the adapter, or rows of them, they are
//! made of.

use std::collections::{BTreeMap, BTreeSet};

use super::base_facts::BaseFacts;
use super::goal::Goal;
use crate::adapter::convention::gguf_names::Architecture;
use crate::adapter::convention::{Convention, Names};
use crate::adapter::layout::{self, Layout};
use crate::adapter::place::Placement;
use crate::adapter::rename::Renamer;
use crate::adapter::{Adapter, target};
use crate::error::{ConvertError, Error, ErrorKind, ExpertsError, Locate, Result};
use crate::weight::open_reference;

/// llama.cpp's name of the output head.
const HEAD: &str = "output";

fn check_gguf(goal: Goal<'_>, base: &BaseFacts) -> Result<()> {
    if goal.target.names != Names::Gguf {
        return Ok(());
    }
    if goal.reference.is_none() {
        let (to, what) = (goal.target.name, "architecture and attention heads");
        return Err(ConvertError::NoReference { to, what }.into());
    }
    let reason = match base {
        BaseFacts { architecture: None, model_type: Some(model_type), .. } => {
            let model_type = model_type.clone();
            let converted = !Architecture::is_not_converted(&model_type);
            return Err(ConvertError::NoGgufNames { model_type, converted }.into());
        }
        BaseFacts { architecture: None, .. } => "model_type, by which llama.cpp's names are known",
        BaseFacts { architecture: Some(found), heads: None, .. } if found.permuted => {
            "num_attention_heads, by which llama.cpp orders rows"
        }
        _ => return Ok(()),
    };
    Err(ConvertError::Reference { reason: reason.to_owned() }.into())
}

/// The modules of the result, and those of the adapter that have no name in it.
pub(super) fn layout(adapter: &Adapter, base: &BaseFacts, goal: Goal<'_>) -> Result<Layout> {
    const NUMBERED: [&str; 3] = ["text_encoder_2.", "lora_te1_", "lora_te2_"];
    let to = goal.target;
    check_gguf(goal, base)?;
    let second = |name: &str| NUMBERED.iter().any(|start| name.starts_with(start));
    // SDXL's blocks are the only ones with more than one layer each.
    let deep = |name: &str| name.starts_with("unet.") && name.contains(".transformer_blocks.1.");
    let two = |name: &str| second(name) || deep(name);
    let renamer = Renamer {
        from: adapter.convention,
        to,
        two_encoders: adapter.modules.iter().any(|module| two(&module.name)),
        t5: None,
        prior: false,
        architecture: base.architecture,
        stacks: base.stacks,
    };
    let flat = adapter.convention.names == Names::Flattened;
    let opened = goal.reference.as_ref().map(|path| open_reference(path, goal.access));
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
                [place] if place.is_whole() => Some(place.tensor.clone()),
                _ => None,
            };
            found.into_iter().map(whole).collect()
        }
        _ => Vec::new(),
    };
    let mut found = layout::of(adapter, &renamer, reference.as_ref(), &places)?;
    check_head(adapter, &found, to, base)?;
    if let Some(architecture) = base.architecture.filter(|_| to.has_stacks()) {
        layout::divide_experts(adapter, architecture, &renamer, &mut found);
        check_experts(&found, to, base, goal.program.is_some())?;
    }
    Ok(found)
}

/// Fails if two modules would have one name.
pub(super) fn check_names(adapter: &Adapter, found: &Layout) -> Result<()> {
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

/// llama.cpp has one tensor for a tied pair, the input embedding, and none that an adapter of the head alone could be
/// for: it refuses the file.
fn check_head(adapter: &Adapter, found: &Layout, to: &Convention, base: &BaseFacts) -> Result<()> {
    if to.names != Names::Gguf || !base.tied {
        return Ok(());
    }
    let head = found.modules.iter().flatten().find(|target| target.name == HEAD);
    let Some(module) = head.and_then(|head| head.source.modules().first().copied()) else {
        return Ok(());
    };
    let name = adapter.modules.get(module).map(|module| module.name.clone()).unwrap_or_default();
    Err(Error::from(ConvertError::TiedHead)).in_tensor(&name)
}

/// llama.cpp and mlx-lm read as many experts of an adapter as the base has. For a program those that are missing
/// are added (`completed`).
fn check_experts(found: &Layout, to: &Convention, base: &BaseFacts, completed: bool) -> Result<()> {
    let mut stacks: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for target in found.modules.iter().flatten() {
        if let Some((stack, expert)) = to.stack_of(&target.name) {
            stacks.entry(stack).or_default().insert(expert);
        }
    }
    if base.expert_count.is_none() && !stacks.is_empty() {
        let reason = "the number of experts in its config (--reference BASE)".to_owned();
        return Err(ConvertError::Reference { reason }.into());
    }
    let whole = |experts: &BTreeSet<usize>| {
        let last = experts.last().map_or(0, |last| last + 1);
        if completed {
            return base.expert_count.is_some_and(|count| last <= count);
        }
        Some(experts.len()) == base.expert_count && last == experts.len()
    };
    match stacks.iter().find(|(_, experts)| !whole(experts)) {
        None => Ok(()),
        Some((stack, _)) => {
            let what = "number from the base's";
            Err(ExpertsError::Uneven { what }).in_tensor(stack)
        }
    }
}
