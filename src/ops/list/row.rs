//! A row of the list, and its fields as conditions and orders see them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::find::Candidate;

use crate::adapter::Adapter;
use crate::adapter::identity::{TITLE, TRIGGER};
use crate::adapter::layout;
use crate::format::folder::modified;
use crate::format::natural::natural;
use crate::ops::shared::model_family::{self, Seen};

/// The scales of an adapter's modules.
#[derive(Debug, Clone, Serialize)]
pub struct Scales {
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// Whether it is alpha/√rank.
    pub rslora: bool,
}

/// Another adapter whose update is nearly the same.
#[derive(Debug, Clone, Serialize)]
pub struct Like {
    /// Its name.
    pub name: String,
    /// How far the updates are apart, relative to the larger; an estimate from random probes.
    pub distance: f64,
}

/// One adapter.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its path below the folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The family of models that it is for, if anything tells it.
    pub model: Option<String>,
    /// The base model's name, where the adapter says it.
    pub base_model: Option<String>,
    /// The convention of its keys.
    pub convention: &'static str,
    /// Parametrisations: lora, dora, lokr, …
    #[serde(rename = "type")]
    pub families: Vec<&'static str>,
    /// Different ranks, ascending.
    pub ranks: Vec<usize>,
    /// Its scales; none without modules.
    pub scale: Option<Scales>,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Values of its tensors.
    pub parameters: u64,
    /// How many modules.
    pub modules: usize,
    /// Modules by the part of the model: denoiser, te1, te2, …
    pub parts: BTreeMap<&'static str, usize>,
    /// Dtypes of its tensors.
    pub dtypes: BTreeSet<String>,
    /// The title in its header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The trigger words in its header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The date in its header, else that of its file: year-month-day.
    pub date: Option<String>,
    /// An adapter before it with the same factors and scales, bit for bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// An adapter before it with nearly the same update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub like: Option<Like>,
    /// Modules that are broken.
    pub faults: usize,
    /// The first of what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A field's values in one row.
pub(super) enum Values {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// Fields that rows can be sorted and chosen by.
pub const FIELDS: [&str; 14] = [
    "name",
    "model",
    "base",
    "convention",
    "type",
    "rank",
    "scale",
    "size",
    "modules",
    "parts",
    "dtype",
    "title",
    "trigger",
    "date",
];

/// The field of this name.
pub(super) fn field(name: &str) -> Option<&'static str> {
    let name = match name {
        "family" => "model",
        "triggers" => "trigger",
        "ranks" => "rank",
        name => name,
    };
    FIELDS.into_iter().find(|field| *field == name)
}

impl Row {
    /// What a row has in a field; no values where nothing is known.
    pub(super) fn values(&self, field: &str) -> Values {
        let text = |text: &Option<String>| Values::Texts(text.iter().cloned().collect());
        match field {
            "model" => text(&self.model),
            "base" => text(&self.base_model),
            "convention" => Values::Texts(vec![self.convention.to_owned()]),
            "type" => Values::Texts(self.families.iter().map(|&name| name.to_owned()).collect()),
            "rank" => Values::Numbers(self.ranks.iter().map(|&rank| rank as f64).collect()),
            "scale" => {
                let both = self.scale.iter().flat_map(|scale| [scale.least, scale.most]);
                Values::Numbers(both.collect())
            }
            "size" => Values::Numbers(vec![self.bytes as f64]),
            "modules" => Values::Numbers(vec![self.modules as f64]),
            "parts" => Values::Texts(self.parts.keys().map(|&part| part.to_owned()).collect()),
            "dtype" => Values::Texts(self.dtypes.iter().cloned().collect()),
            "title" => text(&self.title),
            "trigger" => text(&self.trigger),
            "date" => text(&self.date),
            _ => Values::Texts(vec![self.name.clone()]),
        }
    }
}

