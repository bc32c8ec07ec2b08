//! How a new adapter is put on disk, whichever verb made it. Verbs compute in a convention of their own;
//! any other is what `adapter/convert/` makes of it.

use std::path::Path;

use super::Progress;
use super::shared::card::{self, Card};
use crate::adapter::Adapter;
use crate::adapter::convention::{self, Convention, Output, ScalePlace};
use crate::adapter::convert::{Checked, Conversion, Goal, Takes, reexpress};
use crate::adapter::save::NewAdapter;
use crate::adapter::write::check_ending;
use crate::error::{ErrorKind, Result};
use crate::format::staging::remove_any;
use crate::format::{Access, Checkpoint};

/// Whether modules can be written in it as they are computed: those whose scales are one number for all
/// modules need what was converted folded into it.
pub(crate) fn is_native(convention: &'static Convention) -> bool {
    convention.scale != ScalePlace::Uniform && convention.output != Output::Never
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
        Some(name) => convention::by_name(name)
            .filter(|convention| convention.output != Output::Never)
            .ok_or_else(|| {
                let names = convention::names(true);
                let reason = format!("convention `{name}` is unknown here; there are {names}");
                ErrorKind::BadOption(reason)
            })?,
        None => otherwise
            .unwrap_or_else(|| if one_file { convention::one_file() } else { convention::peft() }),
    };
    check_ending(convention, output)?;
    Ok(convention)
}

/// Where and in which convention an adapter goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<'a> {
    /// The convention its modules are in.
    pub(crate) native: &'static Convention,
    /// The convention to write.
    pub(crate) target: &'static Convention,
    /// What a program wants that shall load the result.
    pub(crate) program: Option<&'static Takes>,
    /// A base to take names and heads from, where another convention needs it.
    pub(crate) reference: Option<&'a Path>,
    /// The output.
    pub(crate) output: &'a Path,
    /// Any of the files that the adapter was made of.
    pub(crate) beside: &'a Path,
    /// Replace an existing output.
    pub(crate) force: bool,
}

impl<'a> Destination<'a> {
    /// Whether what was computed is written as it is.
    pub(crate) fn is_native(&self) -> bool {
        self.native == self.target && self.program.is_none()
    }

    fn goal(&self) -> Goal<'a> {
        Goal {
            target: self.target,
            program: self.program,
            reference: self.reference,
            allow_loss: false,
            access: Access::default(),
        }
    }

    fn reexpressed(&self, new: NewAdapter) -> Result<(Adapter, Conversion)> {
        let base = self.goal().base()?;
        let encoded = new.encode(self.native)?;
        let paths = (self.output, self.beside);
        let mut made = Adapter::made(encoded, self.native, paths, base.experts)?;
        made.sound()?;
        let conversion = reexpress(&made, self.goal(), &base)?;
        Ok((made, conversion))
    }

    /// Fails as [`Destination::write`] would of an adapter with these modules, whatever their values.
    ///
    /// # Errors
    /// Names that the other convention cannot have, and what it cannot hold.
    pub(crate) fn rehearse(&self, new: NewAdapter) -> Result<()> {
        if self.is_native() { Ok(()) } else { self.reexpressed(new).map(|_| ()) }
    }

    /// Bytes that the tensor file would have.
    ///
    /// # Errors
    /// What the convention cannot hold.
    pub(crate) fn file_bytes(&self, new: NewAdapter) -> Result<u64> {
        let (new, convention) = match self.is_native() {
            true => (new, self.native),
            false => (self.reexpressed(new)?.1.new, self.target),
        };
        new.encode(convention)?.file_bytes()
    }

    /// Writes an adapter's files, with no wider permissions than those of the inputs, and puts them in place if
    /// the inputs are as they were; the bytes of its tensor file.
    ///
    /// # Errors
    /// I/O, inputs that changed, what the convention cannot hold; nothing is left at the output's path
    /// then.
    pub(crate) fn write(
        &self,
        new: NewAdapter,
        inputs: &[&Checkpoint],
        progress: &dyn Progress,
    ) -> Result<u64> {
        self.write_with(new, inputs, None, progress)
    }

    /// The same with a model card, if there is one.
    ///
    /// # Errors
    /// As [`Destination::write`], and if the card cannot be written.
    pub(crate) fn write_with(
        &self,
        new: NewAdapter,
        inputs: &[&Checkpoint],
        card: Option<&Card>,
        progress: &dyn Progress,
    ) -> Result<u64> {
        let (staging, bytes) = if self.is_native() {
            new.encode(self.target)?.stage(self.output, self.force, inputs)?
        } else {
            let (made, mut conversion) = self.reexpressed(new)?;
            let checked = Checked {
                from: &made,
                inputs,
                target: self.target,
                sources: &conversion.sources,
                base: &self.goal().base()?,
                access: Access::default(),
                modelfile: self.reference.filter(|_| self.program.is_some_and(|p| p.modelfile)),
            };
            let place = (self.output, self.force);
            progress.begin(conversion.reports.len() as u64);
            let compared = || progress.advance(1);
            checked.stage(&conversion.new, &mut conversion.reports, place, &compared)?
        };
        inputs.iter().try_for_each(|input| input.check_unchanged())?;
        let one_file = !matches!(self.target.output, Output::Directory(_));
        if let Some(card) = card {
            card::write(card, &staging, (self.output, one_file), self.force)?;
        }
        staging.commit().inspect_err(|_| {
            // Beside a result that is not there it would only mislead.
            if card.is_some() && one_file {
                let _ = remove_any(&card::place(self.output, true));
            }
        })?;
        Ok(bytes)
    }
}
