//! The file of shared directions: `{cluster}/{module}.left`, K × m, and `….right`, K × n.

use std::path::Path;

use rayon::prelude::*;

use super::codes::{self, Coded};
use super::document::{BASES, ModuleSpec, Shared, VERSION, metadata, read};
use super::options::Number;
use crate::adapter::convention::{self, Convention};
use crate::error::{CollectionError, Locate, Result};
use crate::format::hash::Hasher;
use crate::format::header::{encode, lay_out};
use crate::format::{Access, Checkpoint, Dtype, OutputFile, Source, Staging};
use crate::math::Matrix;
use crate::math::linalg::joint::Directions;
use crate::math::linalg::matrix::{dense_svd, product, product_transposed, transposed_product};

/// What a missing singular value is, relative to the first, where a Gram matrix is inverted.
const NEGLIGIBLE: f64 = 1e-12;

/// One side of a module's directions as they are stored: rounded, so no longer quite orthonormal.
#[derive(Debug, Clone)]
pub(super) struct Side {
    /// size × K.
    pub(super) vectors: Matrix,
    /// vectorsᵀ · vectors.
    pub(super) gram: Matrix,
    /// Its (pseudo-)inverse.
    pub(super) inverse: Matrix,
}

/// Gram matrices of a side, and their inverses.
type Grams = (Matrix, Matrix);

/// The shared directions of a collection, on disk.
#[derive(Debug)]
pub(super) struct Bases {
    pub(super) file: Checkpoint,
    pub(super) shared: Shared,
    pub(super) convention: &'static Convention,
    pub(super) number: Number,
    /// Of left and right, by cluster and module.
    grams: Vec<Vec<(Grams, Grams)>>,
}

/// Which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Left,
    Right,
}

fn names(cluster: usize, module: &str, which: Which) -> (String, String) {
    let side = if which == Which::Left { "left" } else { "right" };
    (format!("{cluster}/{module}.{side}"), format!("{cluster}/{module}.{side}_scale"))
}

impl Bases {
    /// Opens the file of directions in a collection's directory.
    ///
    /// # Errors
    /// A directory that is no collection, another version, tensors that are not as the header says.
    pub(super) fn open(store: &Path, access: Access) -> Result<Self> {
        let path = store.join(BASES);
        if !path.is_file() {
            let reason = format!("there is no {BASES}");
            return Err(CollectionError::NoCollection(reason)).in_file(store);
        }
        let file = Checkpoint::open(&path, access)?;
        let shared: Shared = read(&file)?;
        let number = match file.names().next().and_then(|name| file.tensor(name)) {
            Some(_) if file.names().any(|name| name.ends_with("_scale")) => Number::Int8,
            Some(view) => Number::Float(view.spec.dtype),
            None => Number::Float(Dtype::F32),
        };
        let damaged = |what: &str| CollectionError::Damaged(what.to_owned());
        let convention = convention::by_name(&shared.convention);
        let convention = convention.ok_or(damaged("its convention is unknown")).in_file(&path)?;
        let kernel = |spec: &ModuleSpec| match &spec.kind {
            crate::adapter::module::Kind::Conv(kernel) => kernel.iter().product::<usize>(),
            _ => 1,
        };
        let fits = |spec: &ModuleSpec| {
            let kernel = kernel(spec);
            kernel > 0 && spec.inputs.is_multiple_of(kernel)
        };
        if !shared.modules.iter().all(fits) {
            return Err(damaged("a kernel does not divide its inputs")).in_file(&path);
        }
        Ok(Self { file, shared, convention, number, grams: Vec::new() })
    }

    /// Computes what cores are made with.
    ///
    /// # Errors
    /// Reading errors.
    pub(super) fn prepare(mut self) -> Result<Self> {
        let all = (0..self.shared.clusters).map(|cluster| {
            let modules = (0..self.shared.modules.len()).into_par_iter().map(|module| {
                let (left, right) = self.vectors(cluster, module)?;
                Ok((grams(&left), grams(&right)))
            });
            modules.collect::<Result<Vec<_>>>()
        });
        self.grams = all.collect::<Result<_>>()?;
        Ok(self)
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.file.shards.iter().map(|shard| shard.source.length()).sum()
    }

