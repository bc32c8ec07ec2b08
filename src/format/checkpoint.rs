//! A checkpoint on disk: one file, shards with or without an index, or a diffusers pipeline of
//! several components. Opening reads headers only.

mod computed;
mod held;

pub use computed::ComputedTensors;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::access::{Access, Source};
use super::gguf::{self, is_gguf};
use super::header::{Header, header_length};
use super::index::{INDEX_SUFFIX, Index};
use super::view::TensorView;
use crate::error::{Error, ErrorKind, FileKind, HeaderError, Locate, Result};

/// File endings of pickled weights, which are never opened.
pub const PICKLES: [&str; 4] = ["bin", "pt", "ckpt", "pth"];

const SINGLE_NAMES: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// One safetensors file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the checkpoint, as an output repeats it (`unet/model.safetensors`).
    pub relative: String,
    /// Its header.
    pub header: Header,
    /// Its bytes.
    pub source: Source,
    /// Tensors whose bytes are computed when they are asked for, by name.
    pub computed: ComputedTensors,
}

impl Shard {
    /// Opens one file and checks its header.
    ///
    /// # Errors
    /// If the file cannot be read or its header breaks a rule of the format.
    pub fn open(path: &Path, relative: String, access: Access) -> Result<Self> {
        refuse_pickle(path)?;
        let source = Source::open(path, access).map_err(not_found).in_file(path)?;
        let header = match is_gguf(&source) {
            true => gguf::header(&source),
            false => read_header(&source).map_err(|error| recognised(error, &source)),
        };
        Ok(Self::new(path, relative, header.in_file(path)?, source))
    }

    /// A file whose header was read.
    pub fn new(path: &Path, relative: String, header: Header, source: Source) -> Self {
        let computed = BTreeMap::new();
        Self { path: path.to_path_buf(), relative, header, source, computed }
    }
}

/// Of a file that is no safetensors file but known by how it begins, what it is.
fn recognised(error: Error, source: &Source) -> Error {
    let header = matches!(
        error.kind(),
        ErrorKind::Header(
            HeaderError::TruncatedHeader { .. }
                | HeaderError::HeaderTooLarge { .. }
                | HeaderError::BadHeader { .. }
        )
    );
    let mut scratch = Vec::new();
    let start =
        source.bytes(0..source.length().min(FileKind::START), &mut scratch).unwrap_or_default();
    match FileKind::of(start).filter(|_| header) {
        Some(kind) => HeaderError::OtherFormat { kind }.into(),
        None => error,
    }
}

fn read_header(source: &Source) -> Result<Header> {
    let mut scratch = Vec::new();
    let length = source.length();
    let mut first = [0; 8];
    if length < 8 {
        return Err(HeaderError::TruncatedHeader { needed: 8, found: length }.into());
    }
    first.copy_from_slice(source.bytes(0..8, &mut scratch)?);
    let end = header_length(first, length)?;
    Header::parse(source.bytes(8..end, &mut scratch)?, length)
}

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

/// The files of one model.
enum Model {
    Index(PathBuf),
    /// Names below the model's directory.
    Files(Vec<String>),
    /// The file that was named.
    Lone(PathBuf),
}

struct Listing {
    files: Vec<String>,
    directories: Vec<String>,
}

fn list(directory: &Path) -> Result<Listing> {
    let mut listing = Listing { files: Vec::new(), directories: Vec::new() };
    for entry in std::fs::read_dir(directory).in_file(directory)? {
        let entry = entry.in_file(directory)?;
        // A name that is no UTF-8 could not be repeated in an output or an index.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            listing.directories.push(name);
        } else {
            listing.files.push(name);
        }
    }
    listing.files.sort();
    listing.directories.sort();
    Ok(listing)
}

