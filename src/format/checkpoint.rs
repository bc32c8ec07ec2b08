//! A checkpoint on disk: one file, shards with or without an index, or a diffusers pipeline of
//! several components. Opening reads headers only.

mod computed;
mod find;
mod gguf_set;
mod held;

pub use super::shard::{ComputedTensors, PICKLES, Shard, is_pickle};
pub(crate) use super::shard::{not_found, shrunk};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) use find::gguf_parts;
use find::{Model, find_model, list};

use super::access::Access;
use super::index::{INDEX_SUFFIX, Index};
use super::view::TensorView;
use crate::error::{Error, ErrorKind, Locate, Result};

const SINGLE_NAMES: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// One model of a checkpoint: the whole of it, or a pipeline's `unet`, `text_encoder`, ….
#[derive(Debug)]
pub struct Component {
    /// Put before its tensors' names: empty, or `unet/`.
    pub prefix: String,
    /// Its directory.
    pub directory: PathBuf,
    /// Its index, if it has one.
    pub index: Option<Index>,
    /// Its shards, as a range of [`Checkpoint::shards`].
    pub shards: Range<usize>,
}

/// What a checkpoint's path was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One `.safetensors` file.
    File,
    /// A directory (or an index in it) of one model.
    Directory,
    /// A directory of component directories.
    Pipeline,
}

/// An open checkpoint: headers read, tensors findable by name.
#[derive(Debug)]
pub struct Checkpoint {
    /// The path it was opened by.
    pub path: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// Its models.
    pub components: Vec<Component>,
    /// All shards of all components.
    pub shards: Vec<Shard>,
    by_name: BTreeMap<String, (usize, usize)>,
}

impl Checkpoint {
    /// Opens whatever `path` is: a file, an index, a directory of one model, or a pipeline.
    ///
    /// # Errors
    /// If there is no checkpoint, a shard or tensor is missing, or a header breaks the format.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(not_found).in_file(path)?;
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            layout: Layout::Directory,
            components: Vec::new(),
            shards: Vec::new(),
            by_name: BTreeMap::new(),
        };
        if metadata.is_dir() {
            match find_model(path)? {
                Some(model) => checkpoint.add(String::new(), path, model, access)?,
                None => checkpoint.add_pipeline(path, access)?,
            }
        } else if path.to_string_lossy().ends_with(INDEX_SUFFIX) {
            // Not the empty path, which cannot be listed.
            let above = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = above.unwrap_or(Path::new(".")).to_path_buf();
            checkpoint.add(String::new(), &directory, Model::Index(path.to_path_buf()), access)?;
        } else {
            checkpoint.layout = Layout::File;
            let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let split = gguf_parts(&name).map(Model::Files);
            let model = split.unwrap_or_else(|| Model::Lone(path.to_path_buf()));
            checkpoint.add(String::new(), &directory, model, access)?;
        }
        Ok(checkpoint)
    }

    /// The tensor of this (component-prefixed) name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let &(shard, tensor) = self.by_name.get(name)?;
        let shard = self.shards.get(shard)?;
        Some(TensorView { spec: shard.header.tensors.get(tensor)?, shard })
    }

    /// All tensors' (component-prefixed) names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The component that owns shard number `shard`.
    pub fn component_of(&self, shard: usize) -> Option<&Component> {
        self.components.iter().find(|component| component.shards.contains(&shard))
    }

    /// The directory whose side files belong to the checkpoint; none for a lone file.
    pub fn directory(&self) -> Option<&Path> {
        match self.layout {
            Layout::File => None,
            Layout::Pipeline => Some(&self.path),
            Layout::Directory => self.components.first().map(|c| c.directory.as_path()),
        }
    }

    /// Fails if any shard has changed since it was opened.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`], with the file.
    pub fn check_unchanged(&self) -> Result<()> {
        for shard in &self.shards {
            if !shard.source.unchanged().in_file(&shard.path)? {
                return Err(ErrorKind::Changed).in_file(&shard.path);
            }
        }
        Ok(())
    }

    fn add_pipeline(&mut self, path: &Path, access: Access) -> Result<()> {
        self.layout = Layout::Pipeline;
        for name in list(path)?.directories {
            let directory = path.join(&name);
            if let Some(model) = find_model(&directory)? {
                self.add(format!("{name}/"), &directory, model, access)?;
            }
        }
        if self.components.is_empty() {
            let reason = "no model.safetensors, no index, no component directories".to_owned();
            return Err(ErrorKind::NoCheckpoint { reason }).in_file(path);
        }
        Ok(())
    }

    fn add(
        &mut self,
        prefix: String,
        directory: &Path,
        model: Model,
        access: Access,
    ) -> Result<()> {
        let index = match &model {
            Model::Index(path) => Some(Index::open(path)?),
            Model::Files(_) | Model::Lone(_) => None,
        };
        let lone = match &model {
            Model::Lone(path) => Some(path.clone()),
            _ => None,
        };
        let files: BTreeSet<String> = match (&index, model) {
            (Some(index), _) => index.weight_map.values().cloned().collect(),
            (None, Model::Files(files)) => files.into_iter().collect(),
            (None, Model::Lone(path)) => {
                // Only for people: the file is opened by its path, whatever its bytes.
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                BTreeSet::from([name])
            }
            (None, Model::Index(_)) => BTreeSet::new(),
        };
        let first = self.shards.len();
        for file in files {
            let path = lone.clone().unwrap_or_else(|| directory.join(&file));
            if !path.exists() {
                return match &index {
                    Some(index) => Err(ErrorKind::MissingShard { shard: file })
                        .in_file(&directory.join(&index.file_name)),
                    None => Err(ErrorKind::NotFound).in_file(&path),
                };
            }
            self.shards.push(Shard::open(&path, format!("{prefix}{file}"), access)?);
        }
        let shards = first..self.shards.len();
        gguf_set::check(self.shards.get(shards.clone()).unwrap_or_default())?;
        self.register(&prefix, shards.clone())?;
        if let Some(index) = &index {
            self.check_index(index, &prefix, directory)?;
        }
        self.components.push(Component {
            prefix,
            directory: directory.to_path_buf(),
            index,
            shards,
        });
        Ok(())
    }

    fn register(&mut self, prefix: &str, shards: Range<usize>) -> Result<()> {
        for shard in shards {
            let Some(opened) = self.shards.get(shard) else { continue };
            for (tensor, spec) in opened.header.tensors.iter().enumerate() {
                let name = format!("{prefix}{}", spec.name);
                if let Some((earlier, _)) = self.by_name.insert(name.clone(), (shard, tensor)) {
                    let first = self.shards.get(earlier).map(|s| s.relative.clone());
                    return Err(Error::from(ErrorKind::TensorTwice {
                        first: first.unwrap_or_default(),
                        second: opened.relative.clone(),
                    })
                    .in_tensor(&name)
                    .in_file(&self.path));
                }
            }
        }
        Ok(())
    }

    fn check_index(&self, index: &Index, prefix: &str, directory: &Path) -> Result<()> {
        for (name, shard) in &index.weight_map {
            let found = self.tensor(&format!("{prefix}{name}"));
            if found.is_none_or(|view| view.shard.relative != format!("{prefix}{shard}")) {
                return Err(Error::from(ErrorKind::MissingTensor { shard: shard.clone() })
                    .in_tensor(name)
                    .in_file(&directory.join(&index.file_name)));
            }
        }
        Ok(())
    }
}
