//! Which modules of the inputs belong together, by their names.

use std::collections::BTreeMap;

use super::options::Options;
use super::plan::PlannedModule;
use super::stored::{Stored, is_stored};
use crate::adapter::Adapter;
use crate::adapter::block_weights::BlockWeights;
use crate::adapter::convention::{Convention, Names};
use crate::adapter::module::{Kind, Module};
use crate::adapter::peers;
use crate::adapter::target::flatten;
use crate::error::{Error, ErrorKind, FamilyError, Locate, Result};
use crate::format::Dtype;
use crate::method::Settings;
use crate::ops::shared::param_rules::{self, Site};
use crate::ops::shared::rules::Layers;
use crate::ops::shared::selection::Usage;
use crate::weight::element::widest;

/// One module of the result and its inputs.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Group {
    /// Its name, in the output's convention once that is known.
    pub(in crate::ops) name: String,
    pub(super) kind: Kind,
    pub(in crate::ops) outputs: usize,
    pub(in crate::ops) inputs: usize,
    /// What takes part.
    pub(in crate::ops) members: Vec<Member>,
    /// The method's parameters, where they are others than the whole combination's.
    pub(super) settings: Option<Settings>,
}

/// One adapter's part in a module.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Member {
    pub(in crate::ops) adapter: usize,
    pub(in crate::ops) module: usize,
    pub(in crate::ops) weight: f64,
    /// The weight that the adapter was given for this module, without what multiplies it further.
    pub(super) input_weight: f64,
    pub(super) rank: usize,
    pub(super) scale: f64,
}

impl Group {
    pub(super) fn planned(&self, adapters: usize) -> PlannedModule {
        let mut ranks = vec![0; adapters];
        for member in &self.members {
            if let Some(rank) = ranks.get_mut(member.adapter) {
                *rank = member.rank;
            }
        }
        let (name, outputs, inputs) = (self.name.clone(), self.outputs, self.inputs);
        PlannedModule { name, outputs, inputs, ranks }
    }

    /// Whether it is a convolution, of whatever kernel.
    pub(in crate::ops) fn is_convolution(&self) -> bool {
        matches!(&self.kind, Kind::Conv(_) | Kind::Channels)
    }

    /// Whether the kernel is larger than one element.
    pub(super) fn is_spatial(&self) -> bool {
        matches!(&self.kind, Kind::Conv(kernel) if kernel.iter().any(|&size| size > 1))
    }
}

/// A dtype that holds the values of all factors.
pub(super) fn widest_of(adapters: &[Adapter]) -> Dtype {
    let dtypes = adapters.iter().flat_map(|adapter| {
        let names = adapter.modules.iter().flat_map(Module::tensors);
        names.filter_map(|name| Some(adapter.file.tensor(name)?.spec.dtype))
    });
    widest(dtypes)
}

/// Sorts all modules of all adapters into groups, in order of their names: those of the first adapter
/// that has each.
///
/// # Errors
/// As [`sort`], and any stored difference.
pub(in crate::ops) fn group(
    options: &Options,
    adapters: &[Adapter],
    blocks: &[BlockWeights],
) -> Result<Vec<Group>> {
    let (groups, stored) = sort(options, adapters, blocks)?;
    for difference in stored {
        if let Some((adapter, module)) = difference.of(adapters) {
            adapter.check_factors(module).in_tensor(&module.name).in_file(&adapter.path)?;
        }
    }
    Ok(groups)
}

/// The same, stored differences apart.
pub(super) fn sort(
    options: &Options,
    adapters: &[Adapter],
    blocks: &[BlockWeights],
) -> Result<(Vec<Group>, Vec<Stored>)> {
    let keys = peers::keys(adapters);
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut stored = Vec::new();
    let names = adapters.iter().flat_map(|adapter| &adapter.modules);
    let layers = Layers::of(names.map(|module| module.name.as_str()));
    let selection = options.selection();
    let mut usage = Usage::default();
    for adapter in adapters {
        let replaced = adapter.replacements.iter().map(|replacement| &replacement.module);
        for name in adapter.modules.iter().map(|module| &module.name).chain(replaced) {
            selection.note([name; 2], &mut usage);
        }
    }
    selection.check(&usage)?;
    let inputs = adapters.iter().zip(&keys).zip(&options.adapters);
    for (number, ((adapter, keys), input)) in inputs.enumerate() {
        let rules = input.rules.over(&layers);
        let names: Vec<_> =
            adapter.modules.iter().map(|module| [module.name.as_str(); 2]).collect();
        rules.check(&names).in_file(&adapter.path)?;
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (index, (module, key)) in adapter.modules.iter().zip(keys).enumerate() {
            let key = key.clone();
            if let Some(first) = seen.insert(key.clone(), &module.name) {
                let (first, second) = (first.to_owned(), module.name.clone());
                return Err(Error::from(ErrorKind::SameTarget { first, second })
                    .in_tensor(&key)
                    .in_file(&adapter.path));
            }
            let name = [module.name.as_str(); 2];
            let input_weight = input.weight * rules.weight(name);
            let of_block = blocks.get(number).map_or(1.0, |blocks| blocks.of(&module.name));
            let weight = input_weight * selection.weight(name) * of_block;
            if weight == 0.0 || !selection.selects(name) {
                continue;
            }
            if is_stored(module) {
                stored.push(Stored { adapter: number, module: index, weight });
                continue;
            }
            let rank = adapter.check_factors(module);
            let rank = rank.in_tensor(&module.name).in_file(&adapter.path)?;
            let scale = module.scale.value;
            check_size(weight * scale).in_tensor(&module.name).in_file(&adapter.path)?;
            let member =
                Member { adapter: number, module: index, weight, input_weight, rank, scale };
            add(&mut groups, key, module, member).map_err(|error| error.in_file(&adapter.path))?;
        }
    }
    if groups.is_empty() && stored.is_empty() {
        let bare = adapters.iter().all(|adapter| adapter.modules.is_empty());
        let kind = if bare { FamilyError::NoFactors.into() } else { ErrorKind::NothingSelected };
        return Err(kind.into());
    }
    Ok((groups.into_values().collect(), stored))
}

