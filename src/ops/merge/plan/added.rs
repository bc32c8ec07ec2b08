//! Tensors that an adapter has whole and the base has not, such as a classifier's head trained on a
//! language model: the result gets them beside the base's own.

use super::binder::Binder;
use super::replaced::same_bytes;
use super::step::{Added, ReplaceStep};
use crate::adapter::Adapter;
use crate::adapter::module::{Replacement, Replaces};
use crate::adapter::target::Targets;
use crate::error::{ErrorKind, Locate, Result};
use crate::weight::element::float_type;

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
        float_type(spec.dtype)?;
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
