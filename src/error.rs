//! The library's one error: what went wrong, in which file and tensor, and what to do about it.
//!
//! A kind knows the facts (expected, found); the file and the tensor are attached once, by the layer
//! that knows them. [`Error::hint`] says what the user can do, beside the kind it belongs to.

mod cloud;
mod collection;
mod command;
mod convert;
mod count;
mod experts;
mod family;
mod fetch;
mod harmless;
mod header;
mod hint;
mod job;
mod kind;
mod location;
mod look;
mod model;
mod near;
mod orientation;
mod pair;
mod quant;
mod receipt;
mod recipe;
mod rule;
mod tuned;
mod unmatched;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use cloud::CloudError;
pub use collection::CollectionError;
pub(crate) use command::quoted;
pub use convert::ConvertError;
#[doc(hidden)]
pub use count::{counted, human_bytes};
pub use experts::ExpertsError;
pub use family::FamilyError;
pub use fetch::FetchError;
pub use harmless::{clipped, harmless, one_line, short};
pub use header::HeaderError;
pub use job::JobError;
pub use kind::ErrorKind;
pub use location::LocationError;
pub use look::FileKind;
pub use model::ModelError;
#[doc(hidden)]
pub use near::near;
pub use orientation::OrientationError;
pub use pair::PairError;
pub use quant::QuantError;
pub use receipt::ReceiptError;
pub use recipe::{Place, RecipeError, RecipeProblem};
pub use rule::RuleError;
pub use tuned::TunedError;
pub use unmatched::UnmatchedName;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error with its place: the file and the tensor (or module) it was found in, where known.
#[derive(Debug)]
pub struct Error {
    file: Option<PathBuf>,
    tensor: Option<String>,
    kind: Box<ErrorKind>,
}

impl Error {
    /// Names the file, unless an inner layer already did.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.file.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// Names the tensor or module, unless an inner layer already did.
    #[must_use]
    pub fn in_tensor(mut self, name: &str) -> Self {
        self.tensor.get_or_insert_with(|| name.to_owned());
        self
    }

    /// The file the error is about.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The tensor or module the error is about.
    pub fn tensor(&self) -> Option<&str> {
        self.tensor.as_deref()
    }

    /// What happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let seen = self.file.as_deref().and_then(|file| look::hint(&self.kind, file));
        seen.or_else(|| self.kind.hint())
    }
}

/// Errors of one area are kinds of [`Error`], without a place yet.
macro_rules! areas {
    ($($area:ident),+ $(,)?) => {
        $(impl From<$area> for Error {
            fn from(error: $area) -> Self {
                ErrorKind::from(error).into()
            }
        })+
    };
}

areas! {
    CollectionError,
    ConvertError,
    ExpertsError,
    FamilyError,
    HeaderError,
    LocationError,
    ModelError,
    OrientationError,
    PairError,
    QuantError,
    JobError,
    ReceiptError,
    RecipeError,
    RuleError,
    TunedError,
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { file: None, tensor: None, kind: Box::new(kind) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", one_line(&file.display().to_string()))?;
            if let ErrorKind::Recipe(error) = &*self.kind {
                write!(f, ":{}", error.place)?;
            }
            write!(f, ": ")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, "`{}`: ", one_line(&clipped(tensor)))?;
        }
        f.write_str(&short(&self.kind.to_string()))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.kind {
            ErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Attaches a place to the error of a `Result`.
pub trait Locate<T> {
    /// See [`Error::in_file`].
    ///
    /// # Errors
    /// The error it was called on, with the file named.
    fn in_file(self, path: &Path) -> Result<T>;
    /// See [`Error::in_tensor`].
    ///
    /// # Errors
    /// The error it was called on, with the tensor named.
    fn in_tensor(self, name: &str) -> Result<T>;
}

impl<T, E: Into<Error>> Locate<T> for std::result::Result<T, E> {
    fn in_file(self, path: &Path) -> Result<T> {
        self.map_err(|error| error.into().in_file(path))
    }
    fn in_tensor(self, name: &str) -> Result<T> {
        self.map_err(|error| error.into().in_tensor(name))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        ErrorKind::Io(error).into()
    }
}
