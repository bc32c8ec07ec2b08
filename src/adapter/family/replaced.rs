//! Values that take the base's place: PEFT's `modules_to_save`, `bias`, saved embeddings and
//! trainable tokens. Despite its name, `trainable_tokens_delta` holds the rows themselves
//! (peft `tuners/trainable_tokens/layer.py`).

use super::Parts;
use crate::adapter::convention::Part;
use crate::adapter::module::{Replacement, Replaces};
use crate::adapter::sidecar::PeftConfig;
use crate::adapter::slice::find;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Checkpoint;

/// The replacements among a module's tensors.
pub(crate) fn replacements(
    module: &str,
    parts: &Parts,
    file: &Checkpoint,
    config: Option<&PeftConfig>,
) -> Result<Vec<Replacement>> {
    let mut found = Vec::new();
    for (part, tensor) in parts {
        let replaces = match part {
            Part::Weight => Replaces::Weight,
            Part::Bias => Replaces::Bias,
            Part::TokenRows => Replaces::Rows(token_rows(module, tensor, file, config)?),
            _ => continue,
        };
        found.push(Replacement { module: module.to_owned(), replaces, tensor: tensor.clone() });
    }
    Ok(found)
}

fn token_rows(
    module: &str,
    tensor: &str,
    file: &Checkpoint,
    config: Option<&PeftConfig>,
) -> Result<Vec<usize>> {
    let view = find(file, tensor)?;
    let listed = config.map(|config| config.token_indices.as_slice()).unwrap_or_default();
    let ends_with =
        |name: &str| name.is_empty() || module == name || module.ends_with(&format!(".{name}"));
    let Some((_, rows)) = listed.iter().find(|(name, _)| ends_with(name)) else {
        let reason =
            format!("`trainable_token_indices` does not say which rows of `{module}` these are");
        return Err(ErrorKind::BadConfig { reason }).in_tensor(tensor);
    };
    match view.spec.shape.as_slice() {
        [count, _] if *count == rows.len() => Ok(rows.clone()),
        _ => {
            let expected = format!("{} rows, as the config lists", rows.len());
            Err(ErrorKind::BadShape { expected, found: view.spec.shape.clone() }).in_tensor(tensor)
        }
    }
}