    /// The module of a number.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn module(&self, module: usize) -> Result<&ModuleSpec> {
        let spec = self.shared.modules.get(module);
        Ok(spec.ok_or(CollectionError::Damaged("it lacks a module".to_owned()))?)
    }

    /// The left and right directions of a module, m × K and n × K.
    ///
    /// # Errors
    /// A tensor that is not as the header says; reading errors.
    pub(super) fn vectors(&self, cluster: usize, module: usize) -> Result<(Matrix, Matrix)> {
        let spec = self.module(module)?;
        let count = spec.directions(self.shared.rank);
        let side = |which: Which, size: usize| {
            let (name, scales) = names(cluster, &spec.name, which);
            let values = codes::read(&self.file, (&name, &scales), (count, size));
            Ok::<_, crate::Error>(Matrix::from_vec(size, count, values.in_file(&self.file.path)?))
        };
        Ok((side(Which::Left, spec.outputs)?, side(Which::Right, spec.inputs)?))
    }

    /// Both sides of a module with what cores are made with, of prepared bases.
    ///
    /// # Errors
    /// As [`Bases::vectors`].
    pub(super) fn sides(&self, cluster: usize, module: usize) -> Result<(Side, Side)> {
        let grams = self.grams.get(cluster).and_then(|modules| modules.get(module));
        let damaged = CollectionError::Damaged("it lacks a group of adapters".to_owned());
        let (left_grams, right_grams) = grams.ok_or(damaged)?.clone();
        let (left, right) = self.vectors(cluster, module)?;
        let side = |vectors: Matrix, (gram, inverse): Grams| Side { vectors, gram, inverse };
        Ok((side(left, left_grams), side(right, right_grams)))
    }
}

fn grams(vectors: &Matrix) -> Grams {
    let gram = transposed_product(vectors, vectors);
    let (u, values, mut v) = dense_svd(&gram);
    let first = values.first().copied().unwrap_or(0.0);
    for (at, value) in values.iter().enumerate() {
        let inverse = if *value > first * NEGLIGIBLE { 1.0 / value } else { 0.0 };
        v.column_mut(at).scale_mut(inverse);
    }
    let inverse = product_transposed(&v, &u);
    // What is symmetric but for rounding is made so.
    let inverse = (&inverse + inverse.transpose()) * 0.5;
    (gram, inverse)
}

/// A side of given vectors.
pub(super) fn side(vectors: Matrix) -> Side {
    let (gram, inverse) = grams(&vectors);
    Side { vectors, gram, inverse }
}

impl Side {
    /// The coordinates of some columns (size × r) in the directions, by least squares: K × r.
    pub(super) fn coordinates(&self, columns: &Matrix) -> Matrix {
        product(&self.inverse, &transposed_product(&self.vectors, columns))
    }
}

/// The file in the making: tensors are added in the order of modules and groups.
pub(super) struct Writer {
    file: OutputFile,
    shared: Shared,
    number: Number,
    start: u64,
    at: u64,
    hash: Hasher,
}

impl Writer {
    /// Begins the file in a collection that is being built.
    ///
    /// # Errors
    /// I/O; a header that is too long.
    pub(super) fn new(
        staging: &Staging,
        number: Number,
        (rank, clusters): (usize, usize),
        convention: &Convention,
        modules: &[ModuleSpec],
    ) -> Result<Self> {
        let shared = Shared {
            version: VERSION,
            // As long as the one that will stand here.
            id: Hasher::default().finish(),
            rank,
            clusters,
            convention: convention.name.to_owned(),
            modules: modules.to_vec(),
        };
        let file = staging.create(BASES)?;
        let mut writer = Self { file, shared, number, start: 0, at: 0, hash: Hasher::default() };
        writer.start = writer.header()?.len() as u64;
        Ok(writer)
    }

    fn header(&self) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for spec in &self.shared.modules {
            let count = spec.directions(self.shared.rank);
            for cluster in 0..self.shared.clusters {
                for (which, size) in [(Which::Left, spec.outputs), (Which::Right, spec.inputs)] {
                    let (name, scales) = names(cluster, &spec.name, which);
                    tensors.push((name, self.number.dtype(), vec![count, size]));
                    if self.number == Number::Int8 {
                        tensors.push((scales, Dtype::F32, vec![count]));
                    }
                }
            }
        }
        encode(Some(&metadata(&self.shared)?), &lay_out(tensors))
    }

    /// Adds the directions of the next module, of all groups.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn add<'a>(&mut self, groups: impl Iterator<Item = &'a Directions>) -> Result<()> {
        for directions in groups {
            for vectors in [directions.left(), directions.right()] {
                let mut coded = Coded::default();
                coded.add(self.number, vectors.as_slice(), vectors.nrows())?;
                for bytes in [&coded.bytes, &coded.scales] {
                    self.hash.update(bytes);
                    self.file.write_at(bytes, self.start + self.at)?;
                    self.at += bytes.len() as u64;
                }
            }
        }
        Ok(())
    }

    /// Narrows the file's permissions to those of an input.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub(super) fn no_wider_than<'s>(&self, inputs: impl Iterator<Item = &'s Source>) -> Result<()> {
        self.file.no_wider_than(inputs)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn finish(mut self) -> Result<()> {
        self.shared.id = std::mem::take(&mut self.hash).finish();
        let header = self.header()?;
        self.file.write_at(&header, 0)?;
        self.file.finish()
    }
}
