//! What is merged into the base: adapters, and fine-tuned checkpoints that stand where adapters do.

use std::path::Path;

use super::binder::Bound;
use super::step::{Change, Difference, Step};
use super::tuned::{self, Differences};
use crate::adapter::sidecar::CONFIG_NAME;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, FamilyError, Locate, Result, TunedError};
use crate::format::Checkpoint;
use crate::ops::merge::{AdapterInput, Options, PlannedAdapter};
use crate::ops::open_adapters_for_base;
use crate::ops::shared::pairing;
use crate::weight::as_matrix;
use crate::weight::numbers;
use crate::weight::tied;

/// One input, by its number among its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::merge) enum Input {
    /// An adapter.
    Adapter(usize),
    /// A fine-tuned checkpoint.
    Tuned(usize),
}

/// All open inputs beside the base.
#[derive(Debug)]
pub(in crate::ops::merge) struct Inputs {
    pub(in crate::ops::merge) adapters: Vec<Adapter>,
    pub(in crate::ops::merge) tuned: Vec<Checkpoint>,
    /// As the user gave them.
    pub(in crate::ops::merge) order: Vec<Input>,
}

/// Opens all inputs, each as what its keys say it is.
pub(in crate::ops::merge) fn open(options: &Options, base: &Checkpoint) -> Result<Inputs> {
    let (mut tuned, mut order) = (Vec::new(), Vec::new());
    let mut adapters: Vec<AdapterInput> = Vec::new();
    for input in &options.adapters {
        if let Some(checkpoint) = open_tuned(&input.path, &options.open, base)? {
            if !input.weight.is_finite() {
                return Err(ErrorKind::BadWeight(input.weight)).in_file(&input.path);
            }
            order.push(Input::Tuned(tuned.len()));
            tuned.push(checkpoint);
        } else {
            order.push(Input::Adapter(adapters.len()));
            adapters.push(input.clone());
        }
    }
    let adapters = open_adapters_for_base(&adapters, &options.open.for_base(base)?)?;
    Ok(Inputs { adapters, tuned, order })
}

/// A checkpoint of the base's own tensors, half of them at least; `None` for anything else, which is for an adapter
/// to explain.
fn open_tuned(path: &Path, open: &OpenOptions, base: &Checkpoint) -> Result<Option<Checkpoint>> {
    if open.convention.is_some() || !path.exists() || path.join(CONFIG_NAME).is_file() {
        return Ok(None);
    }
    // The base itself, given twice, is a slip: it has nothing to add.
    if path.canonicalize().ok() == base.path.canonicalize().ok() {
        return Ok(None);
    }
    let checkpoint = match Checkpoint::open(path, open.access) {
        Ok(checkpoint) => checkpoint,
        // Only a checkpoint has an index that can be broken.
        Err(error) => match error.kind() {
            ErrorKind::MissingShard { .. }
            | ErrorKind::MissingTensor { .. }
            | ErrorKind::BadIndex { .. }
            | ErrorKind::IndexEscapes { .. } => return Err(error),
            _ => return Ok(None),
        },
    };
    // What shares no name with the base is no checkpoint of it, whatever is wrong with it.
    if pairing::shared(base, &checkpoint) == 0 {
        return Ok(None);
    }
    let checkpoint = numbers(checkpoint)?;
    let shared = pairing::shared(base, &checkpoint);
    Ok((shared > 0 && 2 * shared >= checkpoint.len()).then_some(checkpoint))
}

impl Inputs {
    /// The options as they are for the adapters alone.
    pub(in crate::ops::merge) fn adapter_options(&self, options: &Options) -> Options {
        let given = self.order.iter().zip(&options.adapters);
        let adapters = given.filter(|(input, _)| matches!(input, Input::Adapter(_)));
        Options { adapters: adapters.map(|(_, given)| given.clone()).collect(), ..options.clone() }
    }

