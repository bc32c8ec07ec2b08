//! check: what a program would refuse, ignore or scale wrongly in an adapter, and how to put it right.
//!
//! A program is one file: the conventions it reads, and its rules. `TARGETS` is the one list.

mod comfyui;
mod diffusers;
mod llama_cpp;
mod mlx;
mod peft;
mod vllm;

use std::path::PathBuf;

use serde::Serialize;

use crate::adapter::module::Module;
use crate::adapter::{Adapter, OpenOptions, target};
use crate::error::{ErrorKind, Result};
use crate::ops::base::open_base;
use crate::ops::merge::{misfit, tied_head};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The program refuses the adapter.
    Breaks,
    /// The program loads it, and computes something else.
    Changes,
}

/// One thing to look for.
struct Rule {
    severity: Severity,
    /// What it is, in a sentence.
    says: &'static str,
    /// Whether converting puts it right.
    mends: bool,
    /// What of the adapter shows it: modules and tensors by name.
    finds: fn(&Adapter) -> Vec<String>,
}

/// A program that loads adapters.
struct Target {
    /// Its name in `--for`.
    name: &'static str,
    /// Conventions it reads.
    reads: &'static [&'static str],
    /// What `lora-tool convert` is given to make what it reads.
    convert: &'static str,
    rules: &'static [Rule],
}

/// All programs.
static TARGETS: [&Target; 6] = [
    &peft::TARGET,
    &vllm::TARGET,
    &llama_cpp::TARGET,
    &comfyui::TARGET,
    &diffusers::TARGET,
    &mlx::TARGET,
];

/// What to check, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The program's name.
    pub program: String,
    /// A base that the modules shall fit.
    pub against: Option<PathBuf>,
    /// How the adapter is opened.
    pub open: OpenOptions,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub says: String,
    /// Where: modules and tensors by name.
    pub places: Vec<String>,
    /// The command that puts it right, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The adapter.
    pub adapter: PathBuf,
    /// The program.
    pub program: &'static str,
    /// The adapter's convention.
    pub convention: &'static str,
    /// Whether the program loads it right.
    pub ok: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Looks for everything that the program's rules name.
///
/// # Errors
/// If there is no such program, or the adapter cannot be opened.
pub fn run(options: &Options) -> Result<Report> {
    let program =
        TARGETS.iter().find(|target| target.name == options.program).ok_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            let names = names.join(", ");
            ErrorKind::BadOption(format!(
                "nothing is known of `{}`; there are {names}",
                options.program
            ))
        })?;
    let (with, access) = (options.adapter.as_path(), options.open.access);
    let base = options.against.as_ref().map(|path| open_base(path, &[with], access));
    let base = base.transpose()?;
    let open = base
        .as_ref()
        .map_or_else(|| Ok(options.open.clone()), |base| options.open.for_base(base))?;
    let adapter = Adapter::open(&options.adapter, &open)?;
    let fix = format!("lora-tool convert {} {} -o OUT", options.adapter.display(), program.convert);
    let mut findings = Vec::new();
    if !program.reads.contains(&adapter.convention.name) {
        findings.push(Finding {
            severity: Severity::Breaks,
            says: format!("it does not read the {} convention", adapter.convention.name),
            places: Vec::new(),
            fix: Some(fix.clone()),
        });
    }
    for fault in &adapter.faults {
        let (says, fix) = (fault.to_string(), fault.hint());
        findings.push(Finding { severity: Severity::Breaks, says, places: Vec::new(), fix });
    }
    for rule in program.rules {
        let places = (rule.finds)(&adapter);
        if !places.is_empty() {
            let (severity, says) = (rule.severity, rule.says.to_owned());
            let fix = rule.mends.then(|| fix.clone());
            findings.push(Finding { severity, says, places, fix });
        }
    }
    if let Some(base) = &base {
        let targets = target::find(&adapter, base, tied_head(base)?.as_deref())?;
        let misfits = misfit::misfits(&adapter, base, &targets)?;
        if let Some(says) = misfit::summary(&misfits, &adapter) {
            let places = misfits.into_iter().map(|misfit| misfit.name).collect();
            findings.push(Finding { severity: Severity::Breaks, says, places, fix: None });
        }
        let unmatched = targets.unmatched;
        if !unmatched.is_empty() {
            findings.push(Finding {
                severity: Severity::Breaks,
                says: "modules fit nothing in the base".to_owned(),
                places: unmatched.into_iter().map(|name| name.name).collect(),
                fix: None,
            });
        }
    }
    Ok(Report {
        adapter: options.adapter.clone(),
        program: program.name,
        convention: adapter.convention.name,
        ok: findings.is_empty(),
        findings,
    })
}

/// Names of the modules that something holds of.
fn modules(adapter: &Adapter, holds: impl Fn(&Module) -> bool) -> Vec<String> {
    let found = adapter.modules.iter().filter(|module| holds(module));
    found.map(|module| module.name.clone()).collect()
}

/// Modules with magnitudes.
fn decomposed(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| module.magnitude.is_some())
}

/// Modules that are no plain factors.
fn other_families(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| !["lora", "dora"].contains(&module.family))
}

/// Modules that change a bias.
fn biased(adapter: &Adapter) -> Vec<String> {
    modules(adapter, |module| module.bias.is_some())
}

/// Tensors that replace the base's.
fn replaced(adapter: &Adapter) -> Vec<String> {
    adapter.replacements.iter().map(crate::adapter::module::Replacement::label).collect()
}
