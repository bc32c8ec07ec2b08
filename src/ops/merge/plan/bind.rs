//! From adapters and a base to the change of every touched tensor.

use std::path::Path;

use super::binder::{Binder, Bound, Owners, claim};
use super::replaced::same_bytes;
use super::step::Change;
use crate::adapter::Adapter;
use crate::adapter::target::{self, Targets};
use crate::error::{ErrorKind, ExpertsError, Result, UnmatchedName};
use crate::format::Checkpoint;
use crate::ops::merge::{Options, PlannedAdapter};

/// Finds every module's tensor and checks that it fits.
pub(in crate::ops::merge) fn bind(
    options: &Options,
    base: &Checkpoint,
    adapters: &[Adapter],
) -> Result<Bound> {
    let mut binder = Binder::new(options, base)?;
    for (number, adapter) in adapters.iter().enumerate() {
        binder.add(number, adapter, adapters).map_err(|error| error.in_file(&adapter.path))?;
    }
    binder.settle_contested(adapters)?;
    binder.settle_tied(adapters)?;
    binder.warn_of_half_grown();
    Ok(binder.bound)
}

impl Binder<'_> {
    fn add(&mut self, number: usize, adapter: &Adapter, adapters: &[Adapter]) -> Result<()> {
        let input = self.options.adapters.get(number).ok_or(ErrorKind::NotFound)?;
        let head = self.tied.as_ref().map(|tied| tied.head.as_str());
        let mut targets = target::find(adapter, self.base, head)?;
        let total = adapter.modules.len() + adapter.replacements.len() + adapter.unknown.len();
        self.check_untrained(adapter)?;
        let weigh = |module: &str| self.options.weight(input, module, module);
        let added = self.add_new((number, adapters), &mut targets, &weigh)?;
        let placed = names(adapter, &targets);
        let missing = targets.unmatched.iter().map(|missing| [missing.name.as_str(); 2]);
        for names in placed.iter().copied().chain(missing) {
            self.options.selection().note(names, &mut self.bound.usage);
        }
        input.rules.check(&placed)?;
        // What takes no part need not fit.
        targets.unmatched.retain(|UnmatchedName { name, .. }| {
            self.options.weight(input, name, name) != 0.0 && self.options.selects(name, name)
        });
        self.check_unmatched(adapter, &targets, total)?;
        let mut applied = added;
        let mut left_out = 0;
        let mut owners = Owners::new();
        for (index, (module, places)) in adapter.modules.iter().zip(&targets.modules).enumerate() {
            let mut used = false;
            for place in places {
                let name = &place.tensor;
                let weight = self.options.weight(input, &module.name, name);
                if weight == 0.0 || !self.options.selects(&module.name, name) {
                    continue;
                }
                claim(&mut owners, place, &module.name)?;
                self.add_module((number, index), module, place, weight)
                    .map_err(|error| error.in_tensor(&module.name))?;
                used = true;
            }
            applied += usize::from(used);
            left_out += usize::from(!used && !places.is_empty());
        }
        for (replacement, name) in adapter.replacements.iter().zip(&targets.replacements) {
            let Some(name) = name else { continue };
            let weight = self.options.weight(input, &replacement.module, name);
            if weight == 0.0 || !self.options.selects(&replacement.module, name) {
                left_out += 1;
                continue;
            }
            self.add_replacement(number, adapter, replacement, name, weight)
                .map_err(|error| error.in_tensor(&replacement.label()))?;
            applied += 1;
        }
        self.bound.unmatched.extend(targets.unmatched);
        self.bound.adapters.push(PlannedAdapter {
            path: adapter.path.clone(),
            weight: input.weight,
            by_module: input.rules.weighs(),
            convention: adapter.convention.name.to_owned(),
            total,
            applied,
            left_out,
        });
        Ok(())
    }

    fn check_unmatched(&self, adapter: &Adapter, targets: &Targets, total: usize) -> Result<()> {
        let unmatched = targets.unmatched.clone();
        if unmatched.is_empty() || (self.options.allow_unmatched && unmatched.len() < total) {
            return Ok(());
        }
        let wrapped = one_shard(&self.base.path)
            .or_else(|| target::wrapped(self.base))
            .or_else(|| target::nameless(self.base));
        let guess = (wrapped.is_none() && unmatched.len() == total).then(|| {
            let trained = adapter.base_model().map(|name| format!(" (it was trained on `{name}`)"));
            let trained = trained.unwrap_or_default();
            if unmatched.iter().any(has_neighbour) {
                return format!(
                    "none of its names exist in this base, though it has names like them{trained}: is it \
                     another model of the family, or one whose layers are stored otherwise?"
                );
            }
            format!(
                "none of its names exist in this base: it belongs to another architecture{trained}"
            )
        });
        let (base, guess) = (self.base.path.clone(), wrapped.or(guess));
        Err(ErrorKind::Unmatched { unmatched, total, base, guess }.into())
    }

    /// Parameters that the base has, that the config names and that the file lacks: it is not whole.
    fn check_untrained(&mut self, adapter: &Adapter) -> Result<()> {
        let has = |parameter: &&String| {
            let ending = format!(".{parameter}");
            self.base.names().any(|name| {
                name == parameter.as_str()
                    || name.ends_with(&ending)
                    || name.strip_suffix(".weight").is_some_and(|name| name.ends_with(&ending))
            })
        };
        let names: Vec<String> = adapter.untrained.iter().filter(has).cloned().collect();
        if !names.is_empty() {
            return Err(ExpertsError::Count { found: 0, names }.into());
        }
        self.bound.warnings.extend(adapter.notes.iter().cloned());
        Ok(())
    }

    fn settle_tied(&mut self, adapters: &[Adapter]) -> Result<()> {
        let Some(tied) = self.tied.clone() else { return Ok(()) };
        let changed = |name: &str| self.bound.changes.get(name);
        let (embedding, head) = (changed(&tied.embedding), changed(&tied.head));
        // Trained tokens are shared by both sides in PEFT too; a grown vocabulary needs both grown.
        let shared = |change: &Change| change.replace().is_none() && !change.updates();
        let same = match (embedding.and_then(Change::replace), head.and_then(Change::replace)) {
            (Some(first), Some(second)) => same_bytes(adapters, first, second)?,
            _ => false,
        };
        let keep = self.options.keep_tied
            || adapters.iter().any(|a| a.config.as_ref().is_some_and(|config| config.ties_weights));
        match (embedding, head) {
            (None, None) => return Ok(()),
            (Some(change), None)
                if shared(change) || self.bound.grown.contains_key(&tied.embedding) =>
            {
                return Ok(());
            }
            (Some(_), Some(_)) if same => {
                self.bound.changes.remove(&tied.head);
                return Ok(());
            }
            (_, Some(_)) if keep => {
                let reason = format!(
                    "the adapter changes `{}`, so the embeddings cannot stay tied",
                    tied.head
                );
                return Err(ErrorKind::BadOption(reason).into());
            }
            (Some(_), None) if keep => return Ok(()),
            _ => {}
        }
        self.bound.warnings.push(format!(
            "the base ties `{}` to `{}` and the adapter changes only one side: the result stores both \
             and sets tie_word_embeddings to false",
            tied.head, tied.embedding
        ));
        self.bound.untied = Some(tied);
        Ok(())
    }
}

