//! The opening of every conversion: the adapter, what is known of its base, and the program that shall load it.

use std::path::PathBuf;

use super::options::Options;
use crate::adapter::convention::{self, Convention};
use crate::adapter::convert::{BaseFacts, complete};
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Result};
use crate::ops::check::program::ProgramVersion;
use crate::ops::shared::base::check_reference;
use crate::ops::{check_output, files_of};

/// What a conversion starts from.
pub(in crate::ops) struct Input {
    /// The program that shall load the result.
    pub(in crate::ops) program: Option<ProgramVersion>,
    /// The convention that is asked for.
    pub(in crate::ops) convention: Option<&'static Convention>,
    /// What is known of the base.
    pub(in crate::ops) base: BaseFacts,
    /// The adapter.
    pub(in crate::ops) adapter: Adapter,
}

/// Opens the adapter with what the reference says of it.
///
/// # Errors
/// Names that nothing has, an output that is there, what cannot be opened.
pub(in crate::ops) fn open(options: &Options) -> Result<Input> {
    let program = options.program.as_deref().map(ProgramVersion::parse).transpose()?;
    let convention = named(&options.to)?;
    check_output(&options.output, [options.adapter.as_path()], options.force)?;
    let (reference, access) = (options.reference.as_deref(), options.open.access);
    check_reference(reference, access)?;
    let base = BaseFacts::of(reference, access)?;
    let open = OpenOptions { heads: base.heads, experts: base.experts, ..options.open.clone() };
    let adapter = Adapter::open(&options.adapter, &open)?;
    Ok(Input { program, convention, base, adapter })
}

/// Fails if the adapter is not whole and finite, or the output one of its files; its config is completed by the
/// reference.
///
/// # Errors
/// What is wrong with the adapter.
pub(in crate::ops) fn check(options: &Options, adapter: &mut Adapter) -> Result<()> {
    adapter.sound()?;
    adapter.check_finite()?;
    if let Some(reference) = &options.reference {
        complete(adapter, reference, options.open.access)?;
    }
    check_output(&options.output, files_of(adapter).iter().map(PathBuf::as_path), options.force)
}

/// The convention of a name; none of an empty one.
fn named(name: &str) -> Result<Option<&'static Convention>> {
    let known = convention::by_name(name);
    if name.is_empty() || known.is_some() {
        return Ok(known);
    }
    let names = convention::names(true);
    let reason = match ProgramVersion::parse(name) {
        Ok(_) => {
            format!("`{name}` is a program, not a convention: --for {name} writes what it loads")
        }
        Err(_) => format!("convention `{name}` is unknown; there are {names}"),
    };
    Err(ErrorKind::BadOption(reason).into())
}

/// The convention to write: the one asked for, else of the program's that of the adapter, else its first.
pub(in crate::ops) fn target(
    asked: Option<&'static Convention>,
    program: Option<&ProgramVersion>,
    native: &'static Convention,
) -> Result<&'static Convention> {
    let Some(program) = program else {
        return asked.ok_or_else(|| {
            ErrorKind::BadOption("neither a convention nor a program is given".to_owned()).into()
        });
    };
    let takes = program.takes().conventions;
    if let Some(asked) = asked {
        if takes.contains(&asked.name) {
            return Ok(asked);
        }
        let takes = takes.join(", ");
        let reason =
            format!("{} loads {takes}, not {}; leave out --to", program.program.name, asked.name);
        return Err(ErrorKind::BadOption(reason).into());
    }
    let name = takes.iter().find(|name| **name == native.name).or_else(|| takes.first());
    let found = name.and_then(|name| convention::by_name(name));
    found.ok_or_else(|| ErrorKind::NotFound.into())
}
