//! `inspect`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::{inspect, list};

use crate::cli::args::{OpenArgs, OrientationArgs, PageArgs, location};
use crate::cli::{Answer, Outcome, Session, Verb, page, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool inspect ADAPTER
  lora-tool inspect ADAPTER --modules --against BASE
  lora-tool inspect ADAPTER --spectrum
  lora-tool inspect ADAPTER --report adapter.html
  lora-tool inspect BASE ADAPTER --json

A folder of adapters is listed, as `lora-tool list` does.")]
pub(crate) struct InspectArgs {
    /// Adapters or checkpoints
    #[arg(required = true, value_name = "PATH", value_parser = location())]
    paths: Vec<PathBuf>,
    /// List every module of an adapter, every tensor of a checkpoint
    #[arg(long)]
    modules: bool,
    /// List what the header says of the training too
    #[arg(long)]
    metadata: bool,
    /// Read the factors: norms, singular values and effective ranks of every module
    #[arg(long)]
    spectrum: bool,
    /// Show where each module lands in this base
    #[arg(long, value_name = "BASE", value_parser = location())]
    against: Option<PathBuf>,
    #[command(flatten)]
    orientation: OrientationArgs,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    page: PageArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    fn options(&self) -> inspect::Options {
        inspect::Options {
            paths: self.paths.clone(),
            against: self.against.clone(),
            spectrum: self.spectrum || self.page.report.is_some(),
            tensors: self.modules,
            open: self.orientation.open(&self.open),
        }
    }
}

impl InspectArgs {
    /// The options of `list`, if a folder of adapters is all that was named and nothing was asked of modules.
    fn folder(&self, session: &Session) -> Option<list::Options> {
        let open = self.orientation.open(&self.open);
        let plain = !self.modules && !self.spectrum && !self.metadata;
        let plain = plain && self.against.is_none() && self.page.report.is_none();
        let folders = || self.paths.iter().all(|path| list::is_folder(path, open.access));
        (plain && folders()).then(|| list::Options {
            paths: self.paths.clone(),
            open: open.clone(),
            threads: session.threads,
            ..list::Options::default()
        })
    }
}

impl Verb for InspectArgs {
    fn run(&self, session: &Session) -> Outcome {
        if let Some(folder) = self.folder(session) {
            let report = list::run(&folder)?;
            session.warn(&report.warnings);
            session.answer("list", self.json, &report, |report| {
                render::list::report(report, session.verbose)
            })?;
            return Ok(Answer::Yes);
        }
        self.page.check(self.paths.iter().map(PathBuf::as_path))?;
        let mut report = inspect::run(&self.options())?;
        let is_adapter = |item: &&inspect::Item| item.kind == "adapter";
        let adapters = report.items.iter().filter(is_adapter).map(|item| item.path.as_path());
        self.page.write(session, adapters, |made| page::inspect::page(&report, made))?;
        if !self.spectrum {
            // Only the page needed them.
            let modules = report.items.iter_mut().filter_map(|item| item.modules.as_mut());
            modules.flatten().for_each(|module| module.spectrum = None);
        }
        session.answer("inspect", self.json, &report, |report| {
            render::inspect::report(report, self.modules || session.verbose, self.metadata)
        })?;
        Ok(Answer::Yes)
    }
}
