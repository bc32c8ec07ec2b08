//! The base that an adapter is held against: its class, its names, and where the modules lie in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::adapter::target::{self, Targets};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::format::json::model_config;
use crate::format::{Checkpoint, Dtype};
use crate::ops::merge::plan::misfit;
use crate::ops::merge::tied_head;
use crate::ops::shared::base::open_base;
use crate::weight::root;

/// A base: a checkpoint, a config, or both.
pub(super) struct Base {
    pub(super) path: PathBuf,
    pub(super) checkpoint: Option<Checkpoint>,
    /// The fields of its config.json; empty without one.
    pub(super) config: Map<String, Value>,
    /// Where the modules lie; `None` if its names cannot be compared.
    pub(super) targets: Option<Targets>,
    /// Modules and replacements of another shape than the base's.
    pub(super) misfits: Vec<String>,
    /// Whether a merge would refuse the adapter.
    pub(super) refuses: bool,
    /// Tensors of the adapter that hold the base's own values.
    pub(super) copies: BTreeSet<String>,
    /// The weight of a head that is not stored, because the input embedding is it.
    tied_head: Option<String>,
    /// Why its names cannot be compared.
    pub(super) opaque: Option<String>,
    /// Whether its weights are stored as codes, as its config or its dtypes tell.
    pub(super) quantised: bool,
}

/// Dtypes of codes.
const CODES: [Dtype; 5] = [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I8, Dtype::U8, Dtype::I32];

fn has_codes(path: &Path, open: &OpenOptions) -> Result<bool> {
    let stored = Checkpoint::open(path, open.access)?;
    Ok(stored.names().any(|name| {
        stored
            .tensor(name)
            .is_some_and(|view| CODES.contains(&view.spec.dtype) && view.spec.shape.len() > 1)
    }))
}

impl Base {
    /// Whether it wraps a language model.
    pub(super) fn wraps(&self) -> bool {
        root::wraps(&self.config)
    }

    /// Opens what there is: a config alone tells the class.
    pub(super) fn open(path: &Path, adapter: &Path, open: &OpenOptions) -> Result<Self> {
        let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let config = model_config(directory)?.unwrap_or_default();
        let checkpoint = match open_base(path, &[adapter], open.access) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error)
                if !config.is_empty() && matches!(error.kind(), ErrorKind::NoCheckpoint { .. }) =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        let quantised = config.contains_key("quantization_config")
            || checkpoint.is_some() && has_codes(path, open)?;
        Ok(Self {
            path: path.to_path_buf(),
            checkpoint,
            config,
            targets: None,
            misfits: Vec::new(),
            refuses: false,
            copies: BTreeSet::new(),
            tied_head: None,
            opaque: None,
            quantised,
        })
    }

    /// Finds the adapter's modules in it.
    pub(super) fn look_up(&mut self, adapter: &Adapter) -> Result<()> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        self.tied_head = tied_head(checkpoint)?;
        match target::find(adapter, checkpoint, self.tied_head.as_deref()) {
            Ok(targets) => {
                let misfits = misfit::misfits(adapter, checkpoint, &targets)?;
                self.refuses = !misfits.is_empty() || targets.modules.iter().any(Vec::is_empty);
                // A bias is added to outputs that had none; only a merge has no place for it.
                let shapes = misfits.into_iter().filter(|misfit| !lacks_tensor(&misfit.error));
                self.misfits = shapes.map(|misfit| misfit.name).collect();
                self.copies = copies(adapter, checkpoint, &targets)?;
                self.targets = Some(targets);
            }
            Err(error) => match error.kind() {
                // A server loads quantised bases under the names of the plain ones.
                ErrorKind::Quantised { .. } | ErrorKind::Ambiguous { .. } => {
                    self.opaque = Some(error.to_string());
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// A text of the config.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.config.get(field)?.as_str()
    }

    /// A text of the config of the language model inside.
    pub(super) fn text_field(&self, field: &str) -> Option<&str> {
        self.config.get("text_config")?.get(field)?.as_str()
    }

    /// The class of the model: transformers' first architecture, or diffusers' `_class_name`.
    pub(super) fn class(&self) -> Option<&str> {
        let listed = self.config.get("architectures").and_then(Value::as_array);
        listed
            .and_then(|list| list.first())
            .and_then(Value::as_str)
            .or_else(|| self.text("_class_name"))
    }

    pub(super) fn model_type(&self) -> Option<&str> {
        self.text("model_type")
    }

    /// Whether the config is diffusers', whose layout the checkpoint has then.
    pub(super) fn is_diffusers(&self) -> bool {
        self.config.contains_key("_class_name")
    }

    /// A number of the config, or of its text model's.
    pub(super) fn number(&self, field: &str) -> Option<usize> {
        let nested = self.config.get("text_config").and_then(Value::as_object);
        let found = self.config.get(field).or_else(|| nested?.get(field));
        found.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
    }

    /// Names of the checkpoint's tensors.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.checkpoint.iter().flat_map(Checkpoint::names).collect()
    }

    /// Whether a weight of exactly this module is in the checkpoint.
    pub(super) fn has(&self, module: &str) -> bool {
        let Some(checkpoint) = &self.checkpoint else { return false };
        let weight = format!("{module}.weight");
        checkpoint.tensor(&weight).is_some()
            || checkpoint.tensor(module).is_some()
            || self.tied_head.as_ref() == Some(&weight)
    }
}

fn lacks_tensor(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ShapeMismatch { found, .. } if found.is_empty())
}

/// Tensors of the adapter that would replace the base's by the same bytes.
fn copies(adapter: &Adapter, base: &Checkpoint, targets: &Targets) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (replacement, name) in adapter.replacements.iter().zip(&targets.replacements) {
        let views = (
            adapter.file.tensor(&replacement.tensor),
            name.as_ref().and_then(|name| base.tensor(name)),
        );
        let (Some(own), Some(theirs)) = views else { continue };
        if (own.spec.dtype, &own.spec.shape) != (theirs.spec.dtype, &theirs.spec.shape) {
            continue;
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        if own.all(&mut first)? == theirs.all(&mut second)? {
            found.insert(replacement.tensor.clone());
        }
    }
    Ok(found)
}
