//! What a page was made by and of: it can be made again, and its inputs be known.

use std::path::{Path, PathBuf};

use lora_tool::format::hash;

/// The command line, and the files it was given.
pub(crate) struct Made {
    /// The command line, as a shell reads it.
    pub(super) command: String,
    /// Names of adapters' files and their SHA-256.
    pub(super) inputs: Vec<(String, String)>,
}

impl Made {
    /// Hashes the files of adapters.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn of<'a>(
        command: &str,
        adapters: impl IntoIterator<Item = &'a Path>,
    ) -> lora_tool::Result<Self> {
        let in_directory = |path: &Path| path.join("adapter_model.safetensors");
        let file = |path: &Path| if path.is_dir() { in_directory(path) } else { path.to_owned() };
        let files = adapters.into_iter().map(file).filter(|path| path.is_file());
        let hashed = |path: PathBuf| Ok((path.display().to_string(), hash::of_file(&path)?));
        let inputs = files.map(hashed).collect::<lora_tool::Result<_>>()?;
        Ok(Self { command: command.to_owned(), inputs })
    }
}