    /// Adds what the tuned checkpoints change to what the adapters do.
    ///
    /// # Errors
    /// Checkpoints that do not go with the base or with the adapters; nothing left to merge.
    pub(in crate::ops::merge) fn add_tuned(
        &self,
        options: &Options,
        base: &Checkpoint,
        bound: &mut Bound,
    ) -> Result<()> {
        let mut planned = std::mem::take(&mut bound.adapters).into_iter();
        let mut heads = Vec::new();
        for (position, (input, given)) in self.order.iter().zip(&options.adapters).enumerate() {
            let &Input::Tuned(number) = input else {
                bound.adapters.extend(planned.next());
                continue;
            };
            let Some(checkpoint) = self.tuned.get(number) else { continue };
            let names: Vec<_> = base.names().map(|name| [name, name]).collect();
            given.rules.check(&names).in_file(&given.path)?;
            for names in names {
                options.selection().note(names, &mut bound.usage);
            }
            let weight = |name: &str| options.weight(given, name, name);
            let selected = |name: &str| weight(name) != 0.0 && options.selects(name, name);
            let found = tuned::differences(base, checkpoint, &selected, options.allow_unmatched);
            let Differences { tensors, head, left_out, unmatched } = found.in_file(&given.path)?;
            for (name, tensor) in &tensors {
                let step =
                    Difference { tuned: number, tensor: tensor.clone(), weight: weight(name) };
                self.add(position, name, name, step, base, bound).in_file(&given.path)?;
            }
            if let (Some(head), Some(tied)) = (head, tied::find(base)?) {
                let weight = weight(&tied.head);
                let step = Difference { tuned: number, tensor: head.tuned, weight };
                heads.push((position, head.parted, step));
            }
            bound.unmatched.extend(unmatched);
            bound.adapters.push(PlannedAdapter {
                path: given.path.clone(),
                weight: given.weight,
                by_module: given.rules.weighs(),
                convention: "checkpoint".to_owned(),
                total: tensors.len() + left_out,
                applied: tensors.len(),
                left_out,
            });
        }
        self.settle_heads(heads, options, base, bound)
    }

    /// Adds one difference to the change of a tensor; `stored` is the base tensor it starts from.
    fn add(
        &self,
        position: usize,
        name: &str,
        stored: &str,
        step: Difference,
        base: &Checkpoint,
        bound: &mut Bound,
    ) -> Result<()> {
        let view = base.tensor(stored).ok_or(ErrorKind::NotFound).in_tensor(stored)?;
        let empty = Change::new(as_matrix(&view.spec.shape));
        let change = bound.changes.entry(name.to_owned()).or_insert(empty);
        if let Some(adapter) = change.steps().iter().find_map(Step::replacing).map(|s| s.adapter) {
            let adapter = self.adapters.get(adapter).map(|adapter| adapter.path.clone());
            let adapter = adapter.unwrap_or_default();
            return Err(TunedError::Replaced { adapter }).in_tensor(name);
        }
        // A transform takes the weight as all others leave it, so it has to come last.
        for transform in change.transforms() {
            let own = Input::Adapter(transform.adapter);
            let later = self.order.iter().position(|input| *input == own);
            if later.is_some_and(|later| later < position) {
                return Err(FamilyError::Order).in_tensor(name);
            }
        }
        change.add(Step::Difference(step));
        Ok(())
    }

    /// Adds the heads' differences, if the result stores the base's tied pair as two.
    fn settle_heads(
        &self,
        heads: Vec<(usize, bool, Difference)>,
        options: &Options,
        base: &Checkpoint,
        bound: &mut Bound,
    ) -> Result<()> {
        let Some(tied) = tied::find(base)? else { return Ok(()) };
        let parted = heads.iter().any(|(_, own, _)| *own);
        if bound.untied.is_none() && !parted {
            return Ok(());
        }
        if bound.untied.is_none() {
            if options.keep_tied {
                let reason = format!(
                    "a checkpoint has a `{}` of its own, so the embeddings cannot stay tied",
                    tied.head
                );
                return Err(ErrorKind::BadOption(reason).into());
            }
            bound.warnings.push(format!(
                "the base ties `{}` to `{}` and a checkpoint does not: the result stores both and sets \
                 tie_word_embeddings to false",
                tied.head, tied.embedding
            ));
            bound.untied = Some(tied.clone());
        }
        for (position, _, step) in heads {
            let path = options.adapters.get(position).map(|given| given.path.as_path());
            let added = self.add(position, &tied.head, &tied.embedding, step, base, bound);
            added.in_file(path.unwrap_or(Path::new("")))?;
        }
        Ok(())
    }
}
