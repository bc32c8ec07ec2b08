//! What a search has found out so far, kept beside its output so that a killed run goes on where it was.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::search::Point;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::staging::remove_any;
use crate::format::{Staging, access, json};

/// The scores known so far, of one search.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    /// What the search is: another one's scores are of no use to it.
    key: Value,
    known: Vec<(Point, f64)>,
}

impl State {
    /// The state at a path, empty if there is none.
    ///
    /// # Errors
    /// If there is one of another search, or one that cannot be read.
    pub(super) fn open(path: PathBuf, key: Value) -> Result<Self> {
        let mut state = Self { path, key, known: Vec::new() };
        let Some(bytes) = access::read_config_if_there(&state.path).in_file(&state.path)? else {
            return Ok(state);
        };
        let found = json::object(&bytes).map_err(|error| {
            ErrorKind::BadOption(format!("it is no state of a search: {error}; remove it"))
        });
        let found = found.in_file(&state.path)?;
        if found.get("search") != Some(&state.key) {
            let reason = "it is the state of a search over other adapters, options or another command; remove it to \
                          begin anew, or ask for what it is of";
            return Err(ErrorKind::BadOption(reason.to_owned())).in_file(&state.path);
        }
        let trials = found.get("trials").and_then(Value::as_array).into_iter().flatten();
        state.known = trials.filter_map(trial).collect();
        Ok(state)
    }

    /// The score of a point, if it is known.
    pub(super) fn score(&self, point: &Point) -> Option<f64> {
        self.known.iter().find(|(known, _)| known == point).map(|(_, score)| *score)
    }

    /// Keeps a score.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn keep(&mut self, point: &Point, score: f64) -> Result<()> {
        self.known.push((point.clone(), score));
        let trials = self.known.iter().map(|(point, score)| {
            json!({ "lambda": point.lambda, "factors": point.factors, "score": score })
        });
        let text = json!({ "search": self.key, "trials": trials.collect::<Vec<_>>() });
        let staging = Staging::file(&self.path, true)?;
        staging.write("", format!("{text:#}\n").as_bytes())?;
        staging.commit()
    }

    /// Removes the file: the search is over.
    pub(super) fn remove(&self) {
        // What is left over is found by the next search, which can use it.
        let _ = remove_any(&self.path);
    }
}

fn trial(value: &Value) -> Option<(Point, f64)> {
    let factors = value.get("factors")?.as_array()?.iter().map(Value::as_f64);
    let factors = factors.collect::<Option<Vec<f64>>>()?;
    let point = Point { lambda: value.get("lambda")?.as_f64()?, factors };
    Some((point, value.get("score")?.as_f64()?))
}
