//! An adapter, open: its modules, their factors and their updates.

use std::ops::Range;
use std::path::Path;

use super::{Factors, OpenOptions};
use crate::adapter;
use crate::adapter::module::Update;
use crate::adapter::tensor::{check_finite, read_f64};
use crate::error::{Error, ErrorKind, FamilyError, Locate, Result};
use crate::math::LowRank;

/// An adapter of any convention, open: names, shapes and scales are known, factors stay on disk until they are asked
/// for.
///
/// ```
/// use lora_tool::Adapter;
///
/// let adapter = Adapter::open("fixtures/llama/style")?;
/// assert_eq!(adapter.convention(), "peft");
/// for module in adapter.modules() {
///     println!("{}: rank {}, scale {}", module.name(), module.rank(), module.scale());
/// }
/// # Ok::<(), lora_tool::Error>(())
/// ```
#[derive(Debug)]
pub struct Adapter {
    inner: adapter::Adapter,
}

impl Adapter {
    /// Opens a PEFT directory, or a file of any convention.
    ///
    /// # Errors
    /// If there is no adapter, or any of its keys, shapes or configs is unknown or does not fit: an adapter that
    /// is open is understood whole.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::new())
    }

    /// As [`Adapter::open`], with what its files do not say.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let mut inner = adapter::Adapter::open(path.as_ref(), &options.inner)?;
        inner.sound()?;
        Ok(Self { inner })
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its convention: `peft`, `kohya`, `diffusers`, …
    pub fn convention(&self) -> &'static str {
        self.inner.convention.name
    }

    /// The base model's name, where the adapter says it.
    pub fn base_model(&self) -> Option<&str> {
        self.inner.base_model()
    }

    /// Its modules, by name.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = Module<'_>> {
        self.inner.modules.iter().map(|module| Module { adapter: &self.inner, module })
    }

    /// The module of this name.
    pub fn module(&self, name: &str) -> Option<Module<'_>> {
        self.modules().find(|module| module.name() == name)
    }

    /// Tensors that replace the base's as a whole or by rows (PEFT's `modules_to_save`, trained tokens): the
    /// base's names.
    pub fn replacements(&self) -> impl ExactSizeIterator<Item = String> {
        self.inner.replacements.iter().map(adapter::module::Replacement::label)
    }
}

/// One adapted layer of an [`Adapter`].
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    adapter: &'a adapter::Adapter,
    module: &'a adapter::module::Module,
}

impl<'a> Module<'a> {
    /// Its name, as the adapter's convention has it.
    pub fn name(&self) -> &'a str {
        &self.module.name
    }

    /// Its parametrisation: `lora`, `loha`, `lokr`, `dora`, …
    pub fn family(&self) -> &'static str {
        self.module.family
    }

    /// Its rank; 0 where the family has none.
    pub fn rank(&self) -> usize {
        self.module.rank
    }

    /// The scale of its update: alpha / rank for LoRA.
    pub fn scale(&self) -> f64 {
        self.module.scale.value
    }

    /// Outputs of the layer; 0 where its tensors do not tell.
    pub fn out_features(&self) -> usize {
        self.module.outputs
    }

    /// Inputs of the layer, of a convolution channels × kernel; 0 where its tensors do not tell.
    pub fn in_features(&self) -> usize {
        self.module.inputs
    }

    /// The factors A and B of its update, exact in f64, the scale apart. Of LoHa, LoKr and other products the
    /// factors of what they multiply out to.
    ///
    /// ```
    /// use lora_tool::Adapter;
    ///
    /// let adapter = Adapter::open("fixtures/llama/style")?;
    /// let module = adapter.modules().next().expect("an adapter has modules");
    /// let factors = module.factors()?;
    /// assert_eq!(factors.b.len(), factors.out_features * factors.rank);
    /// assert_eq!(factors.a.len(), factors.rank * factors.in_features);
    /// assert_eq!(factors.scale, module.scale());
    /// assert_eq!(factors.folded().scale, 1.0);
    /// # Ok::<(), lora_tool::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the update has no factors without the base (DoRA, OFT, IA³, whole differences), a value is not finite,
    /// or reading fails.
    pub fn factors(&self) -> Result<Factors> {
        let load = || {
            let low_rank = self.adapter.factors(self.module)?;
            self.check_finite()?;
            Ok(Factors::of(&low_rank, self.module.scale.value))
        };
        load().map_err(|error: Error| self.located(error))
    }

    /// Rows of its update, scale · B · A, in f64 and row after row: `rows.len()` × [`Module::in_features`] values.
    /// A row is an output of the layer; an embedding's is one of its dimensions, not one of its tokens.
    ///
    /// ```
    /// use lora_tool::Adapter;
    ///
    /// let adapter = Adapter::open("fixtures/llama/style")?;
    /// let module = adapter.modules().next().expect("an adapter has modules");
    /// let rows = module.delta_rows(0..2)?;
    /// assert_eq!(rows.len(), 2 * module.in_features());
    /// # Ok::<(), lora_tool::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the rows are not there, the update depends on the base's weight (DoRA, OFT, IA³), a value is not finite,
    /// or reading fails.
    pub fn delta_rows(&self, rows: Range<usize>) -> Result<Vec<f64>> {
        self.rows(rows).map_err(|error| self.located(error))
    }

    fn rows(&self, rows: Range<usize>) -> Result<Vec<f64>> {
        let (out, columns) = (self.module.outputs, self.module.inputs);
        if rows.start > rows.end || rows.end > out {
            let reason = format!("rows {rows:?} are asked for, and there are {out}");
            return Err(ErrorKind::BadOption(reason).into());
        }
        if let adapter::module::Nature::Dependent = self.module.nature() {
            return Err(ErrorKind::NotAdditive { family: self.module.family }.into());
        }
        if columns == 0 {
            return Err(FamilyError::UnknownShape { family: self.module.family }.into());
        }
        self.check_finite()?;
        let scale = self.module.scale.value;
        let matrix = match self.adapter.update(self.module, (out, columns))? {
            Update::Factors(up, down) => LowRank::from_factors(&up, &down, 1.0),
            Update::LowRank(matrix) => matrix,
            Update::Composite(composite) => {
                let mut delta = vec![0.0; rows.len() * columns];
                composite.rows().add_to(&mut delta, columns, rows.start, scale);
                return Ok(delta);
            }
            Update::Rows(matrix) => {
                let mut delta = vec![0.0; rows.len() * columns];
                matrix.add_to(&mut delta, columns, rows.start, scale);
                return Ok(delta);
            }
            Update::Stored(name) => {
                let view = self.adapter.file.tensor(&name).ok_or(ErrorKind::NotFound);
                let view = view.in_tensor(&name)?;
                let values = read_f64(view, rows.start * columns, rows.len() * columns)?;
                return Ok(values.into_iter().map(|value| value * scale).collect());
            }
            Update::Transform(_) => {
                return Err(ErrorKind::NotAdditive { family: self.module.family }.into());
            }
        };
        Ok(Factors::of(&matrix, scale).delta_rows(rows))
    }

    fn check_finite(&self) -> Result<()> {
        let views = self.module.tensors().filter_map(|name| self.adapter.file.tensor(name));
        views.into_iter().try_for_each(check_finite)
    }

    fn located(&self, error: Error) -> Error {
        error.in_tensor(&self.module.name).in_file(&self.adapter.path)
    }
}
