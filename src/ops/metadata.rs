//! metadata: read or edit a file's header; the tensors' bytes are copied as they are.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Progress, check_output};
use crate::adapter::hashes::{Hashes, LEGACY_HASH, MODEL_HASH, file_order};
use crate::adapter::training::is_training;
use crate::error::{ErrorKind, Locate, Result, near};
use crate::format::checkpoint::Shard;
use crate::format::{Access, Metadata, Staging, header};

/// Where an edited file goes.
#[derive(Debug, Clone, Default)]
pub enum Destination {
    /// Nowhere: the header is only read.
    #[default]
    Nowhere,
    /// To a new file.
    File(PathBuf),
    /// In the place of the input, in one step.
    InPlace,
}

/// What to read or edit.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file.
    pub file: PathBuf,
    /// Entries to set.
    pub set: Vec<(String, String)>,
    /// Entries to remove.
    pub remove: Vec<String>,
    /// Remove what tells of the training, but not of the network.
    pub strip_training: bool,
    /// Where the result goes.
    pub destination: Destination,
    /// Replace an existing output.
    pub force: bool,
    /// Only say what an edit would change; it needs no place to go then.
    pub dry_run: bool,
    /// How the file is read.
    pub access: Access,
}

/// One entry that an edit changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// Its value before.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
}

/// What the header says, and what was changed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Nothing was written: the rest is what would be.
    pub dry_run: bool,
    /// Where the edited file is.
    pub output: Option<PathBuf>,
    /// All entries, after the edit.
    pub metadata: Metadata,
    /// What the edit changes.
    pub changes: Vec<Change>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// An edit with its file open.
#[derive(Debug)]
pub struct Edit {
    /// What will be, or is.
    pub report: Report,
    shard: Shard,
    destination: Destination,
    force: bool,
}

/// Reads the header and decides what the edit changes. Hashes the tensors where kohya's hashes stand in
/// the header, since they are of the training metadata too.
///
/// # Errors
/// If the file is no safetensors file, a key to remove is not there, an edit has nowhere to go, or the
/// output cannot be started.
pub fn plan(options: &Options) -> Result<Edit> {
    if options.file.is_dir() {
        let reason = "this is a directory; name the .safetensors file in it".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&options.file);
    }
    let edits = options.strip_training || !options.set.is_empty() || !options.remove.is_empty();
    check_destination(options, edits)?;
    let name = options.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shard = Shard::open(&options.file, name, options.access)?;
    let before = shard.header.metadata.clone().unwrap_or_default();
    let mut after = edit(&before, options).in_file(&options.file)?;
    let mut warnings = Vec::new();
    if edits && (after.contains_key(MODEL_HASH) || after.contains_key(LEGACY_HASH)) {
        let hashes = hash(&shard, &after)?;
        if before.get(MODEL_HASH).is_some_and(|stored| *stored != hashes.model) {
            warnings.push(format!("`{MODEL_HASH}` was not that of these tensors; it is now"));
        }
        hashes.insert(&mut after);
    }
    let output = match &options.destination {
        Destination::Nowhere => None,
        Destination::File(output) => Some(output.clone()),
        Destination::InPlace => Some(options.file.clone()),
    };
    let changes = changes(&before, &after);
    let file = options.file.clone();
    let dry_run = options.dry_run && edits;
    let report = Report { file, dry_run, output, metadata: after, changes, warnings };
    Ok(Edit { report, shard, destination: options.destination.clone(), force: options.force })
}

fn check_destination(options: &Options, edits: bool) -> Result<()> {
    match &options.destination {
        Destination::Nowhere if edits && !options.dry_run => {
            let reason = "an edit needs a place to go: -o OUT, or --in-place".to_owned();
            Err(ErrorKind::BadOption(reason)).in_file(&options.file)
        }
        Destination::Nowhere => Ok(()),
        Destination::File(output) => check_output(output, [options.file.as_path()], options.force),
        Destination::InPlace if options.file.is_symlink() => {
            let reason = "this is a link; name the file it leads to, or write to another with -o";
            Err(ErrorKind::BadOption(reason.to_owned())).in_file(&options.file)
        }
        Destination::InPlace => Ok(()),
    }
}

