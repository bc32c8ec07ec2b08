//! Outputs that several processes build, on one machine or on many that share a file system: every file is made in a
//! temporary and renamed into place whole, so that nobody has to wait for anybody. Of an output in a store they wait in the
//! store, in a [`Depot`] beside it, and on the local disk only until they are sent.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::access::{Access, Source, read_bounded, read_small};
use super::folder::files_below;
use super::hash;
use super::kept::{beside, remove_any, retain};
use super::live::{Live, is_committed, still};
use super::output_file::OutputFile;
use super::remote::{Depot, sink_of};
use super::staging::{builder, commit_directory, parent_of, sync_directories, sync_directory};
use crate::error::{JobError, Locate, Result};

/// No file that is read whole is larger: the factors of one tensor.
const LARGEST: u64 = 4 << 30;

/// The directory beside a target in which its files are built: `out/` is what will be renamed, beside it lie notes.
#[derive(Debug)]
pub struct SharedStaging {
    target: PathBuf,
    root: PathBuf,
    depot: Option<Arc<dyn Depot>>,
}

/// A file of it that is not whole yet.
#[derive(Debug)]
pub struct Pending {
    temporary: NamedTempFile,
    place: PathBuf,
    /// Where it goes from its place, under which name.
    to: Option<(Arc<dyn Depot>, String)>,
    // Dropped after the temporary, which removes it.
    live: Live,
}

/// The directory of an output that several processes build.
pub fn shared_root(target: &Path) -> PathBuf {
    target.with_file_name(beside(target, ".work"))
}

impl SharedStaging {
    const KEY: &str = "plan";

    /// Where an output is built, or would be.
    pub fn at(target: &Path) -> Self {
        let depot = sink_of(target).map(|sink| sink.depot());
        Self { target: target.to_path_buf(), root: shared_root(target), depot }
    }

    /// Takes part in building an output, which need not have begun. `key` says what is built.
    ///
    /// # Errors
    /// If the target's parent cannot be written, or something else is built there.
    pub fn join(target: &Path, key: &str) -> Result<Self> {
        let shared = Self::at(target);
        let out = shared.root.join("out");
        {
            let _still = still();
            fs::create_dir_all(&out).in_file(&out)?;
        }
        if shared.recall(Self::KEY).is_none() {
            // Whoever is first says what is built, and the others agree.
            match &shared.depot {
                Some(depot) => depot.claim(Self::KEY, key.as_bytes())?,
                None => shared.note(Self::KEY, key.as_bytes())?,
            }
        }
        shared.check(key)?;
        Ok(shared)
    }

    /// An output that others have built; `committed` says whether it is in place, where nothing waits.
    ///
    /// # Errors
    /// If nobody has begun, or something else is built there.
    pub fn of_others(target: &Path, key: &str, committed: impl Fn() -> bool) -> Result<Self> {
        let shared = Self::at(target);
        if !shared.is_begun()? {
            return Err(JobError::Nothing { committed: committed() }).in_file(target);
        }
        shared.check(key)?;
        fs::create_dir_all(&shared.root).in_file(&shared.root)?;
        Ok(shared)
    }

    /// Whether anybody has begun to build it.
    ///
    /// # Errors
    /// What the store says, which may be there and not answer.
    pub fn is_begun(&self) -> Result<bool> {
        match &self.depot {
            Some(depot) => Ok(depot.get(Self::KEY)?.is_some()),
            None => Ok(self.root.is_dir()),
        }
    }

    fn check(&self, key: &str) -> Result<()> {
        match self.recall(Self::KEY).is_some_and(|found| found == key.as_bytes()) {
            true => Ok(()),
            false => Err(JobError::OtherJob).in_file(&self.root),
        }
    }

    /// What is built.
    pub fn key(&self) -> String {
        String::from_utf8_lossy(&self.recall(Self::KEY).unwrap_or_default()).into_owned()
    }

    /// Where it is built until it is put in place, as a user would write it.
    pub fn place(&self) -> PathBuf {
        self.depot.as_ref().map_or_else(|| self.root.clone(), |depot| depot.location().into())
    }

