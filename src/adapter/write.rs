//! From an encoded adapter to its files: a directory or one file, safetensors or GGUF.

use std::path::Path;

use super::convention::{Convention, Output};
use super::new_adapter::{Container, Encoded, GGUF_NAME};
use super::scale::GGUF_ALPHA;
use super::sidecar::CONFIG_NAME;
use crate::error::{Error, ErrorKind, Locate, Result};
use crate::format::gguf::{self, Value};
use crate::format::{Checkpoint, Dtype, Metadata, Staging, header};

impl Encoded {
    /// Writes everything beside `output`, where nothing stands until the staging is committed, with no wider
    /// permissions than `inputs` have. The second value is the tensor file's bytes.
    ///
    /// # Errors
    /// I/O, an output that exists without `force`, a dtype that the container does not have.
    pub fn stage(
        &self,
        output: &Path,
        force: bool,
        inputs: &[&Checkpoint],
    ) -> Result<(Staging, u64)> {
        let (head, places) = self.laid_out()?;
        let (staging, name) = match self.output {
            Output::Directory(name) => (Staging::directory(output, force)?, name),
            _ => (Staging::file(output, force)?, ""),
        };
        let create = |name: &str| {
            let file = staging.create(name)?;
            let shards = inputs.iter().flat_map(|input| &input.shards);
            file.no_wider_than(shards.map(|shard| &shard.source))?;
            Ok::<_, Error>(file)
        };
        let small = |name: &str, bytes: &[u8]| {
            let mut file = create(name)?;
            file.write_at(bytes, 0)?;
            file.finish()
        };
        let mut file = create(name)?;
        let start = head.len() as u64;
        file.write_at(&head, 0)?;
        let mut end = start;
        for (place, (_, _, _, bytes)) in places.iter().zip(&self.tensors) {
            file.write_at(bytes, start + place)?;
            end = start + place + bytes.len() as u64;
        }
        file.finish()?;
        if let Some(config) = &self.config {
            small(CONFIG_NAME, config)?;
        }
        for (name, bytes) in &self.beside {
            small(name, bytes)?;
        }
        Ok((staging, end))
    }

    /// The beginning of the tensor file, and where in what follows each tensor stands.
    fn laid_out(&self) -> Result<(Vec<u8>, Vec<u64>)> {
        let specs: Vec<(String, Dtype, Vec<usize>)> =
            self.tensors.iter().map(|(n, d, s, _)| (n.clone(), *d, s.clone())).collect();
        match self.container {
            Container::Gguf => gguf::encode(&pairs(&self.metadata), &specs),
            Container::Safetensors => {
                let specs = header::lay_out(specs);
                let places = specs.iter().map(|spec| spec.start).collect();
                Ok((header::encode(Some(&self.metadata), &specs)?, places))
            }
        }
    }

    /// Bytes that the tensor file will have.
    ///
    /// # Errors
    /// If its header would be too long.
    pub fn file_bytes(&self) -> Result<u64> {
        let (head, places) = self.laid_out()?;
        let ends = places.iter().zip(&self.tensors);
        let end = ends.map(|(place, (_, _, _, bytes))| place + bytes.len() as u64).max();
        Ok(head.len() as u64 + end.unwrap_or(0))
    }

    /// Makes a GGUF file one of a directory, with a Modelfile that puts it on a base (Ollama's).
    pub fn with_modelfile(&mut self, base: &Path) {
        self.output = Output::Directory(GGUF_NAME);
        let text = format!("FROM {}\nADAPTER ./{GGUF_NAME}\n", base.display());
        self.beside.push(("Modelfile", text.into_bytes()));
    }
}

/// Metadata as GGUF has it: texts, but for the one number.
fn pairs(metadata: &Metadata) -> Vec<(String, Value)> {
    let value = |key: &str, text: &str| match text.parse() {
        Ok(number) if key == GGUF_ALPHA => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    };
    metadata.iter().map(|(key, text)| (key.clone(), value(key, text))).collect()
}

/// Fails unless a path ends as the convention's outputs do: a file's ending, or none of a directory.
///
/// # Errors
/// [`ErrorKind::BadOption`], with what the path should be.
pub fn check_ending(convention: &Convention, output: &Path) -> Result<()> {
    let ending = output.extension().map(|ending| ending.to_string_lossy().into_owned());
    let (is, give) = match convention.output {
        Output::File(wanted) if ending.as_deref() == Some(wanted) => return Ok(()),
        Output::Directory(_)
            if !matches!(ending.as_deref(), Some("safetensors" | "gguf" | "json")) =>
        {
            return Ok(());
        }
        Output::File(wanted) => ("one file".to_owned(), format!("a path that ends in .{wanted}")),
        Output::Directory(_) => (
            "a directory (its scale is in adapter_config.json)".to_owned(),
            "a path without .safetensors, or --to kohya".to_owned(),
        ),
        Output::Never => ("only read".to_owned(), "another --to".to_owned()),
    };
    let reason = format!("an adapter in the {} convention is {is}; give {give}", convention.name);
    Err(Error::from(ErrorKind::BadOption(reason))).in_file(output)
}
