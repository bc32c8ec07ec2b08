//! The file of cores: `cores/{adapter}`, all of an adapter's cores in the order of the modules.

use std::path::Path;

use super::bases::Bases;
use super::codes;
use super::cores::{Cores, of_values};
use super::document::{ADAPTERS, Member, Members, VERSION, core_rows, metadata, read};
use super::options::Number;
use super::survey::Surveyed;
use crate::error::{CollectionError, Locate, Result, near};
use crate::format::header::{encode, lay_out, padded};
use crate::format::{Access, Checkpoint, Dtype, OutputFile, Source, TensorSpec};
use crate::math::LowRank;

/// Room for the digits of a number in the header, which is written last.
const DIGITS: usize = 32;

/// The adapters of a collection, on disk.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) file: Checkpoint,
    pub(super) members: Members,
}

fn names(adapter: &str) -> (String, String) {
    (format!("cores/{adapter}"), format!("scales/{adapter}"))
}

/// Rows of each of an adapter's cores, and K.
fn rows<'a>(bases: &'a Bases, ranks: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
    bases.shared.modules.iter().zip(ranks).map(|(spec, rank)| {
        let count = spec.directions(bases.shared.rank);
        (if *rank > 0 { core_rows(*rank, count) } else { 0 }, count)
    })
}

impl Stored {
    /// Opens the file of cores in a collection's directory.
    ///
    /// # Errors
    /// A file that is missing, damaged, of another version, or of other directions.
    pub(super) fn open(store: &Path, bases: &Bases, access: Access) -> Result<Self> {
        let path = store.join(ADAPTERS);
        if !path.is_file() {
            let reason = format!("there is no {ADAPTERS}");
            return Err(CollectionError::NoCollection(reason)).in_file(store);
        }
        let file = Checkpoint::open(&path, access)?;
        let members: Members = read(&file)?;
        let damaged = |what: &str| Err(CollectionError::Damaged(what.to_owned())).in_file(&path);
        if members.bases != bases.shared.id {
            return damaged("its cores are for other directions than those beside them");
        }
        let fits = |member: &Member| {
            let ranks = bases.shared.modules.iter().zip(&member.ranks);
            member.cluster < bases.shared.clusters
                && member.ranks.len() == bases.shared.modules.len()
                && ranks.into_iter().all(|(spec, rank)| *rank <= spec.directions(bases.shared.rank))
        };
        if !members.adapters.iter().all(fits) {
            return damaged("an adapter has cores that fit no directions");
        }
        Ok(Self { file, members })
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.shards.iter().map(|shard| shard.source.length()).sum()
    }

    /// The adapter of a name.
    ///
    /// # Errors
    /// [`CollectionError::NoAdapter`].
    pub(super) fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.adapters.iter().find(|member| member.name == name);
        let error = || {
            let names = self.members.adapters.iter().map(|member| member.name.as_str());
            let near = near(name, names).map(str::to_owned);
            CollectionError::NoAdapter { name: name.to_owned(), near }
        };
        found.ok_or_else(error).in_file(&self.file.path)
    }

    /// The cores of an adapter, by module; none of those that it does not have.
    ///
    /// # Errors
    /// Tensors that are not as the header says; reading errors.
    pub(super) fn cores(&self, bases: &Bases, member: &Member) -> Result<Vec<Option<LowRank>>> {
        let (name, scales) = names(&member.name);
        let damaged = || CollectionError::Damaged(format!("`{name}` is not as its header says"));
        let view = self.file.tensor(&name).ok_or_else(damaged).in_file(&self.file.path)?;
        let (mut scratch, mut other) = (Vec::new(), Vec::new());
        let bytes = view.all(&mut scratch)?;
        let codes: &[u8] = match self.file.tensor(&scales) {
            Some(view) => view.all(&mut other)?,
            None => &[],
        };
        let size = view.spec.dtype.bitsize() / 8;
        let (mut at, mut row) = (0, 0);
        let mut cores = Vec::with_capacity(member.ranks.len());
        for ((rows, count), rank) in rows(bases, &member.ranks).zip(&member.ranks) {
            if *rank == 0 {
                cores.push(None);
                continue;
            }
            let (end, end_row) = (at + rows * count * size, row + rows);
            let own = bytes.get(at..end).ok_or_else(damaged).in_file(&self.file.path)?;
            let own_codes = codes.get(4 * row..4 * end_row).unwrap_or_default();
            let values = codes::values(view.spec.dtype, own, own_codes, count)?;
            if values.len() != rows * count || values.iter().any(|value| !value.is_finite()) {
                return Err(damaged()).in_file(&self.file.path);
            }
            cores.push(Some(of_values(&values, *rank, count)));
            (at, row) = (end, end_row);
        }
        Ok(cores)
    }
}

