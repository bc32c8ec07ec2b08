//! Tensors that an adapter has whole and the base has not, such as a classifier's head trained on a
//! language model: the result gets them beside the base's own.

use super::bind::{Binder, as_matrix};
use super::change::{Action, Change, ReplaceStep};
use super::layout::{OutputShard, OutputTensor};
use super::replaced::same_bytes;
use crate::adapter::Adapter;
use crate::adapter::module::{Replacement, Replaces};
use crate::adapter::target::Targets;
use crate::adapter::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Checkpoint, Dtype};

/// A tensor of an adapter that the result has beside the base's.
#[derive(Debug, Clone)]
pub(in crate::ops::merge) struct Added {
    /// Its name.
    name: String,
    shape: Vec<usize>,
    values: ReplaceStep,
}

impl Binder<'_> {
    /// Takes the tensors out of what fits nothing that are to be added: those that the config's
    /// `modules_to_save` names, or any with `--add-new`. Returns how many there are.
    ///
    /// # Errors
    /// Two adapters that have different values for one.
    pub(in crate::ops::merge) fn add_new(
        &mut self,
        (number, adapters): (usize, &[Adapter]),
        targets: &mut Targets,
        weigh: &dyn Fn(&str) -> f64,
    ) -> Result<usize> {
        let Some(adapter) = adapters.get(number) else { return Ok(0) };
        let placed = targets.modules.iter().any(|places| !places.is_empty());
        let [_] = self.base.components.as_slice() else { return Ok(0) };
        let mut count = 0;
        for (replacement, place) in adapter.replacements.iter().zip(&targets.replacements) {
            let wanted = self.options.add_new || placed && is_declared(adapter, replacement);
            if place.is_some() || !wanted || !self.is_new(replacement) {
                continue;
            }
            let name = replacement.label();
            targets
                .unmatched
                .retain(|unmatched| unmatched.name != name && unmatched.name != replacement.module);
            let weight = weigh(&replacement.module);
            if weight == 0.0 || !self.options.selects(&replacement.module, &name) {
                continue;
            }
            self.add_tensor((number, adapters), replacement, &name, weight).in_tensor(&name)?;
            count += 1;
        }
        Ok(count)
    }

    fn add_tensor(
        &mut self,
        (number, adapters): (usize, &[Adapter]),
        replacement: &Replacement,
        name: &str,
        weight: f64,
    ) -> Result<()> {
        let Some(adapter) = adapters.get(number) else { return Ok(()) };
        let spec = adapter.file.tensor(&replacement.tensor).ok_or(ErrorKind::NotFound)?.spec;
        if element_type(spec.dtype).is_none() {
            return Err(ErrorKind::BadDtype { dtype: spec.dtype.to_string() }.into());
        }
        let values =
            ReplaceStep { adapter: number, tensor: replacement.tensor.clone(), weight: 1.0 };
        if let Some(first) = self.bound.added.iter().find(|added| added.name == name) {
            if same_bytes(adapters, &first.values, &values)? {
                return Ok(());
            }
            let path = |step: &ReplaceStep| adapters.get(step.adapter).map(|a| a.path.clone());
            let (first, second) = (path(&first.values), path(&values));
            let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
            return Err(ErrorKind::ReplaceConflict { first, second }.into());
        }
        let task = adapter.config.as_ref().and_then(|config| config.text("task_type"));
        let task = task.map(|task| format!(", here of {task}")).unwrap_or_default();
        let whole = if weight == 1.0 { "" } else { "; it is added whole, whatever the weight" };
        self.bound.warnings.push(format!(
            "`{name}` {:?} is new: the base has no such tensor, the result has it{whole}. Its \
             config.json has to name a class that loads it (`architectures`{task}) and, of a classifier, \
             the labels (`num_labels`, `id2label`)",
            spec.shape
        ));
        self.bound.added.push(Added { name: name.to_owned(), shape: spec.shape.clone(), values });
        Ok(())
    }

    /// Whether the base has nothing that could be it under another name.
    fn is_new(&self, replacement: &Replacement) -> bool {
        let label = replacement.label();
        let parts: Vec<&str> = label.rsplitn(3, '.').take(2).collect();
        let alike = |name: &str| {
            let own: Vec<&str> = name.rsplitn(3, '.').take(2).collect();
            own == parts
        };
        !matches!(replacement.replaces, Replaces::Rows(_)) && !self.base.names().any(alike)
    }
}

/// Whether the adapter's config says that the module was trained whole.
fn is_declared(adapter: &Adapter, replacement: &Replacement) -> bool {
    let document = adapter.config.as_ref().map(|config| &config.document);
    let names = document.and_then(|document| document.get("modules_to_save")?.as_array());
    let mut names = names.into_iter().flatten().filter_map(serde_json::Value::as_str);
    let module = replacement.module.as_str();
    names.any(|name| {
        module == name
            || module.ends_with(&format!(".{name}"))
            || module.starts_with(&format!("{name}."))
            || module.contains(&format!(".{name}."))
    })
}

/// Puts the new tensors behind a shard's own. Their dtype is that of the base's weights there.
pub(in crate::ops::merge) fn append(
    added: &[Added],
    base: &Checkpoint,
    dtype: Option<Dtype>,
    shard: &mut OutputShard,
) {
    let floating = |tensor: &&OutputTensor| {
        let spec = base.tensor(&tensor.base).map(|view| view.spec.dtype);
        spec.is_some_and(|dtype| element_type(dtype).is_some())
    };
    let Some(beside) = shard.tensors.iter().find(floating) else { return };
    let (beside, own) = (beside.base.clone(), beside.dtype);
    for tensor in added {
        let (rows, columns) = as_matrix(&tensor.shape);
        let replace = Some(tensor.values.clone());
        shard.tensors.push(OutputTensor {
            name: tensor.name.clone(),
            full_name: tensor.name.clone(),
            // An outright replacement takes nothing of it.
            base: beside.clone(),
            dtype: dtype.unwrap_or(own),
            shape: tensor.shape.clone(),
            action: Action::Change(Change { rows, columns, replace, ..Change::default() }),
        });
    }
    if !added.is_empty() {
        shard.same_header_as = None;
    }
}
