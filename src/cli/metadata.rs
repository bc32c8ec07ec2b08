//! `metadata`: its arguments, and its report as text.

use std::path::PathBuf;

use clap::Args;
use lora_tool::adapter::training;
use lora_tool::format::{Access, Metadata};
use lora_tool::ops::metadata::{Destination, Options, Report};

use super::render::Lines;

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
    /// Remove what tells of the training data and settings; what describes the network stays
    #[arg(long)]
    strip_training: bool,
    /// Where the edited file goes
    #[arg(short, long, value_name = "OUT", conflicts_with = "in_place")]
    output: Option<PathBuf>,
    /// Replace FILE itself by the edited one, in one step
    #[arg(long)]
    in_place: bool,
    /// Replace an existing OUT
    #[arg(short, long)]
    force: bool,
    /// Print what would change; write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Read the file instead of mapping it: for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

fn entry(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("an entry is KEY=VALUE".to_owned()),
    }
}

impl MetadataArgs {
    pub(crate) fn options(&self) -> Options {
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
            access: if self.no_mmap { Access::Read } else { Access::Map },
        }
    }
}

/// Entries of a header, a line each, long ones summarised.
pub(crate) fn entries(lines: &mut Lines, metadata: &Metadata) {
    for (key, value) in metadata {
        lines.plain(format!("  {key}: {}", training::summary(key, value)));
    }
}

/// What the header says, or what an edit changed.
pub(crate) fn render(report: &Report) -> String {
    let mut lines = Lines::default();
    let Some(output) = &report.output else {
        lines.plain(report.file.display());
        entries(&mut lines, &report.metadata);
        return lines.into_text();
    };
    lines.plain(format!("{}: {} entries changed", output.display(), report.changes.len()));
    for change in &report.changes {
        let (key, short) = (&change.key, |value: &String| training::summary(&change.key, value));
        lines.plain(match (&change.before, &change.after) {
            (_, None) => format!("  - {key}"),
            (None, Some(after)) => format!("  + {key}: {}", short(after)),
            (Some(_), Some(after)) => format!("  ~ {key}: {}", short(after)),
        });
    }
    lines.into_text()
}