/// What a new adapter will be in the file, before its error is known.
pub(super) fn planned(name: &str, bases: &Bases, surveyed: &Surveyed) -> Member {
    let ranks = bases.shared.modules.iter().enumerate().map(|(number, spec)| {
        let rank = surveyed.parts.get(&number).map_or(0, |part| part.rank);
        rank.min(spec.directions(bases.shared.rank))
    });
    Member {
        name: name.to_owned(),
        cluster: 0,
        error: 0.0,
        norm: surveyed.energy.sqrt(),
        ranks: ranks.collect(),
        config: surveyed.config.clone(),
    }
}

/// The file in the making: its adapters are known from the start, and are written one after another.
pub(super) struct Writer {
    file: OutputFile,
    members: Members,
    specs: Vec<TensorSpec>,
    start: u64,
    /// Tensors that are written.
    written: usize,
    number: Number,
}

impl Writer {
    /// Begins the file.
    ///
    /// # Errors
    /// A header that is too long.
    pub(super) fn new(file: OutputFile, bases: &Bases, adapters: Vec<Member>) -> Result<Self> {
        let number = bases.number;
        let mut tensors = Vec::new();
        for member in &adapters {
            let (name, scales) = names(&member.name);
            let count: usize = rows(bases, &member.ranks).map(|(rows, count)| rows * count).sum();
            tensors.push((name, number.dtype(), vec![count]));
            if number == Number::Int8 {
                let rows = rows(bases, &member.ranks).map(|(rows, _)| rows).sum();
                tensors.push((scales, Dtype::F32, vec![rows]));
            }
        }
        let members = Members { version: VERSION, bases: bases.shared.id.clone(), adapters };
        let specs = lay_out(tensors);
        let header = encode(Some(&metadata(&members)?), &specs)?;
        let room = header.len() + 2 * DIGITS * members.adapters.len();
        let start = room.next_multiple_of(8) as u64;
        Ok(Self { file, members, specs, start, written: 0, number })
    }

    /// Narrows the file's permissions to those of an input.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub(super) fn no_wider_than<'s>(&self, inputs: impl Iterator<Item = &'s Source>) -> Result<()> {
        self.file.no_wider_than(inputs)
    }

    /// Writes the cores of the next adapter, which is in a group.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn add(&mut self, cluster: usize, cores: &Cores) -> Result<()> {
        let at = if self.number == Number::Int8 { self.written / 2 } else { self.written };
        if let Some(member) = self.members.adapters.get_mut(at) {
            (member.cluster, member.error) = (cluster, cores.error);
        }
        self.put(&cores.coded.bytes)?;
        if self.number == Number::Int8 {
            self.put(&cores.coded.scales)?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let spec = self.specs.get(self.written);
        let fits = spec.filter(|spec| spec.bytes() == bytes.len() as u64);
        let changed = || crate::error::ErrorKind::Changed;
        let start = fits.ok_or_else(changed)?.start;
        self.written += 1;
        self.file.write_at(bytes, self.start + start)
    }

    /// Copies the tensors of all adapters of an older file, which are the first ones of this one.
    ///
    /// # Errors
    /// I/O; tensors that are missing.
    pub(super) fn copy(&mut self, old: &Stored) -> Result<()> {
        while let Some(spec) = self.specs.get(self.written) {
            let Some(view) = old.file.tensor(&spec.name) else { break };
            let mut scratch = Vec::new();
            let bytes = view.all(&mut scratch)?.to_vec();
            self.put(&bytes)?;
        }
        Ok(())
    }

    /// Ends the file; its adapters.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn finish(mut self) -> Result<Vec<Member>> {
        let header = encode(Some(&metadata(&self.members)?), &self.specs)?;
        let header = padded(header, self.start as usize)?;
        self.file.write_at(&header, 0)?;
        self.file.finish()?;
        Ok(self.members.adapters)
    }
}
