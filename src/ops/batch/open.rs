//! A batch from its file to items with their options, held to one another before any work.

use std::path::{Path, PathBuf};

use super::check::check;
use super::jobs;
use super::ready::{Ready, ready};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Access;
use crate::format::access::read_small;
use crate::format::checkpoint::not_found;

/// Which batch, and what the command line says on top of it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file.
    pub jobs: PathBuf,
    /// How inputs are read.
    pub access: Access,
    /// Replace existing outputs.
    pub force: bool,
    /// Leave items alone whose outputs are there.
    pub skip_done: bool,
    /// Begin no other item after one that fails.
    pub fail_fast: bool,
    /// Items at once; as many as there are threads for 0.
    pub at_once: usize,
    /// Threads of all items together; 0 for one a core.
    pub threads: usize,
}

/// A batch, its items read and held to one another.
#[derive(Debug)]
pub struct Batch {
    pub(super) options: Options,
    pub(super) folder: PathBuf,
    pub(super) items: Vec<Ready>,
}

/// Reads a batch and holds its items to one another; opens no adapter.
///
/// # Errors
/// What is wrong in the file, with its place; an input that is not there, an output that is, and items that write over
/// or read what others write.
pub fn plan(options: &Options) -> Result<Batch> {
    let file = &options.jobs;
    let text = read_small(file).map_err(not_found);
    let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let items = jobs::read(&text.in_file(file)?, &folder).in_file(file)?;
    let mut items = ready(items, &folder, options.access).in_file(file)?;
    for item in items.iter_mut().filter(|_| options.skip_done) {
        let output = item.asked.output().map(Path::to_path_buf);
        item.is_done = output.is_some_and(|output| output.symlink_metadata().is_ok());
    }
    check(&items).in_file(file)?;
    let batch = Batch { options: options.clone(), folder, items };
    batch.check_inputs()?;
    batch.check_outputs(options.force)?;
    Ok(batch)
}

impl Batch {
    /// Fails if an input is not there.
    fn check_inputs(&self) -> Result<()> {
        for item in self.items.iter().filter(|item| !item.is_done) {
            let (adapters, models) = item.asked.inputs();
            for path in adapters.into_iter().chain(models) {
                if !path.exists() {
                    return Err(ErrorKind::NotFound).in_file(path);
                }
            }
        }
        Ok(())
    }

    /// Fails if an output is there and is not to be replaced.
    pub(super) fn check_outputs(&self, force: bool) -> Result<()> {
        let items = self.items.iter().filter(|item| !item.is_done);
        let mut outputs =
            items.flat_map(|item| item.asked.output().into_iter().chain(item.asked.beside()));
        match outputs.find(|output| !force && output.symlink_metadata().is_ok()) {
            Some(output) => Err(ErrorKind::OutputExists).in_file(output),
            None => Ok(()),
        }
    }
}