    /// Where a verb may write a file or a directory of it, which [`SharedStaging::take`] then takes.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join("out").join(relative)
    }

    /// What tells a file of it from all others: its SHA-256, or what the store knows it by. `None` if it is not there.
    pub fn fingerprint(&self, relative: &str) -> Option<String> {
        match &self.depot {
            Some(depot) => depot.state(&format!("out/{relative}")).ok().flatten(),
            None => fingerprint(&self.path(relative)),
        }
    }

    /// The bytes of a small file of it.
    pub fn read(&self, relative: &str) -> Option<Vec<u8>> {
        match &self.depot {
            Some(depot) => depot.get(&format!("out/{relative}")).ok().flatten(),
            None => read_bounded(&self.path(relative), LARGEST).ok(),
        }
    }

    /// Whether a file or a directory of it is there.
    ///
    /// # Errors
    /// What the store says.
    pub fn holds(&self, relative: &str) -> Result<bool> {
        match &self.depot {
            Some(depot) => {
                let name = format!("out/{relative}");
                Ok(depot.state(&name)?.is_some() || !depot.names(&name)?.is_empty())
            }
            None => Ok(self.path(relative).symlink_metadata().is_ok()),
        }
    }

    /// The files at or below a path that a verb has written, as parts of the output.
    ///
    /// # Errors
    /// If one cannot be read, or sent.
    pub fn take(&self, relative: &str) -> Result<Vec<String>> {
        let path = self.path(relative);
        let mut files = vec![relative.to_owned()];
        if path.is_dir() {
            let below = files_below(&path)?.into_iter();
            files = below.map(|file| format!("{relative}/{}", file.relative)).collect();
        }
        if let Some(depot) = &self.depot {
            // What an earlier try made is not a part of this one.
            depot.remove(&format!("out/{relative}"))?;
            for file in &files {
                depot.send(&format!("out/{file}"), &self.path(file))?;
            }
            let _still = still();
            remove_any(&path).in_file(&path)?;
        }
        Ok(files)
    }

    /// Begins a file of the output.
    ///
    /// # Errors
    /// Whatever the operating system says of creating it.
    pub fn create(&self, relative: &str) -> Result<(OutputFile, Pending)> {
        let pending = self.begin(self.path(relative))?;
        let file = pending.temporary.as_file().try_clone().in_file(&pending.place)?;
        Ok((OutputFile::new(file, pending.place.clone()), pending))
    }

    /// Writes a small file of the output.
    ///
    /// # Errors
    /// Whatever the operating system says of writing it.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        self.put(&self.path(relative), |file| file.write_all(bytes))
    }

    /// Copies a regular file into the output.
    ///
    /// # Errors
    /// If `source` is no regular file; whatever the operating system says of reading and writing.
    pub fn copy(&self, source: &Path, relative: &str) -> Result<()> {
        let from = Source::open(source, Access::Read).in_file(source)?;
        self.put(&self.path(relative), |file| {
            io::copy(&mut from.file().take(from.length()), file).map(|_| ())
        })
    }

    /// Keeps a note beside the output.
    ///
    /// # Errors
    /// Whatever the operating system says of writing it.
    pub fn note(&self, name: &str, text: &[u8]) -> Result<()> {
        self.put(&self.root.join(name), |file| file.write_all(text))
    }

    /// A note that somebody kept.
    pub fn recall(&self, name: &str) -> Option<Vec<u8>> {
        match &self.depot {
            Some(depot) => depot.get(name).ok().flatten(),
            None => read_small(&self.root.join(name)).ok(),
        }
    }

    /// Removes what lies in the output and is none of these files.
    ///
    /// # Errors
    /// Whatever the operating system says of listing and removing.
    pub fn retain(&self, files: &BTreeSet<&str>) -> Result<()> {
        if let Some(depot) = &self.depot {
            let names = depot.names("out")?.into_iter();
            let mut others = names.filter(|name| !files.contains(name.as_str()));
            return others.try_for_each(|name| depot.remove(&format!("out/{name}")));
        }
        let (_still, out) = (still(), self.root.join("out"));
        retain(&out, "", files).in_file(&out)
    }

    /// Puts the output at its target, in one step.
    ///
    /// # Errors
    /// If the target has appeared meanwhile (without `force`), or the rename fails.
    pub fn commit(self, force: bool) -> Result<()> {
        self.commit_as("", force)
    }

    /// Puts a file or directory of the output, and nothing else of it, at the target, in one step.
    ///
    /// # Errors
    /// As [`SharedStaging::commit`].
    pub fn commit_as(self, name: &str, force: bool) -> Result<()> {
        let Self { target, root, depot } = self;
        if let Some(depot) = depot {
            depot.show(&Path::new("out").join(name).to_string_lossy(), force)?;
            return depot.remove("");
        }
        let out = root.join("out");
        sync_directories(&out).in_file(&target)?;
        let out = if name.is_empty() { out } else { out.join(name) };
        let still = still();
        commit_directory(&out, &target, force)?;
        fs::remove_dir_all(&root).in_file(&root)?;
        drop(still);
        is_committed(&target);
        sync_directory(parent_of(&target)).in_file(&target)
    }

    /// Removes what was built and noted, for an output that was put in place from there.
    ///
    /// # Errors
    /// Whatever the operating system says of removing.
    pub fn remove(self) -> Result<()> {
        if let Some(depot) = &self.depot {
            return depot.remove("");
        }
        let _still = still();
        fs::remove_dir_all(&self.root).in_file(&self.root)
    }

    fn put(&self, place: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<()> {
        let mut pending = self.begin(place.to_path_buf())?;
        let file = pending.temporary.as_file_mut();
        write(file).and_then(|()| file.sync_all()).in_file(place)?;
        pending.put()
    }

    fn begin(&self, place: PathBuf) -> Result<Pending> {
        let mut still = still();
        let temporary = builder("part-".as_ref(), 0o666).tempfile_in(&self.root);
        let temporary = temporary.in_file(&place)?;
        let live = Live::new(temporary.path(), &mut still);
        let name =
            || place.strip_prefix(&self.root).unwrap_or(&place).to_string_lossy().into_owned();
        let to = self.depot.as_ref().map(|depot| (Arc::clone(depot), name()));
        Ok(Pending { temporary, place, to, live })
    }
}

/// The SHA-256 of a regular file; what is no file has none, and is not as anybody made it.
pub fn fingerprint(path: &Path) -> Option<String> {
    let metadata = path.symlink_metadata().ok()?;
    // A link would go out as one.
    let hash = Some(path).filter(|_| metadata.is_file()).and_then(|path| hash::of_file(path).ok());
    Some(hash.unwrap_or_default())
}

impl Pending {
    /// Puts a file that is whole and on the disk in its place, over one that is there.
    ///
    /// # Errors
    /// Whatever the operating system says of renaming it.
    pub fn put(self) -> Result<()> {
        let Self { temporary, place, to, live } = self;
        if let Some((depot, name)) = to {
            // The temporary goes when this ends.
            return depot.send(&name, temporary.path());
        }
        let mut still = still();
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).in_file(&place)?;
        }
        temporary.persist(&place).map_err(|error| error.error).in_file(&place)?;
        live.end(&mut still);
        drop(still);
        sync_directory(parent_of(&place)).in_file(&place)
    }
}
