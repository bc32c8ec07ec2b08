//! The adapters of a collection, opened one at a time: however many there are, only one's files are open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::adapter::convention::{self, Convention, Names};
use crate::adapter::module::Module;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{CollectionError, ErrorKind, Locate, Result};
use crate::math::LowRank;
use crate::ops::combine::{self, align};
use crate::ops::{list, write};

/// An adapter and what it is called in the collection.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

/// All adapters, and the one that the others' names are made those of.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) all: Vec<Source>,
    /// The convention that modules are named in.
    pub(super) convention: &'static Convention,
    open: OpenOptions,
    names: BTreeSet<String>,
    /// What the first adapter's own convention is.
    first: &'static Convention,
}

impl Sources {
    /// The adapters at and below some paths, in the order of paths and names.
    ///
    /// # Errors
    /// If a path cannot be listed, two adapters have one name, or there is none.
    pub(super) fn find(paths: &[PathBuf], open: &OpenOptions) -> Result<Self> {
        let mut all = Vec::new();
        let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in paths {
            for candidate in list::candidates(path)? {
                let name = plain_name(&candidate);
                if seen.insert(name.clone(), candidate.path.clone()).is_some() {
                    return Err(CollectionError::Twice(name)).in_file(&candidate.path);
                }
                all.push(Source { path: candidate.path, name });
            }
        }
        let Some(first) = all.first() else {
            let reason = "there is no adapter in the folders".to_owned();
            return Err(ErrorKind::BadOption(reason).into());
        };
        let mut first = Adapter::open(&first.path, open)?;
        first.sound()?;
        let own = first.convention;
        let convention = match own.names {
            _ if write::is_native(own) => own,
            Names::Dotted => convention::peft(),
            _ => return Err(CollectionError::Convention(own.name)).in_file(&first.path),
        };
        let names = first.modules.iter().map(|module| module.name.clone()).collect();
        Ok(Self { all, convention, open: open.clone(), names, first: own })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn path(&self, at: usize) -> Result<&Path> {
        let source = self.all.get(at).ok_or(ErrorKind::NotFound)?;
        Ok(&source.path)
    }

    /// Opens an adapter, its modules named as the first one's.
    ///
    /// # Errors
    /// What is wrong with it, and an adapter that nothing shows to be of the first one's model.
    pub(super) fn open(&self, at: usize) -> Result<Adapter> {
        let sound = |path: &Path| {
            let mut adapter = Adapter::open(path, &self.open)?;
            adapter.sound()?;
            Ok::<_, crate::Error>(adapter)
        };
        let adapter = sound(self.path(at)?)?;
        let known = |module: &Module| self.names.contains(&module.name);
        if adapter.convention == self.first && adapter.modules.iter().all(known) {
            return Ok(adapter);
        }
        let pair = vec![sound(self.path(0)?)?, adapter];
        let mut pair = align::align(pair, self.convention, None)?;
        align::check_related(&combine::Options::default(), &pair)?;
        pair.pop().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// The update of a module, its scale in it.
///
/// # Errors
/// If reading fails, or the update has no factors.
pub(super) fn delta(adapter: &Adapter, module: &Module) -> Result<LowRank> {
    let mut delta = adapter.factors(module).in_tensor(&module.name).in_file(&adapter.path)?;
    delta.up.scale_mut(module.scale.value);
    Ok(delta)
}

/// Fails if an adapter holds what factors do not say.
///
/// # Errors
/// [`CollectionError::Beside`], and a family whose updates have no factors.
pub(super) fn check_plain(adapter: &Adapter) -> Result<()> {
    let beside = |what: String| Err(CollectionError::Beside { what }).in_file(&adapter.path);
    if let Some(replacement) = adapter.replacements.first() {
        return beside(format!("a whole tensor, {}", replacement.label()));
    }
    if let Some(name) = adapter.stacks.keys().next() {
        return beside(format!("factors of the experts in {name}"));
    }
    for module in &adapter.modules {
        if module.bias.is_some() {
            return beside(format!("a bias of {}", module.name));
        }
        adapter.check_factors(module).in_tensor(&module.name).in_file(&adapter.path)?;
    }
    Ok(())
}

/// What an adapter is called: its path below the folder, of a file without its ending.
fn plain_name(candidate: &list::Candidate) -> String {
    let name = match candidate.name.as_str() {
        // A folder that is named by where one stands.
        "." | ".." | "" => {
            let real = candidate.path.canonicalize().unwrap_or_default();
            real.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        name => name.to_owned(),
    };
    let endings = [".safetensors", ".gguf"];
    let plain = endings.iter().find_map(|ending| name.strip_suffix(ending).map(str::to_owned));
    plain.unwrap_or(name)
}
