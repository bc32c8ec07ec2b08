//! An adapter in another convention: names, then every module's tensors and scale, then what is beside them.

use super::base_facts::BaseFacts;
use super::fit::{self, Fit};
use super::goal::{Conversion, Goal};
use super::names::{check_names, layout};
use super::passthrough;
use super::served::Served;
use super::stored::header;
use super::{served_experts, served_names, served_zeros};
use crate::adapter::Adapter;
use crate::adapter::convention::{ARCHITECTURE, Convention, Names, ScalePlace};
use crate::adapter::module::{Module, Nature};
use crate::adapter::promised::is_promised;
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement};
use crate::adapter::sidecar::PeftConfig;
use crate::error::{ConvertError, Locate, Result, quoted};

/// Decides every module's name, tensors and scale in the other convention.
///
/// # Errors
/// Names that cannot be known, and what would be lost.
pub(crate) fn reexpress(adapter: &Adapter, goal: Goal<'_>, base: &BaseFacts) -> Result<Conversion> {
    let mut layout = layout(adapter, base, goal)?;
    let served = Served::new(adapter, goal, base)?;
    let mut stacks = adapter.stacks.clone();
    if let Some(served) = &served {
        served_names::names(served, &mut layout)?;
        stacks = served_experts::experts(served, &mut layout);
    }
    check_names(adapter, &layout)?;
    if let Some(unchanged) = passthrough::whole(adapter, goal, &layout)? {
        return Ok(unchanged);
    }
    let Fit { modules, reports, sources, replacements, lost } =
        fit::all(adapter, goal, &layout, base)?;
    if !lost.is_empty() && !goal.allow_loss {
        let instead = instead(adapter, goal);
        return Err(ConvertError::Losses { losses: lost, instead }).in_file(&adapter.path);
    }
    if modules.is_empty() && replacements.is_empty() {
        let (to, first) = (goal.target.name, lost.first().cloned().unwrap_or_default());
        return Err(ConvertError::Nothing { to, first }).in_file(&adapter.path);
    }
    let mut new = assemble(adapter, goal.target, base, modules, replacements);
    new.stacks = stacks;
    if let Some(served) = &served {
        served_zeros::complete(served, &mut new)?;
    }
    Ok(Conversion { new, reports, sources, lost })
}

/// What makes factors of updates that depend on the base's weights (DoRA): merging, and taking the
/// difference.
fn instead(adapter: &Adapter, goal: Goal<'_>) -> Option<String> {
    let dependent = |module: &Module| module.nature() == Nature::Dependent;
    let takes = |adapter: &Adapter| adapter.modules.iter().any(dependent);
    let servers = goal.program.is_some() || goal.target.scale == ScalePlace::Uniform;
    if !servers || !takes(adapter) {
        return None;
    }
    let base = goal.reference.map_or_else(|| "BASE".to_owned(), quoted);
    let adapter = quoted(&adapter.path);
    let merge = format!("lora-tool merge {base} {adapter} -o MERGED");
    Some(format!("{merge} && lora-tool extract {base} MERGED --rank auto -o LORA"))
}

fn assemble(
    adapter: &Adapter,
    target: &Convention,
    base: &BaseFacts,
    modules: Vec<NewModule>,
    replacements: Vec<NewReplacement>,
) -> NewAdapter {
    let mut metadata = header(adapter);
    if adapter.convention.names == Names::Gguf {
        metadata.retain(|key, _| !key.starts_with("general.") && !key.starts_with("adapter."));
    }
    match (target.names, base.architecture) {
        (Names::Gguf, Some(architecture)) => {
            metadata.insert(ARCHITECTURE.to_owned(), architecture.name.to_owned());
        }
        _ => {
            metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
        }
    }
    let target_modules = target_modules(adapter, target, &modules);
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
        target_modules,
        kept: None,
    }
}

/// `target_modules` of the config that the adapter had, where the target has PEFT's config too and every module is
/// named.
fn target_modules(
    adapter: &Adapter,
    target: &Convention,
    modules: &[NewModule],
) -> Option<Vec<String>> {
    let config = adapter.config.as_ref().filter(|_| adapter.convention == target)?;
    if modules.iter().any(|module| is_promised(adapter, &module.name) == Some(false)) {
        return None;
    }
    let list = config.document.get("target_modules")?.as_array()?;
    list.iter().map(|name| Some(name.as_str()?.to_owned())).collect()
}
