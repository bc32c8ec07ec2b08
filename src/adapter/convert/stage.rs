//! A converted adapter on disk, compared with what it was made of before it takes its place.

use std::path::Path;

use super::base_facts::BaseFacts;
use super::compare;
use super::goal::ModuleReport;
use crate::adapter::convention::{Convention, Names};
use crate::adapter::layout::MadeOf;
use crate::adapter::save::NewAdapter;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::Result;
use crate::format::{Access, Checkpoint, Staging};

/// What is written, and what it has to be equal to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'a> {
    pub(crate) from: &'a Adapter,
    /// The files whose permissions the result's are no wider than.
    pub(crate) inputs: &'a [&'a Checkpoint],
    pub(crate) target: &'static Convention,
    pub(crate) sources: &'a [MadeOf],
    pub(crate) base: &'a BaseFacts,
    pub(crate) access: Access,
    /// The base that a Modelfile beside the adapter names, where there shall be one.
    pub(crate) modelfile: Option<&'a Path>,
}

impl Checked<'_> {
    /// Writes the result beside its place, opens it again, and compares every module; calls `compared` after each.
    ///
    /// # Errors
    /// I/O; [`ConvertError::Differs`], if a delta is not what it was. Nothing is left then.
    pub(crate) fn stage(
        &self,
        new: &NewAdapter,
        reports: &mut [ModuleReport],
        (output, force): (&Path, bool),
        compared: &dyn Fn(),
    ) -> Result<(Staging, u64)> {
        let mut encoded = new.clone().encode(self.target)?;
        if let Some(base) = self.modelfile {
            encoded.with_modelfile(base);
        }
        let (staging, bytes) = encoded.stage(output, force, self.inputs)?;
        let open = OpenOptions {
            access: self.access,
            convention: Some(self.target.name.to_owned()),
            heads: self.base.heads,
            experts: self.base.experts,
            ..OpenOptions::default()
        };
        let mut written = Adapter::open(staging.place(), &open)?;
        written.sound()?;
        for (module, source) in reports.iter_mut().zip(self.sources) {
            // A GGUF that is opened again has transformers' names.
            let architecture = self.base.architecture.filter(|_| self.target.names == Names::Gguf);
            let name = architecture.and_then(|known| known.from_gguf(&module.to));
            let name = name.as_ref().unwrap_or(&module.to);
            let error = compare::module(self.from, source, &written, name)
                .map_err(|error| error.in_tensor(&module.to).in_file(output))?;
            module.relative_error = error;
            compared();
        }
        compare::replaced(&new.replacements, &written)?;
        Ok((staging, bytes))
    }
}
