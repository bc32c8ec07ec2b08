//! A search from the options to the recipe.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::score::{ADAPTER, MODEL, score};
use super::search::{GLOBAL, Point, search};
use super::state::State;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::Staging;
use crate::format::staging::remove_any;
use crate::math::RankPolicy;
use crate::method::params::{Given, LAMBDA};
use crate::ops::combine::auto::settle;
use crate::ops::shared::advice::Advice;
use crate::ops::shared::inputs::AdapterInput;
use crate::ops::{check_output, combine, merge};

/// What to tune, and how candidates are scored.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapters, with the weights that the search begins at.
    pub adapters: Vec<AdapterInput>,
    /// The recipe to write.
    pub output: PathBuf,
    /// A command that prints a number; `{adapter}` in it is the candidate, `{model}` the base with it merged in.
    pub score: String,
    /// Whether the lowest score is the best.
    pub minimize: bool,
    /// The base of `{model}`.
    pub base: Option<PathBuf>,
    /// The method's name; `auto` if `None`.
    pub method: Option<String>,
    /// The method's parameters, as text.
    pub params: Given,
    /// Rank policy of the candidates.
    pub rank: Option<RankPolicy>,
    /// Replace an existing recipe.
    pub force: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// One candidate and its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Its number, from 1.
    pub number: usize,
    /// How many there are in all.
    pub of: usize,
    /// What everything is multiplied by.
    pub lambda: f64,
    /// Each adapter's weight.
    pub weights: Vec<f64>,
    /// The score as the command printed it.
    pub score: f64,
    /// Whether an earlier run had scored it.
    pub known: bool,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The recipe.
    pub output: PathBuf,
    /// The method.
    pub method: String,
    /// Why it was chosen, if that was left to the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Advice>,
    /// The best.
    pub best: Trial,
    /// All candidates, in the order in which they were tried.
    pub trials: Vec<Trial>,
}

/// Searches, and writes the recipe of the best. `told` hears of every candidate once it is scored.
///
/// # Errors
/// What `combine` and `merge` fail with, a command that fails or prints no number, and the state of another search
/// where this one keeps its own.
pub fn run(options: &Options, mut told: impl FnMut(&Trial)) -> Result<Report> {
    check(options)?;
    let paths = options.adapters.iter().map(|input| input.path.as_path());
    check_output(&options.output, paths, options.force)?;
    let start = combine::Options {
        adapters: options.adapters.clone(),
        method: Some(options.method.clone().unwrap_or_else(|| "auto".to_owned())),
        params: options.params.clone(),
        rank: options.rank,
        force: true,
        threads: options.threads,
        output: beside(&options.output, "candidate"),
        ..combine::Options::default()
    };
    let (start, chosen) = settle(&start)?;
    let mut state = State::open(beside(&options.output, "state.json"), key(options, &start)?)?;
    let count = start.adapters.len();
    let sign = if options.minimize { -1.0 } else { 1.0 };
    let mut trials: Vec<Trial> = Vec::new();
    let found = search(count, |point| {
        let candidate = at(&start, point);
        let known = state.score(point);
        let score = match known {
            Some(score) => score,
            None => {
                let score = evaluate(options, &candidate)?;
                state.keep(point, score)?;
                score
            }
        };
        let trial = Trial {
            number: trials.len() + 1,
            of: GLOBAL + 2 * count,
            lambda: lambda(&candidate),
            weights: candidate.adapters.iter().map(|input| input.weight).collect(),
            score,
            known: known.is_some(),
        };
        told(&trial);
        trials.push(trial);
        Ok(sign * score)
    });
    for candidate in [&start.output, &model(options)] {
        // What cannot be removed is replaced by the next search.
        let _ = remove_any(candidate);
    }
    let (best, _) = found?;
    let best = at(&start, &best);
    let trial = trials.iter().find(|trial| {
        let weights = best.adapters.iter().map(|input| input.weight);
        trial.lambda == lambda(&best) && weights.eq(trial.weights.iter().copied())
    });
    let trial = trial.cloned().ok_or(ErrorKind::NotFound)?;
    let staging = Staging::file(&options.output, options.force)?;
    staging.write("", recipe(&best, &trial)?.as_bytes())?;
    staging.commit()?;
    state.remove();
    let method = best.method.unwrap_or_else(|| "linear".to_owned());
    Ok(Report { output: options.output.clone(), method, chosen, best: trial, trials })
}

