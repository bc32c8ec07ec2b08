//! How a new adapter is put on disk, whichever verb made it.

use std::path::Path;

use crate::adapter::convention::{self, Convention, Output, ScalePlace};
use crate::adapter::save::Encoded;
use crate::adapter::write::check_ending;
use crate::error::{ErrorKind, Result};

/// Whether new adapters are written in it. Those whose scales are one number for all modules need what
/// was converted folded into it.
pub(crate) fn writable(convention: &'static Convention) -> bool {
    convention.name == convention::peft().name
        || (convention.scale == ScalePlace::Tensor && convention.output != Output::Never)
}

/// The convention to write: the one asked for, else `otherwise`, else PEFT's for a directory and
/// kohya's for a file.
///
/// # Errors
/// If there is no such convention, or its adapters are a directory and the output a file, or the
/// reverse.
pub(crate) fn convention(
    asked: Option<&str>,
    otherwise: Option<&'static Convention>,
    output: &Path,
) -> Result<&'static Convention> {
    let one_file = output.extension().is_some_and(|end| end == "safetensors");
    let convention = match asked {
        Some(name) => convention::by_name(name).filter(|c| writable(c)).ok_or_else(|| {
            let names =
                convention::CONVENTIONS.iter().copied().filter(|c| writable(c)).map(|c| c.name);
            let names = names.collect::<Vec<_>>().join(", ");
            ErrorKind::BadOption(format!("convention `{name}` is unknown here; there are {names}"))
        })?,
        None => otherwise
            .or_else(|| convention::by_name("kohya").filter(|_| one_file))
            .unwrap_or(convention::peft()),
    };
    check_ending(convention, output)?;
    Ok(convention)
}

/// Writes an adapter's files and puts them in place if `unchanged` still finds the inputs as they
/// were; the bytes of its tensor file.
///
/// # Errors
/// I/O, inputs that changed; nothing is left at the output's path then.
pub(crate) fn adapter(
    encoded: &Encoded,
    output: &Path,
    force: bool,
    unchanged: &dyn Fn() -> Result<()>,
) -> Result<u64> {
    let (staging, bytes) = encoded.stage(output, force)?;
    unchanged()?;
    staging.commit()?;
    Ok(bytes)
}
