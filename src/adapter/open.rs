//! An open adapter: from its files to its modules, with all that is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::architecture::by_heads;
use super::convention::gguf_names::Architecture;
use super::convention::{Convention, Part};
use super::family::{self, Parts, Source};
use super::module::{Module, Nature, Replacement, Update};
use super::open_options::OpenOptions;
use super::orientation::OrientationRule;
use super::scale::ScaleSources;
use super::sidecar::PeftConfig;
use super::stacks::{self, ExpertSizes, Stack};
use super::{files, save, tensor};
use crate::error::{ConvertError, Error, ErrorKind, FamilyError, Locate, Result};
use crate::format::Checkpoint;
use crate::math::LowRank;

/// An open adapter: names, shapes and scales known, factors still on disk.
#[derive(Debug)]
pub struct Adapter {
    /// The path it was opened by.
    pub path: PathBuf,
    /// Its tensors.
    pub file: Checkpoint,
    /// Its key grammar.
    pub convention: &'static Convention,
    /// PEFT's config, where the convention has one.
    pub config: Option<PeftConfig>,
    /// PEFT's configs of a pipeline's components, where the header has them.
    pub components: Vec<(String, PeftConfig)>,
    /// The one scale of all modules, where a config says it.
    pub stated_scale: Option<f64>,
    /// The config file that was read.
    pub config_path: Option<PathBuf>,
    /// Its modules, by name.
    pub modules: Vec<Module>,
    /// Stacks of experts that modules are parts of, by the parameter's name.
    pub stacks: BTreeMap<String, Stack>,
    /// Its replacements, by module.
    pub replacements: Vec<Replacement>,
    /// Tensors that carry nothing (copies of the base that a writer left in).
    pub inert: Vec<String>,
    /// Keys that the grammar does not know, and all tensors of the modules that they seem to be of.
    pub unknown: Vec<String>,
    /// Parameters that the config names, and of which the file has no factors.
    pub untrained: Vec<String>,
    /// What the config says and the tensors do not bear out.
    pub notes: Vec<String>,
    /// What was said of the base's weights when it was opened.
    pub orientation: Vec<OrientationRule>,
    /// What is wrong with single modules. Whoever needs the whole adapter calls [`Adapter::sound`].
    pub faults: Vec<Error>,
}