/// Whether the base has a module of the same last two parts as one without a place.
fn has_neighbour(unmatched: &UnmatchedName) -> bool {
    let last_two = |name: &str| {
        let name = name.strip_suffix(".weight").unwrap_or(name);
        name.rsplit('.').take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let own = last_two(&unmatched.name);
    own.len() == 2 && unmatched.nearest.iter().any(|name| last_two(name) == own)
}

/// Modules and replacements that have a place, by both their names.
fn names<'a>(adapter: &'a Adapter, targets: &'a Targets) -> Vec<[&'a str; 2]> {
    let modules = adapter.modules.iter().zip(&targets.modules);
    let modules = modules.flat_map(|(module, places)| {
        places.iter().map(|place| [module.name.as_str(), place.tensor.as_str()])
    });
    let replaced = adapter.replacements.iter().zip(&targets.replacements);
    let replaced = replaced.filter_map(|(own, name)| Some([own.module.as_str(), name.as_deref()?]));
    modules.chain(replaced).collect()
}

/// What to say of a base that is one of several shards, by its name: `model-00001-of-00003.safetensors`.
fn one_shard(base: &Path) -> Option<String> {
    let stem = base.file_stem()?.to_str()?;
    let (rest, of) = stem.rsplit_once("-of-")?;
    let number = rest.rsplit('-').next()?;
    let (number, of) = (number.parse::<usize>().ok()?, of.parse::<usize>().ok()?);
    let whole = (of > 1 && base.is_file()).then(|| base.parent())??;
    let whole = if whole.as_os_str().is_empty() { Path::new(".") } else { whole };
    Some(format!("this is shard {number} of {of}: name the directory, {}", whole.display()))
}
