//! What there is to choose from: every method with its parameters, cost and source, for people, scripts
//! and the documentation.

use serde::Serialize;

use super::params::ParamKind;
use super::{METHODS, Method};

/// One method.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// What it does.
    pub summary: &'static str,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// What it needs to see of the deltas: factors, gram, core or elementwise.
    pub space: &'static str,
    /// For m × n deltas with ranks that sum to R.
    pub cost: &'static str,
    /// Peers whose arithmetic `--compat` reproduces.
    pub compat: Vec<&'static str>,
    /// Where the formula is from.
    pub source: &'static str,
}

/// One parameter of a method.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Without one given.
    pub default: String,
    /// Words it can be; none for a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<&'static [&'static str]>,
    /// What it does.
    pub about: &'static str,
}

/// All methods.
pub fn catalogue() -> Vec<Entry> {
    METHODS.iter().map(|method| entry(method)).collect()
}

fn entry(method: &Method) -> Entry {
    let parameter = |param: &super::Param| Parameter {
        name: param.name,
        default: param.default_text(),
        choices: match param.kind {
            ParamKind::Word(words) => Some(words),
            ParamKind::Number { .. } => None,
        },
        about: param.about,
    };
    Entry {
        name: method.name,
        aliases: method.aliases,
        summary: method.summary,
        parameters: method.takes.iter().map(parameter).collect(),
        space: method.kind.name(),
        cost: method.kind.cost(),
        compat: method.peers.iter().map(|peer| peer.name()).collect(),
        source: method.source,
    }
}

impl Entry {
    /// The parameters in a line, with their defaults.
    pub fn parameters_text(&self) -> String {
        let parts: Vec<_> =
            self.parameters.iter().map(|p| format!("--{} {}", p.name, p.default)).collect();
        parts.join(" ")
    }
}

/// All methods as a table in Markdown, as the page on methods has it.
pub fn markdown() -> String {
    let mut table = "| `--method` | what it does | parameters and defaults | works on | source |\n\
                     | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for entry in catalogue() {
        let parameters = match entry.parameters_text() {
            text if text.is_empty() => String::new(),
            text => format!("`{text}`"),
        };
        let code_name = format!("`{}`", entry.name);
        let name = entry.source.split("://").last().unwrap_or(entry.source);
        let host: Vec<&str> = name.split('/').collect();
        let short = match host.as_slice() {
            ["arxiv.org", "abs", number] => format!("arXiv {number}"),
            [host, ..] => (*host).to_owned(),
            [] => String::new(),
        };
        let row = [code_name.as_str(), entry.summary, &parameters, entry.space];
        let line = format!("| {} | [{short}]({}) |\n", row.join(" | "), entry.source);
        table.push_str(&line);
    }
    table
}
