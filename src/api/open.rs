//! How inputs are read: what every verb that opens adapters takes.

use crate::adapter;
use crate::error::{ErrorKind, Result};
use crate::format::Access;

/// How adapters are opened. The default reads what the files themselves say.
///
/// ```
/// use lora_tool::{Adapter, OpenOptions};
///
/// // A file that says no alpha: scale = alpha / rank.
/// let options = OpenOptions::new().alpha(8.0);
/// # // This one says its own, so that nothing is assumed.
/// let adapter = Adapter::open_with("fixtures/llama/style", &options)?;
/// assert_eq!(adapter.modules().next().map(|module| module.scale()), Some(2.0));
/// # Ok::<(), lora_tool::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    pub(super) inner: adapter::OpenOptions,
}

impl OpenOptions {
    /// The default: memory-mapped files, the convention detected, scales as the files say them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Alpha to assume where an adapter does not store it: scale = alpha / rank.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.inner.scale.alpha = Some(alpha);
        self
    }

    /// With [`OpenOptions::alpha`]: scale = alpha / √rank (rsLoRA).
    #[must_use]
    pub fn rslora(mut self, rslora: bool) -> Self {
        self.inner.scale.rslora = rslora;
        self
    }

    /// Scale to assume where an adapter does not store it.
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Self {
        self.inner.scale.scale = Some(scale);
        self
    }

    setters! {
        /// Reads the keys as this convention (`peft`, `kohya`, `diffusers`, …) instead of detecting it.
        convention(name: impl Into<String>) => convention = Some(name.into());
    }

    /// Accepts an unknown field of `adapter_config.json` as one that changes nothing.
    #[must_use]
    pub fn ignore_field(mut self, name: impl Into<String>) -> Self {
        self.inner.ignored_fields.push(name.into());
        self
    }

    setters! {
        /// The base is the modified one that PiSSA, OLoRA or CorDA saved beside the adapter.
        residual_base(residual: bool) => residual_base = residual;
    }

    /// How the base stores weights whose names match, as `REGEX=in-out` or `REGEX=out-in`; the first rule that
    /// matches wins.
    ///
    /// # Errors
    /// If the text is no such rule.
    pub fn orientation(mut self, rule: &str) -> Result<Self> {
        let rule = rule.parse().map_err(ErrorKind::BadOption)?;
        self.inner.orientation.push(rule);
        Ok(self)
    }

    /// Reads files instead of mapping them into memory: for network file systems.
    #[must_use]
    pub fn without_mapping(mut self) -> Self {
        self.inner.access = Access::Read;
        self
    }
}
