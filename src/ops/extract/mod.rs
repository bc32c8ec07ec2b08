//! extract: a fine-tuned checkpoint minus its base → an adapter.
//!
//! The difference is streamed through a randomised SVD (`math/linalg/sketch.rs`) and never held; the
//! error that is reported is the true one, from the exact norm of the difference.

mod compute;
pub(super) mod depth;
mod pair;
mod rehearse;
mod report;

use std::path::PathBuf;
use std::str::FromStr;

use regex::Regex;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use pair::{Form, Pair};
pub use report::{LeftOut, ModuleReport, Report};

use crate::adapter::convention::{self, Convention, Names, Part};
use crate::adapter::orientation::OrientationRule;
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement, PartTensor, Sized, file_size};
use crate::error::{ErrorKind, PairError, Result};
use crate::format::json::model_config;
use crate::format::{Access, Checkpoint, Dtype, Metadata};
use crate::math::RankPolicy;
use crate::ops::shared::base::{open_base, open_model};
use crate::ops::thread_pool;
use crate::ops::{Progress, check_output, write};
use crate::weight::tied;
use compute::Fate;

/// How ranks are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RankChoice {
    /// What stands above the noise of rounding: the rank of a merged adapter.
    Auto,
    /// A rank policy.
    Policy(RankPolicy),
}

impl FromStr for RankChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Policy) }
    }
}

impl std::fmt::Display for RankChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Policy(policy) => policy.fmt(f),
        }
    }
}

/// What to extract, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The base checkpoint.
    pub base: PathBuf,
    /// The fine-tuned one.
    pub tuned: PathBuf,
    /// Where the adapter goes.
    pub output: PathBuf,
    /// How ranks are chosen.
    pub rank: RankChoice,
    /// The same for convolutions with a kernel; as `rank` if `None`.
    pub conv_rank: Option<RankChoice>,
    /// The highest rank of any module.
    pub max_rank: Option<usize>,
    /// Make modules of embeddings.
    pub embeddings: bool,
    /// Store norms, biases and what else has no factors as they are, where the convention can.
    pub full_norms: bool,
    /// Leave out modules none of whose elements differs by more.
    pub min_diff: f32,
    /// Decompose whole differences, in f64.
    pub exact: bool,
    /// Choose modules as kohya's script does: kernels only with a rank of their own.
    pub kohya: bool,
    /// kohya's clamping of the factors.
    pub clamp_quantile: Option<f64>,
    /// Only tensors that match.
    pub include: Option<Regex>,
    /// No tensors that match.
    pub exclude: Option<Regex>,
    /// Dtype of the factors; f32 if `None`.
    pub dtype: Option<Dtype>,
    /// The convention to write; PEFT's for a directory, kohya's for a file, if `None`.
    pub to: Option<String>,
    /// What is said of weights whose sizes do not tell which way round they lie.
    pub orientation: Vec<OrientationRule>,
    /// How inputs are read.
    pub access: Access,
    /// Chooses the random columns.
    pub seed: u64,
    /// Replace an existing output.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base: PathBuf::new(),
            tuned: PathBuf::new(),
            output: PathBuf::new(),
            rank: RankChoice::Auto,
            conv_rank: None,
            max_rank: None,
            embeddings: false,
            full_norms: false,
            min_diff: 0.0,
            exact: false,
            kohya: false,
            clamp_quantile: None,
            include: None,
            exclude: None,
            dtype: None,
            to: None,
            orientation: Vec::new(),
            access: Access::default(),
            seed: 0,
            force: false,
            threads: 0,
        }
    }
}

/// What will be looked at.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The rank policy.
    pub rank: String,
    /// The convention to be written.
    pub convention: &'static str,
    /// The output.
    pub output: PathBuf,
    /// The tensors of both checkpoints.
    pub pairs: Vec<Pair>,
}

/// A plan with its inputs open.
#[derive(Debug)]
pub struct Extract {
    /// What will be looked at.
    pub plan: Plan,
    base: Checkpoint,
    tuned: Checkpoint,
    /// The convention that modules are computed in, and the one that is written.
    convention: &'static Convention,
    target: &'static Convention,
    dtype: Dtype,
    options: Options,
}

