//! `undo`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::error::counted;
use lora_tool::format::Access;
use lora_tool::ops::undo;

use crate::cli::args::destination;
use crate::cli::render::{Lines, bytes};
use crate::cli::{Answer, Outcome, Session, Verb};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool undo MERGED --receipt MERGED.receipt -o BASE
  lora-tool undo merged.safetensors --receipt merged.receipt -o base.safetensors")]
pub(crate) struct UndoArgs {
    /// The merged checkpoint
    merged: PathBuf,
    /// What `merge --receipt` wrote
    #[arg(long, value_name = "FILE")]
    receipt: PathBuf,
    /// Where the base goes: one file if it ends in .safetensors, else a directory
    #[arg(short, long, value_name = "OUT", value_parser = destination())]
    output: PathBuf,
    /// Read inputs instead of mapping them: for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Restore the weights though other files of the base are missing or changed beside MERGED
    #[arg(long)]
    allow_missing: bool,
    /// Replace an existing OUT
    #[arg(short, long)]
    force: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for UndoArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = undo::Options {
            merged: self.merged.clone(),
            receipt: self.receipt.clone(),
            output: self.output.clone(),
            access: if self.no_mmap { Access::Read } else { Access::Map },
            allow_missing: self.allow_missing,
            force: self.force,
            threads: session.threads,
        };
        let report = undo::run(&options, &*session.bytes("undoing"))?;
        session.warn(&report.warnings);
        session.answer("undo", self.json, &report, |report| {
            let mut lines = Lines::default();
            let what = if report.missing.is_empty() { "the base is" } else { "the weights are" };
            lines.plain(format!("{what} back, bit for bit, in {}", report.output.display()));
            let (files, sides) = (report.files, report.side_files);
            let size = bytes(report.bytes);
            lines.add(
                "weights",
                format!(
                    "{size} in {}, {} beside them",
                    counted(files, "file"),
                    counted(sides, "other")
                ),
            );
            if !report.missing.is_empty() {
                lines.add("missing", format!("{} of the base's other files", report.missing.len()));
            }
            lines.add("receipt", bytes(report.receipt_bytes));
            lines.into_text()
        })?;
        Ok(Answer::Yes)
    }
}