fn check(options: &Options) -> Result<()> {
    let says = |place| options.score.contains(place);
    let reason = if !says(ADAPTER) && !says(MODEL) {
        "--score names no candidate: write {adapter} where its path belongs, or {model} with --base"
    } else if says(MODEL) && options.base.is_none() {
        "--score asks for {model}, the base with the candidate merged in; give the base with --base"
    } else if options.base.is_some() && !says(MODEL) {
        "--base is for {model} in --score, which does not have it"
    } else {
        return Ok(());
    };
    Err(ErrorKind::BadOption(reason.to_owned()).into())
}

/// A path beside the output that tells whose it is.
fn beside(output: &Path, what: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{what}"));
    output.with_file_name(name)
}

fn model(options: &Options) -> PathBuf {
    beside(&options.output, "candidate-model")
}

/// What scores depend on.
fn key(options: &Options, start: &combine::Options) -> Result<serde_json::Value> {
    let input = |input: &AdapterInput| {
        let path = absolute(&input.path)?;
        Ok(json!({ "path": path.display().to_string(), "weight": input.weight }))
    };
    let adapters = start.adapters.iter().map(input).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "adapters": adapters,
        "score": options.score,
        "minimize": options.minimize,
        "base": options.base.as_ref().map(|base| base.display().to_string()),
        "method": start.method,
        "parameters": start.params,
        "rank": start.rank.map(|rank| rank.to_string()),
    }))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().in_file(path)
}

/// λ, which is 1 where nothing else is said.
fn lambda(options: &combine::Options) -> f64 {
    options.params.get(LAMBDA.name).and_then(|text| text.trim().parse().ok()).unwrap_or(1.0)
}

/// The options with everything multiplied as a point says.
fn at(start: &combine::Options, point: &Point) -> combine::Options {
    let mut options = start.clone();
    let product = round(lambda(start) * point.lambda);
    options.params.insert(LAMBDA.name.to_owned(), product.to_string());
    for (input, factor) in options.adapters.iter_mut().zip(&point.factors) {
        input.weight = round(input.weight * factor);
    }
    options
}

/// To six digits: what a recipe says is what was scored.
fn round(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// Writes a candidate and has it scored.
fn evaluate(options: &Options, candidate: &combine::Options) -> Result<f64> {
    combine::plan(candidate)?.run(&())?;
    let merged = model(options);
    if let Some(base) = &options.base {
        let whole = merge::Options {
            base: base.clone(),
            adapters: vec![AdapterInput::new(&candidate.output, 1.0)],
            output: merged.clone(),
            force: true,
            threads: options.threads,
            ..merge::Options::default()
        };
        merge::plan(&whole)?.run(&())?;
    }
    score(&options.score, &candidate.output, &merged)
}

/// The combination as a recipe; text in JSON's quotes is YAML.
fn recipe(best: &combine::Options, trial: &Trial) -> Result<String> {
    let quoted = |text: &str| json!(text).to_string();
    let (score, of) = (trial.score, trial.of);
    let mut lines = vec![format!("# Scored {score} by `lora-tool tune`, the best of {of}.")];
    lines.push(format!("method: {}", best.method.as_deref().unwrap_or("linear")));
    lines.extend(best.rank.map(|rank| format!("rank: {}", quoted(&rank.to_string()))));
    lines.push("parameters:".to_owned());
    let params = best.params.iter();
    lines.extend(params.map(|(name, value)| format!("  {}: {value}", name.replace('-', "_"))));
    lines.push("adapters:".to_owned());
    for input in &best.adapters {
        let path = quoted(&absolute(&input.path)?.display().to_string());
        lines.push(format!("  - {{path: {path}, weight: {}}}", input.weight));
    }
    Ok(lines.join("\n") + "\n")
}