/// Opens both checkpoints and pairs their tensors.
///
/// # Errors
/// Everything a user can get wrong, as far as headers tell, and what the convention that is asked for
/// cannot hold; nothing has been computed then.
pub fn plan(options: &Options) -> Result<Extract> {
    depth::check(options)?;
    let inputs = [options.base.as_path(), options.tuned.as_path()];
    check_output(&options.output, inputs, options.force)?;
    let [base, tuned] = inputs;
    let (base, tuned) = (
        open_base(base, &[tuned], options.access)?,
        open_model(tuned, "a fine-tuned", &[base], options.access)?,
    );
    let files = base.shards.iter().chain(&tuned.shards).map(|shard| shard.path.as_path());
    check_output(&options.output, files, options.force)?;
    let target = write::convention(options.to.as_deref(), None, &options.output)?;
    let convention = native(target);
    let bytes = matches!(options.rank, RankChoice::Policy(RankPolicy::Size(_)));
    if convention != target && bytes {
        let reason = "a budget of bytes is for the peft, kohya and comfyui conventions";
        return Err(ErrorKind::BadOption(reason.to_owned()).into());
    }
    let pairs = pair::pairs(options, &base, &tuned, convention)
        .map_err(|error| error.in_file(&options.tuned))?;
    let plan = Plan {
        rank: options.rank.to_string(),
        convention: target.name,
        output: options.output.clone(),
        pairs,
    };
    let dtype = options.dtype.unwrap_or(Dtype::F32);
    let extract =
        Extract { plan, base, tuned, convention, target, dtype, options: options.clone() };
    extract.rehearse()?;
    Ok(extract)
}

/// The convention to compute in: one that calls modules as the base does, or as kohya's scripts do.
fn native(target: &'static Convention) -> &'static Convention {
    match target.names {
        Names::Flattened | Names::Checkpoint => target,
        Names::Component => convention::one_file(),
        Names::Dotted | Names::Gguf => convention::peft(),
    }
}

impl Extract {
    /// Computes and writes the adapter.
    ///
    /// # Errors
    /// I/O, values that are not finite, no difference at all, a budget that does not reach; nothing is
    /// left at the output's path then.
    pub fn run(&self, progress: &dyn Progress) -> Result<Report> {
        let pool = thread_pool(self.options.threads)?;
        let (fates, done) = pool.install(|| compute::all(self, progress))?;
        let equal = fates.iter().filter(|fate| matches!(fate, Fate::Equal)).count();
        let (mut left_out, mut replacements, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        for fate in fates {
            match fate {
                Fate::LeftOut(tensor) => left_out.push(tensor),
                Fate::Whole(replacement) => replacements.push(replacement),
                Fate::Stored(module, tensor) => stored.push((module, tensor)),
                Fate::Equal | Fate::Module(_) => {}
            }
        }
        if done.is_empty() && replacements.is_empty() && stored.is_empty() {
            return Err(self.nothing(equal, &left_out));
        }
        let labels = stored.iter().map(|(module, (part, ..))| {
            format!("{module}.{}", if *part == Part::Named("diff_b") { "diff_b" } else { "diff" })
        });
        let whole = replacements.iter().map(label).chain(labels).collect();
        let ties = self.ties_embeddings(&done, &replacements)?;
        let mut report = self.report(&done, equal, left_out, whole);
        let adapter = NewAdapter {
            stacks: std::collections::BTreeMap::new(),
            modules: with_stored(done.into_iter().map(|done| done.module).collect(), stored),
            replacements,
            metadata: self.metadata(),
            config: Some(self.config(ties)?),
            target_modules: None,
            kept: None,
        };
        let inputs = [&self.base, &self.tuned];
        report.bytes = self.destination().write(adapter, &inputs, &())?;
        Ok(report)
    }

    fn destination(&self) -> write::Destination<'_> {
        write::Destination {
            native: self.convention,
            target: self.target,
            program: None,
            reference: Some(&self.options.base),
            output: &self.options.output,
            beside: self.base.shards.first().map_or(&self.base.path, |shard| &shard.path),
            force: self.options.force,
        }
    }

    fn nothing(&self, equal: usize, left_out: &[LeftOut]) -> crate::Error {
        let reason = match left_out.first() {
            None => format!("all {equal} tensors are the same in both checkpoints"),
            Some(first) => format!(
                "{} tensors differ, none of them for an adapter (`{}`: {})",
                left_out.len(),
                first.tensor,
                first.reason
            ),
        };
        crate::Error::from(PairError::Nothing(reason)).in_file(&self.options.tuned)
    }

    fn file_size(&self, modules: &[Sized<'_>], ranks: &[usize]) -> Result<u64> {
        file_size(self.convention, modules, ranks, &[], self.dtype, &self.metadata())
    }

    fn metadata(&self) -> Metadata {
        let name =
            |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let made = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "extracted": { "base": name(&self.options.base), "tuned": name(&self.options.tuned) },
            "rank": self.plan.rank,
        });
        Metadata::from_iter([
            ("format".to_owned(), "pt".to_owned()),
            ("lora_tool".to_owned(), made.to_string()),
        ])
    }

    /// Whether the adapter changes an embedding that both checkpoints tie to their output head, which it has
    /// to change too.
    ///
    /// # Errors
    /// If there is a config that cannot be read.
    fn ties_embeddings(&self, done: &[compute::Done], whole: &[NewReplacement]) -> Result<bool> {
        let Some(tied) = tied::find(&self.base)? else { return Ok(false) };
        let pairs = self.plan.pairs.iter().filter(|pair| pair.base == tied.embedding);
        let modules: Vec<&str> = pairs.map(|pair| pair.module.as_str()).collect();
        // A head that has parted is a second difference from the one embedding.
        let [module] = modules.as_slice() else { return Ok(false) };
        let factors = done.iter().any(|done| done.module.name == *module);
        Ok(factors || whole.iter().any(|whole| whole.module == *module))
    }

    /// The fields of a PEFT config that do not follow from the modules.
    fn config(&self, ties: bool) -> Result<Map<String, Value>> {
        let turned = self.plan.pairs.iter().any(|pair| {
            let linear = crate::adapter::module::Kind::Linear;
            pair.form == Form::Factors { kind: linear, turned: true }
        });
        let base = self.options.base.to_string_lossy().into_owned();
        let config = json!({
            "peft_type": "LORA", "base_model_name_or_path": base, "task_type": task(&self.base)?,
            "bias": "none", "fan_in_fan_out": turned, "lora_dropout": 0.0, "inference_mode": true,
        });
        let mut config = if let Value::Object(config) = config { config } else { Map::new() };
        if ties {
            config.insert("ensure_weight_tying".to_owned(), Value::Bool(true));
        }
        Ok(config)
    }

    fn report(
        &self,
        done: &[compute::Done],
        equal: usize,
        left_out: Vec<LeftOut>,
        whole: Vec<String>,
    ) -> Report {
        let sum = |of: fn(&compute::Done) -> f64| done.iter().map(of).sum::<f64>();
        let (all, error) = (sum(|done| done.squared_norm), sum(|done| done.squared_error));
        let energy_kept = sum(|done| done.report.energy_kept * done.squared_norm);
        let share = |part: f64| if all > 0.0 { part / all } else { 0.0 };
        let relative_error = share(error).sqrt();
        let mut warnings = Vec::new();
        if relative_error > LARGE_ERROR {
            warnings.push(format!(
                "the difference is not of low rank: {:.0} % of its norm is not in the adapter",
                relative_error * 100.0
            ));
        }
        if !left_out.is_empty() {
            let count = left_out.len();
            warnings.push(format!("{count} tensors differ and are not in the adapter"));
        }
        Report {
            output: self.options.output.clone(),
            rank: self.plan.rank.clone(),
            convention: self.target.name,
            tensors: self.plan.pairs.len(),
            equal,
            energy_kept: share(energy_kept),
            relative_error,
            modules: done.iter().map(|done| done.report.clone()).collect(),
            whole,
            left_out,
            parameters: done.iter().map(|done| done.parameters).sum(),
            bytes: 0,
            warnings,
        }
    }
}

