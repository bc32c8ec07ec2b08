//! What can go wrong with a collection of adapters that share their directions.

/// See [`ErrorKind::Collection`](super::ErrorKind::Collection).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// Something else.
    #[error("it is no collection: {0}")]
    NoCollection(String),
    /// A form that this version does not know.
    #[error("it is a collection of version {found}; this lora-tool reads version {known}")]
    Version {
        /// What the file says.
        found: String,
        /// What is read.
        known: u32,
    },
    /// Files that do not belong together, or tensors that are not as the header says.
    #[error("the collection is damaged: {0}")]
    Damaged(String),
    /// What no shared directions hold.
    #[error("it holds {what}, which a collection cannot")]
    Beside {
        /// What it is.
        what: String,
    },
    /// A name that no adapter has.
    #[error("the collection has no adapter `{name}`{}", near.as_ref().map_or(String::new(), |near| format!("; is it `{near}`?")))]
    NoAdapter {
        /// The name.
        name: String,
        /// One that is spelled nearly so.
        near: Option<String>,
    },
    /// A name that two adapters have.
    #[error("two adapters are called `{0}`")]
    Twice(String),
    /// A module that the collection's adapters do not have.
    #[error("the collection has no directions for this module")]
    NewModule,
    /// Modules that no name of a path says.
    #[error("a collection is not made in the {0} convention")]
    Convention(&'static str),
}

impl CollectionError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NoCollection(_) => "give the directory that `collect build -o STORE` wrote",
            Self::Version { .. } => "read it with the lora-tool that wrote it, or build it anew",
            Self::Damaged(_) => "build it anew",
            Self::Beside { .. } => {
                "serve it as it is; `convert --as lora` makes plain factors of other families"
            }
            Self::NoAdapter { .. } => "`collect info STORE` lists them",
            Self::Twice(_) => "adapters are called as their paths below DIR; rename one of the two",
            Self::NewModule => {
                "build the collection anew with this adapter among the others, which finds directions for it"
            }
            Self::Convention(_) => {
                "convert the adapters first: `convert --to peft` or `--to kohya`"
            }
        }
    }
}