/// Gives every group the parameters that the options' rules say for it.
///
/// # Errors
/// Rules that decide nothing.
pub(super) fn settle(
    options: &Options,
    adapters: &[Adapter],
    general: &Settings,
    groups: &mut [Group],
) -> Result<()> {
    if options.param_rules.is_empty() {
        return Ok(());
    }
    let site = |group: &Group| {
        let modules = group.members.iter().filter_map(|member| {
            let module = adapters.get(member.adapter)?.modules.get(member.module)?;
            Some((member.adapter, module.name.clone()))
        });
        Site { name: group.name.clone(), modules: modules.collect() }
    };
    let sites: Vec<Site> = groups.iter().map(site).collect();
    let names = adapters.iter().flat_map(|adapter| &adapter.modules);
    let layers = Layers::of(names.map(|module| module.name.as_str()));
    let (rules, inputs) = (&options.param_rules, &options.adapters);
    let settled = param_rules::settle(rules, &layers, general, inputs, &sites)?;
    for (group, settings) in groups.iter_mut().zip(settled) {
        group.settings = settings;
    }
    Ok(())
}

/// Gives every group its name in the output's convention.
pub(super) fn name_for(
    mut groups: Vec<Group>,
    adapters: &[Adapter],
    output: &Convention,
) -> Result<Vec<Group>> {
    for group in &mut groups {
        group.name = output_name(group, adapters, output)?;
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

/// Squares of singular values must stay inside f64; nothing written to a file comes near.
fn check_size(coefficient: f64) -> Result<()> {
    const LARGEST: f64 = 1e50;
    if coefficient != 0.0 && coefficient.abs() < 1.0 / LARGEST {
        let dtype = Dtype::F32.to_string();
        return Err(ErrorKind::Underflow { value: coefficient, dtype }.into());
    }
    if coefficient.abs() <= LARGEST {
        return Ok(());
    }
    let reason = format!("weight times scale is {coefficient:e}, which no update needs");
    Err(ErrorKind::BadOption(reason).into())
}

fn add(
    groups: &mut BTreeMap<String, Group>,
    key: String,
    module: &Module,
    member: Member,
) -> Result<()> {
    let Some(group) = groups.get_mut(&key) else {
        let (kind, outputs, inputs) = (module.kind.clone(), module.outputs, module.inputs);
        let group = Group {
            name: module.name.clone(),
            kind,
            outputs,
            inputs,
            members: vec![member],
            settings: None,
        };
        groups.insert(key, group);
        return Ok(());
    };
    let same = (group.outputs, group.inputs) == (module.outputs, module.inputs);
    // A 1 × 1 convolution and a linear layer are one matrix.
    let alike = group.kind == module.kind
        || (!group.is_spatial()
            && !matches!(group.kind, Kind::Embedding)
            && !matches!(module.kind, Kind::Embedding)
            && module.shape().iter().skip(2).all(|&size| size == 1));
    if !same || !alike {
        let expected = format!("{} × {} as in another adapter", group.outputs, group.inputs);
        return Err(ErrorKind::BadShape { expected, found: module.shape() })
            .in_tensor(&module.name);
    }
    group.members.push(member);
    Ok(())
}

/// The name a group has in the output: an input's own where one is of that convention, else made of
/// another's if that can be done without a guess.
fn output_name(group: &Group, adapters: &[Adapter], output: &Convention) -> Result<String> {
    let mut names = group.members.iter().filter_map(|member| {
        let adapter = adapters.get(member.adapter)?;
        Some((adapter.convention, adapter.modules.get(member.module)?.name.as_str()))
    });
    if let Some((_, name)) = names.clone().find(|(convention, _)| *convention == output) {
        return Ok(name.to_owned());
    }
    let (convention, name) = names.next().ok_or(ErrorKind::NothingSelected)?;
    if output.names != Names::Dotted && !matches!(convention.names, Names::Dotted | Names::Gguf) {
        return Ok(name.to_owned());
    }
    if output.names != Names::Dotted {
        let encoder = name.starts_with("text_model.") || name.starts_with("text_encoder.");
        let prefix = if encoder { "lora_te_" } else { "lora_unet_" };
        return Ok(format!("{prefix}{}", flatten(name)));
    }
    if name.contains('.') {
        return Ok(name.to_owned());
    }
    let reason =
        "a flattened name does not say where its dots were, so PEFT's path cannot be made of \
                  it; write --to kohya"
            .to_owned();
    Err(ErrorKind::BadOption(reason)).in_tensor(name)
}