/// Orders two rows by a field: by the largest number, or the first text; rows that have none come last.
pub(super) fn compare(field: &str, a: &Row, b: &Row) -> Ordering {
    match (a.values(field), b.values(field)) {
        (Values::Numbers(a), Values::Numbers(b)) => {
            let most = |values: Vec<f64>| values.into_iter().max_by(f64::total_cmp);
            some_first(most(a), most(b), f64::total_cmp)
        }
        (Values::Texts(a), Values::Texts(b)) => {
            some_first(a.first(), b.first(), |a, b| natural(&a.to_lowercase(), &b.to_lowercase()))
        }
        (Values::Numbers(_), Values::Texts(_)) => Ordering::Less,
        (Values::Texts(_), Values::Numbers(_)) => Ordering::Greater,
    }
}

fn some_first<T>(a: Option<T>, b: Option<T>, order: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => order(&a, &b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// What the header of an open adapter says, as a row.
pub(super) fn row(candidate: &Candidate, adapter: &Adapter, seen: &Seen) -> Row {
    let tensors = || adapter.file.shards.iter().flat_map(|shard| &shard.header.tensors);
    let header = adapter.file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    let entry =
        |key: &str| header.and_then(|header| header.get(key)).filter(|text| !text.is_empty());
    let scales = adapter.modules.iter().map(|module| module.scale.value);
    let rslora = adapter.config.as_ref().is_some_and(|config| config.rslora);
    let scale = scales.fold(None, |scale: Option<Scales>, value| {
        let (least, most) =
            scale.map_or((value, value), |s| (s.least.min(value), s.most.max(value)));
        Some(Scales { least, most, rslora })
    });
    let ranks: BTreeSet<usize> =
        adapter.modules.iter().map(|module| module.rank).filter(|rank| *rank > 0).collect();
    let families: BTreeSet<&str> = adapter.modules.iter().map(|module| module.family).collect();
    let written = adapter.file.shards.first().and_then(|shard| modified(&shard.path));
    let said = entry("modelspec.date").and_then(|date| date.get(..10)).map(str::to_owned);
    let finished =
        || entry("ss_training_finished_at")?.parse::<f64>().ok().map(|at| day(at as u64));
    Row {
        name: candidate.name.clone(),
        path: candidate.path.clone(),
        model: model_family::family(adapter, seen),
        base_model: adapter.base_model().map(str::to_owned),
        convention: adapter.convention.name,
        families: families.into_iter().collect(),
        ranks: ranks.into_iter().collect(),
        scale,
        bytes: tensors().map(crate::format::TensorSpec::bytes).sum(),
        parameters: tensors().map(|tensor| tensor.elements() as u64).sum(),
        modules: adapter.modules.len(),
        parts: layout::counts(adapter),
        dtypes: tensors().map(|tensor| tensor.dtype.to_string()).collect(),
        title: entry(TITLE).or_else(|| entry("ss_output_name")).cloned(),
        trigger: entry(TRIGGER).cloned(),
        date: said.or_else(finished).or_else(|| written.map(day)),
        same_as: None,
        like: None,
        faults: adapter.faults.len() + adapter.unknown.len(),
        fault: fault(adapter),
    }
}

fn fault(adapter: &Adapter) -> Option<String> {
    let fault = adapter.faults.first().map(ToString::to_string);
    fault.or_else(|| {
        let first = adapter.unknown.first()?;
        Some(format!("{} names that are no adapter's, such as `{first}`", adapter.unknown.len()))
    })
}

/// The day (in Greenwich) of so many seconds since 1970, as year-month-day, by the calendar's 400-year cycle.
fn day(seconds: u64) -> String {
    /// Days of 400 years.
    const CYCLE: u64 = 146_097;
    /// Days from 0000-03-01 to 1970-01-01.
    const BEFORE: u64 = 719_468;
    let days = seconds / 86_400 + BEFORE;
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on; five of them always have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", 400 * cycle + year + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_709_164_800, "2024-02-29"),
            (4_107_542_400, "2100-03-01"),
            (1_796_083_199, "2026-11-30"),
        ] {
            assert_eq!(day(seconds), date, "{seconds}");
        }
    }
}