impl Adapter {
    /// Opens an adapter: a PEFT directory, or a file of any convention.
    ///
    /// Faults of single modules are kept in [`Adapter::faults`], so that they can be listed.
    ///
    /// # Errors
    /// If there is no adapter, its file or config is broken, or its type cannot be merged.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        options.scale.check()?;
        Self::of(files::open(path, options)?, path, options)
    }

    /// Opens an adapter that is not written yet, as it would be at `path`. `beside` is any of the files it
    /// was made of, `experts` the sizes of its base's experts.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn made(
        encoded: save::Encoded,
        convention: &'static Convention,
        (path, beside): (&Path, &Path),
        experts: Option<ExpertSizes>,
    ) -> Result<Self> {
        let found = files::held(encoded, convention, path, beside)?;
        let options = OpenOptions { experts, ..OpenOptions::default() };
        Self::of(found, path, &options)
    }

    fn of((convention, opened): files::Found, path: &Path, options: &OpenOptions) -> Result<Self> {
        let mut adapter = Self {
            path: path.to_path_buf(),
            file: opened.file,
            convention,
            config: opened.config,
            components: opened.components,
            stated_scale: opened.stated_scale,
            config_path: opened.config_path,
            modules: Vec::new(),
            stacks: BTreeMap::new(),
            replacements: Vec::new(),
            inert: Vec::new(),
            unknown: Vec::new(),
            untrained: Vec::new(),
            notes: Vec::new(),
            orientation: options.orientation.clone(),
            faults: Vec::new(),
        };
        let parts = adapter.sort_keys()?;
        let decomposed = parts.values().any(|parts| parts.contains_key(&Part::Magnitude));
        if let Some(config) = adapter.config.as_mut().filter(|_| options.contested) {
            config.dora &= decomposed;
        }
        adapter.build(&parts, options);
        if let Some((architecture, reordered)) = opened.architecture {
            adapter.name_modules(architecture, &reordered);
        }
        Ok(adapter)
    }

    /// Fails with the first fault, if there is one.
    ///
    /// # Errors
    /// The fault, with its file.
    pub fn sound(&mut self) -> Result<()> {
        let path = self.file.path.clone();
        if let Some(first) = self.unknown.first() {
            let (count, total, first) = (self.unknown.len(), self.file.len(), first.clone());
            return Err(ErrorKind::UnknownKeys { count, total, first }).in_file(&path);
        }
        self.modules_sound()
    }

    /// As [`Adapter::sound`], for whoever lists unknown keys as what fits nothing.
    ///
    /// # Errors
    /// The first fault of a module, with its file.
    pub fn modules_sound(&mut self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let path = self.file.path.clone();
        Err(self.faults.remove(0).in_file(&path))
    }

    /// Fails if any factor or replacement holds an infinity or a NaN. Reads every tensor.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`] with tensor and index; reading errors.
    pub fn check_finite(&self) -> Result<()> {
        let factors = self.modules.iter().flat_map(Module::tensors);
        let replaced = self.replacements.iter().map(|replacement| replacement.tensor.as_str());
        let names: BTreeSet<&str> = factors.chain(replaced).collect();
        for name in names {
            if let Some(view) = self.file.tensor(name) {
                tensor::check_finite(view)?;
            }
        }
        Ok(())
    }

    /// The update of a module for a weight of (outputs, inputs), without its scale.
    ///
    /// # Errors
    /// If reading fails, or the update cannot be one of such a weight.
    pub fn update(&self, module: &Module, shape: (usize, usize)) -> Result<Update> {
        module.form.load(&self.file, shape)
    }

    /// The exact factors of a module's update, without its scale: out × rank and rank × in, in f64.
    ///
    /// # Errors
    /// If the family's update has no factors without the base, or reading fails.
    pub fn factors(&self, module: &Module) -> Result<LowRank> {
        self.check_factors(module)?;
        match self.update(module, (module.outputs, module.inputs))? {
            Update::Factors(up, down) => Ok(LowRank::from_factors(&up, &down, 1.0)),
            Update::LowRank(matrix) => Ok(matrix),
            Update::Composite(composite) => Ok(composite.low_rank()),
            Update::Rows(_) | Update::Stored(_) | Update::Transform(_) => {
                Err(ErrorKind::NotAdditive { family: module.family }.into())
            }
        }
    }

    /// The rank of [`Adapter::factors`], without reading them.
    ///
    /// # Errors
    /// If the family's update has no factors without the base.
    pub fn check_factors(&self, module: &Module) -> Result<usize> {
        let family = module.family;
        match (module.nature(), module.delta_rank()) {
            (Nature::Dependent, _) => Err(ErrorKind::NotAdditive { family }.into()),
            (Nature::Full | Nature::Dense, _) => Err(FamilyError::NotLowRank { family }.into()),
            (Nature::LowRank(_), None) => Err(FamilyError::UnknownShape { family }.into()),
            (Nature::LowRank(_), Some(rank)) => Ok(rank),
        }
    }

    /// The base model's name, where the adapter says it.
    pub fn base_model(&self) -> Option<&str> {
        if let Some(config) = &self.config {
            return config.base_model();
        }
        let metadata = self.file.shards.first()?.header.metadata.as_ref()?;
        ["ss_sd_model_name", "modelspec.architecture", "ss_base_model_version"]
            .iter()
            .find_map(|key| metadata.get(*key))
            .map(String::as_str)
    }

    /// Gives modules the names that transformers has for llama.cpp's.
    fn name_modules(&mut self, architecture: &Architecture, reordered: &[String]) {
        for module in std::mem::take(&mut self.modules) {
            if reordered.contains(&module.name) {
                self.faults.push(Error::from(ConvertError::UnknownHeads).in_tensor(&module.name));
                continue;
            }
            match architecture.from_gguf(&module.name) {
                Some(name) => self.modules.push(Module { name, ..module }),
                None => {
                    let architecture = architecture.name;
                    self.faults.push(
                        Error::from(ConvertError::UnknownGgufName { architecture })
                            .in_tensor(&module.name),
                    );
                }
            }
        }
        self.modules.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn sort_keys(&mut self) -> Result<BTreeMap<String, Parts>> {
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        let mut unknown = Vec::new();
        for name in self.file.names() {
            match (self.convention.parse)(name) {
                None => unknown.push(name.to_owned()),
                Some(key) if key.part == Part::Original => self.inert.push(name.to_owned()),
                Some(key) => {
                    let place = stacks::place(self.config.as_ref(), name, &key.module, key.part);
                    let place = place.unwrap_or_else(|| key.module.clone());
                    let parts = modules.entry(place).or_default();
                    if let Some(first) = parts.insert(key.part, name.to_owned()) {
                        let (first, second) = (first, name.to_owned());
                        return Err(Error::from(ErrorKind::SameTarget { first, second })
                            .in_tensor(&key.module)
                            .in_file(&self.file.path));
                    }
                }
            }
        }
        if modules.is_empty()
            && let Some(first) = unknown.first()
        {
            let (count, total, first) = (unknown.len(), self.file.len(), first.clone());
            return Err(ErrorKind::UnknownKeys { count, total, first }).in_file(&self.file.path);
        }
        self.set_aside(&mut modules, unknown);
        Ok(modules)
    }

    /// Takes out the modules that unknown keys seem to be of: without those they would mean something else.
    fn set_aside(&mut self, modules: &mut BTreeMap<String, Parts>, unknown: Vec<String>) {
        for key in unknown {
            let owner = modules.iter().find(|(name, parts)| {
                // A module's path as its other keys have it, with whatever stands before its name.
                let path = |known: &str| Some(known.get(..known.find(name.as_str())?)?.to_owned());
                !name.is_empty()
                    && parts.iter().filter(|(part, _)| **part != Part::Weight).any(|(_, known)| {
                        let rest = path(known).and_then(|above| {
                            key.strip_prefix(above.as_str())?.strip_prefix(name.as_str())
                        });
                        rest.is_some_and(|rest| rest.starts_with(['.', '_']))
                    })
            });
            if let Some(name) = owner.map(|(name, _)| name.clone()) {
                self.unknown.extend(modules.remove(&name).into_iter().flat_map(Parts::into_values));
            }
            self.unknown.push(key);
        }
        self.unknown.sort();
    }

    fn build(&mut self, modules: &BTreeMap<String, Parts>, options: &OpenOptions) {
        let scales = ScaleSources {
            config: self.config.as_ref(),
            components: &self.components,
            stated: self.stated_scale,
            metadata: self.file.shards.first().and_then(|shard| shard.header.metadata.as_ref()),
            missing: self.convention.missing_alpha,
            given: options.scale,
            contested: options.contested,
        };
        let (nothing, config) = (Parts::new(), self.config.as_ref());
        let shared = modules.get("").unwrap_or(&nothing);
        let mut modules: BTreeMap<&str, &Parts> =
            modules.iter().map(|(name, parts)| (name.as_str(), parts)).collect();
        let stacked = stacks::take(config, &mut modules);
        for (name, parts) in modules.into_iter().filter(|(name, _)| !name.is_empty()) {
            let replaced = family::replaced::replacements(name, parts, &self.file, config);
            let (file, scales) = (&self.file, &scales);
            let module = match parts.values().find(|tensor| by_heads(name, tensor)) {
                Some(tensor) => Err(Error::from(FamilyError::ByHeads).in_tensor(tensor)),
                None => family::module(&Source { name, parts, shared, file, scales, config }),
            };
            match (replaced, module) {
                (Ok(replaced), Ok(module)) => {
                    self.replacements.extend(replaced);
                    self.modules.extend(module);
                }
                (Err(error), _) | (_, Err(error)) => self.faults.push(error.in_tensor(name)),
            }
        }
        let missing = stacks::missing(config, &stacked);
        if !missing.is_empty() {
            self.notes.push(format!(
                "the config's `target_parameters` names {}, of which the file has no factors: they were \
                 not trained, or the file is not whole",
                missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ));
            self.untrained = missing;
        }
        for (module, places) in stacked {
            let Some(config) = config else { continue };
            let (places, file, scales, base) = (&places, &self.file, &scales, options.experts);
            match stacks::expand(&stacks::StackSource {
                module,
                places,
                file,
                config,
                scales,
                base,
            }) {
                Ok(expanded) => {
                    self.modules.extend(expanded.modules);
                    self.stacks.extend(expanded.stacks);
                }
                Err(error) => self.faults.push(error.in_tensor(module)),
            }
        }
        self.modules.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in shared.values() {
            let used =
                self.modules.iter().any(|module| module.tensors().any(|name| name == tensor));
            if !used && self.faults.is_empty() {
                let missing = "any module that it is for";
                let fault = ErrorKind::MissingFactor { present: "a shared projection", missing };
                self.faults.push(Error::from(fault).in_tensor(tensor));
            }
        }
    }
}