/// What to say of an entry that is not in the header.
fn no_entry(key: &str, metadata: &Metadata) -> String {
    let names: Vec<&str> = metadata.keys().map(String::as_str).collect();
    match (near(key, names.iter().copied()), names.as_slice()) {
        (_, []) => format!("no entry `{key}`: the header has none at all"),
        (Some(near), _) => format!("no entry `{key}`; did you mean `{near}`?"),
        (None, names) => format!("no entry `{key}`; there are {}", names.join(", ")),
    }
}

fn edit(before: &Metadata, options: &Options) -> Result<Metadata> {
    let mut after = before.clone();
    if options.strip_training {
        after.retain(|key, _| !is_training(key));
    }
    for key in &options.remove {
        if !before.contains_key(key) {
            return Err(ErrorKind::BadOption(no_entry(key, before)).into());
        }
        after.shift_remove(key);
    }
    for (key, value) in &options.set {
        after.insert(key.clone(), value.clone());
    }
    Ok(after)
}

fn hash(shard: &Shard, metadata: &Metadata) -> Result<Hashes> {
    let mut specs: Vec<_> = shard.header.tensors.iter().collect();
    specs.sort_by(|a, b| file_order((&a.name, a.dtype), (&b.name, b.dtype)));
    let tensors = specs.iter().map(|spec| (spec.name.clone(), spec.dtype, spec.shape.clone()));
    Hashes::of(tensors, metadata, |take| {
        const PIECE: u64 = 1 << 22;
        let mut scratch = Vec::new();
        for spec in &specs {
            let end = shard.header.data_start + spec.end;
            let mut start = shard.header.data_start + spec.start;
            while start < end {
                let piece = start..end.min(start + PIECE);
                start = piece.end;
                take(shard.source.bytes(piece, &mut scratch).in_file(&shard.path)?);
            }
        }
        Ok(())
    })
}

fn changes(before: &Metadata, after: &Metadata) -> Vec<Change> {
    let change = |key: &String| Change {
        key: key.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let new = after.keys().filter(|key| before.get(*key) != after.get(*key));
    gone.chain(new).map(change).collect()
}

impl Edit {
    /// Writes the file with its new header; where nothing is to be written, only reports.
    ///
    /// # Errors
    /// I/O, and a header longer than the format allows; nothing is left at the output's path then.
    pub fn run(self, progress: &dyn Progress) -> Result<Report> {
        let (output, force): (&Path, bool) = match &self.destination {
            Destination::Nowhere => return Ok(self.report),
            Destination::File(output) => (output, self.force),
            Destination::InPlace => (&self.report.file, true),
        };
        let shard = &self.shard;
        let metadata = Some(&self.report.metadata).filter(|metadata| !metadata.is_empty());
        let head = header::encode(metadata, &shard.header.tensors)?;
        let data = shard.source.length() - shard.header.data_start;
        progress.begin(data);
        let staging = Staging::file(output, force)?;
        let mut file = staging.create("")?;
        file.write_at(&head, 0)?;
        file.copy_from(&shard.source, shard.header.data_start, head.len() as u64, data)
            .in_file(&shard.path)?;
        if let Destination::InPlace = self.destination {
            let permissions = shard.source.file().metadata().in_file(&shard.path)?.permissions();
            std::fs::set_permissions(staging.place(), permissions).in_file(&shard.path)?;
        } else {
            file.no_wider_than(std::iter::once(&shard.source))?;
        }
        file.finish()?;
        progress.advance(data);
        if !shard.source.unchanged().in_file(&shard.path)? {
            return Err(ErrorKind::Changed).in_file(&shard.path);
        }
        staging.commit()?;
        Ok(self.report)
    }
}
