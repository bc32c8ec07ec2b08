//! From folders to rows.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use crate::adapter::{Adapter, OpenOptions};
use crate::error::{ErrorKind, Result};
use crate::format::natural::natural;
use crate::ops::shared::model_family::Seen;
use crate::ops::{clean, thread_pool};

use super::content::Content;
use super::filter::{self, Condition};
use super::found::Found;
use super::row::{self, Row};
use super::{find, marks, sketch};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folders; adapters too.
    pub paths: Vec<PathBuf>,
    /// What a row has to fulfil, all of it.
    pub conditions: Vec<Condition>,
    /// The field that rows are sorted by, with a `-` before it the other way round; without one, by name.
    pub sort: Option<String>,
    /// Read the factors too, and mark adapters whose updates are nearly equal.
    pub alike: bool,
    /// How adapters are opened.
    pub open: OpenOptions,
    /// Threads that compute; 0 for one a core.
    pub threads: usize,
}

/// A file that looks like an adapter's by its ending, and is none that can be read.
#[derive(Debug, Serialize)]
pub struct Unread {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub error: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What is in the folders.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The adapters.
    pub adapters: Vec<Row>,
    /// Adapters that the conditions leave out.
    pub left_out: usize,
    /// Files that could not be read as adapters.
    pub unread: Vec<Unread>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Lists the adapters below every path.
///
/// # Errors
/// If a path cannot be listed, or `sort` is no field. What is wrong with single files is in the report.
pub fn run(options: &Options) -> Result<Report> {
    let sort = options.sort.as_deref().map(order).transpose()?;
    let mut candidates = Vec::new();
    for path in &options.paths {
        let mut below = find::candidates(path)?;
        // Without the ending: `ink` before `ink-copy`, which is then the one that is marked as the same.
        below.sort_by(|a, b| natural(stem(&a.name), stem(&b.name)));
        candidates.extend(below);
    }
    let left = options.paths.iter().filter(|path| path.is_dir());
    let left: Vec<String> = left.filter_map(|path| clean::warning(path)).collect();
    let seen = Seen::default();
    let read = |candidate: &find::Candidate| read(candidate, options, &seen);
    let pool = thread_pool(options.threads)?;
    let results: Vec<_> = pool.install(|| candidates.par_iter().map(read).collect());
    let mut report = Report { warnings: left, ..Report::default() };
    let mut found = Vec::new();
    for result in results {
        match result {
            Ok(one) => found.push(one),
            Err(unread) => report.unread.push(unread),
        }
    }
    pool.install(|| marks::same(&mut found, options.open.access))?;
    if options.alike {
        marks::alike(&mut found);
        let count = found.iter().filter(|found| found.sketch.is_none()).count();
        if count > 0 {
            report.warnings.push(format!(
                "{count} adapters are not compared by their updates, which depend on a base, or are not finite"
            ));
        }
    }
    let all = found.len();
    let rows = found.into_iter().map(|found| found.row);
    report.adapters = rows
        .filter(|row| options.conditions.iter().all(|condition| condition.holds(row)))
        .collect();
    report.left_out = all - report.adapters.len();
    if let Some((field, reversed)) = sort {
        report.adapters.sort_by(|a, b| {
            let order = row::compare(field, a, b);
            (if reversed { order.reverse() } else { order }).then_with(|| natural(&a.name, &b.name))
        });
    }
    Ok(report)
}

/// A name without its file's ending.
fn stem(name: &str) -> &str {
    name.strip_suffix(".safetensors").unwrap_or(name)
}

/// A field to sort by, and whether the other way round.
fn order(text: &str) -> Result<(&'static str, bool)> {
    let (name, reversed) = match text.strip_prefix('-') {
        Some(name) => (name, true),
        None => (text, false),
    };
    match row::field(name) {
        Some(field) => Ok((field, reversed)),
        None => Err(ErrorKind::BadOption(filter::unknown_field(name)).into()),
    }
}

fn read(
    candidate: &find::Candidate,
    options: &Options,
    seen: &Seen,
) -> std::result::Result<Found, Unread> {
    let unread = |error: crate::Error| Unread {
        path: candidate.path.clone(),
        error: match error.tensor() {
            Some(tensor) => format!("`{tensor}`: {}", error.kind()),
            None => error.kind().to_string(),
        },
        hint: error.hint(),
    };
    let adapter = Adapter::open(&candidate.path, &options.open).map_err(unread)?;
    let row = row::row(candidate, &adapter, seen);
    let content = Content::of(&adapter);
    let sketch = if options.alike { sketch::sketch(&adapter).map_err(unread)? } else { None };
    Ok(Found { row, content, sketch })
}
