//! A recipe read and planned: the verb's own options, and errors with the recipe's places.

use std::path::{Path, PathBuf};

use super::recipe::{Asked, Recipe};
use crate::adapter::OpenOptions;
use crate::error::{Error, ErrorKind, Locate, RecipeError, RecipeProblem, Result, RuleError};
use crate::format::Access;
use crate::format::access::read_small;
use crate::format::checkpoint::not_found;
use crate::ops::check_output;
use crate::ops::combine::{self, Combine};
use crate::ops::merge::{self, Merge};

/// Which recipe to run, and what the command line says on top of it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The recipe.
    pub recipe: PathBuf,
    /// Its text, if that is not to be read from there; paths are relative to the working directory then.
    pub text: Option<Vec<u8>>,
    /// Where the result goes, instead of where the recipe says.
    pub output: Option<PathBuf>,
    /// How inputs are read.
    pub access: Access,
    /// Replace an existing output.
    pub force: bool,
    /// Continue an interrupted merge, as a recipe's `resume: true` does.
    pub resume: bool,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// What a recipe asks for, planned.
#[derive(Debug)]
pub enum Planned {
    /// A merge.
    Merge(Box<Merge>),
    /// A combination.
    Combine(Box<Combine>),
}

/// Reads the recipe and plans what it asks for.
///
/// # Errors
/// What is wrong in the recipe, with its place; then everything that [`merge::plan`](merge::plan()) or [`combine::plan`]
/// raise. Nothing has been written then.
pub fn plan(options: &Options) -> Result<Planned> {
    let path = &options.recipe;
    let recipe = match &options.text {
        Some(text) => Recipe::read(text, Path::new("")).in_file(path)?,
        None => {
            let text = read_small(path).map_err(not_found);
            let folder = path.parent().unwrap_or(Path::new(""));
            Recipe::read(&text.in_file(path)?, folder).in_file(path)?
        }
    };
    let planned = match &recipe.asked {
        Asked::Merge(asked) => {
            let output = output(options, &asked.output)?;
            let access = options.access;
            let open = OpenOptions { access, ..asked.open.clone() };
            let (force, threads) = (options.force, options.threads);
            let resume = options.resume || asked.resume;
            let asked =
                merge::Options { output, open, force, resume, threads, ..(**asked).clone() };
            merge::plan(&asked).map(|merge| Planned::Merge(Box::new(merge)))
        }
        Asked::Combine(_) if options.resume => {
            let reason = "--resume continues a merge, and this recipe is a combination".to_owned();
            return Err(ErrorKind::BadOption(reason)).in_file(path);
        }
        Asked::Combine(asked) => {
            let output = output(options, &asked.output)?;
            let access = options.access;
            let open = OpenOptions { access, ..asked.open.clone() };
            let (force, threads) = (options.force, options.threads);
            let asked = combine::Options { output, open, force, threads, ..(**asked).clone() };
            combine::plan(&asked).map(|combine| Planned::Combine(Box::new(combine)))
        }
    };
    planned.map_err(|error| locate(error, &recipe, path))
}

/// Where the result goes: never over the recipe.
fn output(options: &Options, written: &Path) -> Result<PathBuf> {
    let output = options.output.clone().unwrap_or_else(|| written.to_path_buf());
    if output.as_os_str().is_empty() {
        let reason = "it names no `output`".to_owned();
        return Err(ErrorKind::BadOption(reason)).in_file(&options.recipe);
    }
    let file = options.text.is_none().then_some(options.recipe.as_path());
    check_output(&output, file, options.force)?;
    Ok(output)
}

/// Gives an error about the recipe as a whole its name, and one about a rule the rule's place.
fn locate(error: Error, recipe: &Recipe, path: &Path) -> Error {
    let (rule, of) = match error.kind() {
        ErrorKind::Rule(RuleError::Unused { rule, of }) => (rule, *of),
        ErrorKind::Rule(RuleError::NoMatch { option, pattern }) => (pattern, *option),
        _ => return error.in_file(path),
    };
    let adapter = error.file().map(Path::to_path_buf);
    let mut rules = recipe.rules.iter().filter(|found| found.text == *rule && found.of == of);
    let Some(place) = rules.find(|found| found.adapter == adapter).map(|found| found.place) else {
        return error;
    };
    let problem = RecipeProblem::UnusedRule { rule: rule.clone(), adapter };
    Error::from(RecipeError { place, problem }).in_file(path)
}
