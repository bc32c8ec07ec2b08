//! `metadata`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::format::Access;
use lora_tool::ops::metadata::{self, Destination, Options};

use crate::cli::args::destination;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool metadata style.safetensors
  lora-tool metadata style.safetensors --strip-training -o clean.safetensors
  lora-tool metadata style.safetensors --set modelspec.license=CC-BY-4.0 --in-place")]
pub(crate) struct MetadataArgs {
    /// A .safetensors file
    file: PathBuf,
    /// Set an entry
    #[arg(long, value_name = "K=V", value_parser = entry)]
    set: Vec<(String, String)>,
    /// Remove an entry
    #[arg(long, value_name = "K")]
    remove: Vec<String>,
    /// Remove training data and settings (ss_*); what describes the network stays
    #[arg(long)]
    strip_training: bool,
    /// Where the edited file goes
    #[arg(short, long, value_name = "OUT", conflicts_with = "in_place", value_parser = destination())]
    output: Option<PathBuf>,
    /// Replace FILE itself by the edited one, in one step
    #[arg(long)]
    in_place: bool,
    /// Replace an existing OUT
    #[arg(short, long)]
    force: bool,
    /// Print what would change; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read the file instead of mapping it: for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

fn entry(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("an entry is KEY=VALUE".to_owned()),
    }
}

impl MetadataArgs {
    fn options(&self) -> Options {
        Options {
            file: self.file.clone(),
            set: self.set.clone(),
            remove: self.remove.clone(),
            strip_training: self.strip_training,
            destination: match (&self.output, self.in_place) {
                (Some(output), _) => Destination::File(output.clone()),
                (None, true) => Destination::InPlace,
                (None, false) => Destination::Nowhere,
            },
            force: self.force,
            dry_run: self.dry_run,
            access: if self.no_mmap { Access::Read } else { Access::Map },
        }
    }
}

impl Verb for MetadataArgs {
    fn run(&self, session: &Session) -> Outcome {
        let edit = metadata::plan(&self.options())?;
        let report = match self.dry_run {
            true => edit.report,
            false => edit.run(&*session.bytes("copying"))?,
        };
        session.warn(&report.warnings);
        session.answer("metadata", self.json, &report, render::metadata::report)?;
        Ok(Answer::Yes)
    }
}