/// PEFT's name for what the base's architecture is for, where its config says it.
///
/// # Errors
/// If there is a config that cannot be read.
pub(in crate::ops) fn task(base: &Checkpoint) -> Result<Option<&'static str>> {
    const TASKS: [(&str, &str); 4] = [
        ("ForCausalLM", "CAUSAL_LM"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
    ];
    let Some(directory) = base.directory() else { return Ok(None) };
    let config = model_config(directory)?;
    let architectures = config.as_ref().and_then(|config| config.get("architectures"));
    let name = architectures.and_then(|names| names.get(0)?.as_str()).unwrap_or_default();
    let known = TASKS.iter().find(|(ending, _)| name.ends_with(ending));
    Ok(known.map(|(_, task)| *task))
}

/// What each tensor of a model would be as a module of an adapter in a convention.
///
/// # Errors
/// If nothing decides which way round a layer lies.
pub(in crate::ops) fn modules_of(
    base: &Checkpoint,
    orientation: &[OrientationRule],
    output: &Convention,
) -> Result<Vec<Pair>> {
    let options = Options { orientation: orientation.to_vec(), ..Options::default() };
    pair::pairs(&options, base, base, output)
}

/// The modules with the differences that are stored beside them, or for themselves.
fn with_stored(mut modules: Vec<NewModule>, stored: Vec<(String, PartTensor)>) -> Vec<NewModule> {
    for (name, tensor) in stored {
        match modules.iter_mut().find(|module| module.name == name) {
            Some(module) => module.tensors.push(tensor),
            None => modules.push(NewModule::stored(name, vec![tensor])),
        }
    }
    modules
}

/// Relative error above which a warning is due.
const LARGE_ERROR: f64 = 0.5;

fn label(replacement: &NewReplacement) -> String {
    let bias = replacement.replaces == crate::adapter::module::Replaces::Bias;
    format!("{}.{}", replacement.module, if bias { "bias" } else { "weight" })
}
