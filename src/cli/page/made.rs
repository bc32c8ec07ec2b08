//! What a page was made by and of: it can be made again, and its inputs be known.

use std::path::{Path, PathBuf};

use lora_tool::format::hash;

use super::html::escape;

/// The command line, and the files it was given.
pub(crate) struct Made {
    /// The command line, as a shell reads it.
    pub(crate) command: String,
    /// Names of adapters' files and their SHA-256.
    inputs: Vec<(String, String)>,
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

    /// The foot of the page.
    pub(super) fn foot(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let inputs = self
            .inputs
            .iter()
            .map(|(file, sha256)| format!("<br>\n{}: SHA-256 <code>{sha256}</code>", escape(file)));
        let inputs = inputs.collect::<Vec<_>>().concat();
        format!(
            "<footer>lora-tool {version}: <code>{}</code>{inputs}</footer>\n",
            escape(&self.command)
        )
    }
}