/// Finds the one model of a directory, as transformers and diffusers would; `None` if there is none
/// but there may be components below.
fn find_model(directory: &Path) -> Result<Option<Model>> {
    let Listing { files, directories } = list(directory)?;
    if let Some(single) = SINGLE_NAMES.iter().find(|name| files.iter().any(|file| file == *name)) {
        return Ok(Some(Model::Files(vec![(*single).to_owned()])));
    }
    let indexes: Vec<_> = files.iter().filter(|file| file.ends_with(INDEX_SUFFIX)).collect();
    match indexes.as_slice() {
        [] => {}
        [index] => return Ok(Some(Model::Index(directory.join(index)))),
        several => return Err(several_models(directory, several)),
    }
    let weights: Vec<_> = files.iter().filter(|file| file.ends_with(".safetensors")).collect();
    if let Some(shards) = numbered_shards(directory, &weights)? {
        return Ok(Some(Model::Files(shards)));
    }
    let has_components = directories.iter().any(|name| {
        list(&directory.join(name)).is_ok_and(|below| {
            below.files.iter().any(|f| f.ends_with(".safetensors") || f.ends_with(INDEX_SUFFIX))
        })
    });
    if has_components {
        return Ok(None);
    }
    match weights.as_slice() {
        [] => match files.iter().find(|file| is_pickle(Path::new(file))) {
            Some(pickle) => Err(ErrorKind::Pickle).in_file(&directory.join(pickle)),
            None => Ok(None),
        },
        [only] => Ok(Some(Model::Files(vec![(*only).clone()]))),
        several => Err(several_models(directory, several)),
    }
}

fn several_models(directory: &Path, names: &[&String]) -> Error {
    let names: Vec<_> = names.iter().take(4).map(|name| name.as_str()).collect();
    let reason =
        format!("several unrelated files ({}, …); name the one you mean", names.join(", "));
    Error::from(ErrorKind::NoCheckpoint { reason }).in_file(directory)
}

/// `NAME-00001-of-00003.safetensors` and its siblings, all of them or an error.
fn numbered_shards(directory: &Path, files: &[&String]) -> Result<Option<Vec<String>>> {
    let numbered: Vec<_> =
        files.iter().filter_map(|file| Some((shard_number(file)?, *file))).collect();
    let Some(((stem, _, total), _)) = numbered.first() else { return Ok(None) };
    if numbered.iter().any(|((other, _, count), _)| other != stem || count != total) {
        return Err(several_models(directory, files));
    }
    let present: BTreeSet<usize> = numbered.iter().map(|((_, number, _), _)| *number).collect();
    if let Some(missing) = (1..=*total).find(|number| !present.contains(number)) {
        let shard = format!("{stem}-{missing:05}-of-{total:05}.safetensors");
        let reason = format!("shard `{shard}` is missing");
        return Err(ErrorKind::NoCheckpoint { reason }).in_file(directory);
    }
    Ok(Some(numbered.into_iter().map(|(_, file)| file.clone()).collect()))
}

/// All files of a split GGUF model, from the name of any.
fn gguf_parts(file: &str) -> Option<Vec<String>> {
    let (stem, _, total) = numbered(file.strip_suffix(".gguf")?)?;
    Some((1..=total).map(|number| format!("{stem}-{number:05}-of-{total:05}.gguf")).collect())
}

/// (stem, number, total) of a numbered shard's file name.
fn shard_number(file: &str) -> Option<(&str, usize, usize)> {
    numbered(file.strip_suffix(".safetensors")?)
}

fn numbered(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, total) = name.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let total: usize = total.parse().ok()?;
    // A claim of a million shards is a mistake, and would only be walked to say so.
    (1..=1_000_000).contains(&total).then_some(())?;
    Some((stem, number.parse().ok()?, total))
}

/// Whether the file's name ends as pickled weights do.
pub fn is_pickle(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| PICKLES.iter().any(|pickle| end.eq_ignore_ascii_case(pickle)))
}

fn refuse_pickle(path: &Path) -> Result<()> {
    if is_pickle(path) && path.exists() {
        return Err(ErrorKind::Pickle).in_file(path);
    }
    Ok(())
}

/// Of a file whose length fitted its header, an early end means that it was cut since.
pub(crate) fn shrunk(error: std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ErrorKind::Changed,
        _ => ErrorKind::Io(error),
    }
}

pub(crate) fn not_found(error: std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Io(error),
    }
}
