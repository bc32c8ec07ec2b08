//! `list`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::list;

use crate::cli::args::{OpenArgs, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool list loras
  lora-tool list loras --where 'model~sdxl' --where 'rank>16' --sort -size
  lora-tool list loras --alike
  lora-tool list loras --where 'trigger~ink' --json

Fields of --where and --sort: name, model (or family), base, convention, type, rank, scale, size, modules, parts, dtype, \
title, trigger, date. Signs: = and != compare whole values, ~ and !~ parts of texts, and > >= < <= order.")]
pub(crate) struct ListArgs {
    /// Folders of adapters; single adapters too
    #[arg(required = true, value_name = "DIR", value_parser = location())]
    paths: Vec<PathBuf>,
    /// Sort by this field; -FIELD sorts the other way round
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// List only adapters that fulfil this condition, such as rank>16, model~flux or size<=100MB; repeatable
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<list::Condition>,
    /// Read the factors too, and mark adapters that add nearly the same, whatever their factors, ranks and dtypes
    #[arg(long)]
    alike: bool,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for ListArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = list::Options {
            paths: self.paths.clone(),
            conditions: self.conditions.clone(),
            sort: self.sort.clone(),
            alike: self.alike,
            open: self.open.options(),
            threads: session.threads,
        };
        let report = list::run(&options)?;
        session.warn(&report.warnings);
        session.answer("list", self.json, &report, |report| {
            render::list::report(report, session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}
