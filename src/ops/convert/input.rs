//! The opening of every conversion: the adapter, what is known of its base, and the program that shall load it.

use std::path::{Path, PathBuf};

use crate::adapter::convention::{self, Convention};
use crate::adapter::convert::{BaseFacts, complete};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Result};
use crate::ops::check::program::{Program, by_name};
use crate::ops::shared::base::check_reference;
use crate::ops::{check_output, files_of};

/// What is asked of any conversion.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Request<'a> {
    /// The adapter.
    pub(in crate::ops) adapter: &'a Path,
    /// The convention's name; empty for the program's.
    pub(in crate::ops) to: &'a str,
    /// The program that shall load the result, by name.
    pub(in crate::ops) program: Option<&'a str>,
    /// A base to take names and heads from.
    pub(in crate::ops) reference: Option<&'a Path>,
    /// Where the result goes.
    pub(in crate::ops) output: &'a Path,
    /// How the adapter is opened.
    pub(in crate::ops) open: &'a OpenOptions,
    /// Replace an existing output.
    pub(in crate::ops) force: bool,
}

/// What a conversion starts from.
pub(in crate::ops) struct Input {
    /// The program that shall load the result.
    pub(in crate::ops) program: Option<&'static Program>,
    /// The convention that is asked for.
    pub(in crate::ops) convention: Option<&'static Convention>,
    /// What is known of the base.
    pub(in crate::ops) base: BaseFacts,
    /// The adapter.
    pub(in crate::ops) adapter: Adapter,
}

impl Request<'_> {
    /// Opens the adapter with what the reference says of it.
    ///
    /// # Errors
    /// Names that nothing has, an output that is there, what cannot be opened.
    pub(in crate::ops) fn open(self) -> Result<Input> {
        let program = self.program.map(by_name).transpose()?;
        let convention = named(self.to)?;
        check_output(self.output, [self.adapter], self.force)?;
        check_reference(self.reference, self.open.access)?;
        let base = BaseFacts::of(self.reference, self.open.access)?;
        let open = OpenOptions { heads: base.heads, experts: base.experts, ..self.open.clone() };
        let adapter = Adapter::open(self.adapter, &open)?;
        Ok(Input { program, convention, base, adapter })
    }

    /// Fails if the adapter is not whole and finite, or the output one of its files; its config is completed by the
    /// reference.
    ///
    /// # Errors
    /// What is wrong with the adapter.
    pub(in crate::ops) fn check(self, adapter: &mut Adapter) -> Result<()> {
        adapter.sound()?;
        adapter.check_finite()?;
        if let Some(reference) = self.reference {
            complete(adapter, reference, self.open.access)?;
        }
        check_output(self.output, files_of(adapter).iter().map(PathBuf::as_path), self.force)
    }
}

/// The convention of a name; none of an empty one.
fn named(name: &str) -> Result<Option<&'static Convention>> {
    let known = convention::by_name(name);
    if name.is_empty() || known.is_some() {
        return Ok(known);
    }
    let names = convention::names(true);
    Err(ErrorKind::BadOption(format!("convention `{name}` is unknown; there are {names}")).into())
}

/// The convention to write: the one asked for, else of the program's that of the adapter, else its first.
pub(in crate::ops) fn target(
    asked: Option<&'static Convention>,
    program: Option<&'static Program>,
    native: &'static Convention,
) -> Result<&'static Convention> {
    let Some(program) = program else {
        return asked.ok_or_else(|| {
            ErrorKind::BadOption("neither a convention nor a program is given".to_owned()).into()
        });
    };
    let takes = program.takes.conventions;
    if let Some(asked) = asked {
        if takes.contains(&asked.name) {
            return Ok(asked);
        }
        let takes = takes.join(", ");
        let reason = format!("{} loads {takes}, not {}; leave out --to", program.name, asked.name);
        return Err(ErrorKind::BadOption(reason).into());
    }
    let name = takes.iter().find(|name| **name == native.name).or_else(|| takes.first());
    let found = name.and_then(|name| convention::by_name(name));
    found.ok_or_else(|| ErrorKind::NotFound.into())
}
