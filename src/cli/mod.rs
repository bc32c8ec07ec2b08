//! The binary: arguments → Options, Report → text or JSON, progress, errors. Sees only what is public
//! in the library, and knows no LoRA mathematics.

mod args;
mod combine_args;
mod merge_args;
mod metadata;
mod render;
mod render_combine;
mod terminal;

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use lora_tool::ops::combine::Combine;
use lora_tool::ops::{combine, compare, inspect, merge, resize, verify};
use serde::Serialize;

use args::{InspectArgs, VerifyArgs};
use combine_args::{CombineArgs, CombineOptions, CompareArgs, ResizeArgs};
use merge_args::MergeArgs;
use metadata::MetadataArgs;
use terminal::Terminal;

/// What a verb answers, beside its report.
pub(crate) enum Answer {
    /// Done, or yes.
    Yes,
    /// The answer is no.
    No,
}

/// What can keep a verb from answering.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's error.
    Tool(lora_tool::Error),
    /// Standard output would not take the result.
    Output(std::io::Error),
}

impl Failure {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<lora_tool::Error> for Failure {
    fn from(error: lora_tool::Error) -> Self {
        Self::Tool(error)
    }
}

impl From<lora_tool::ErrorKind> for Failure {
    fn from(kind: lora_tool::ErrorKind) -> Self {
        Self::Tool(kind.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// Manage and merge LoRA adapters: exact, streaming, without Python.
#[derive(Debug, Parser)]
#[command(name = "lora-tool", version, max_term_width = 100, help_expected = true)]
#[command(
    after_help = "Exit codes: 0 done or yes, 1 the answer is no (verify), 2 it could not be done."
)]
pub(crate) struct Cli {
    /// Print errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more: every module and tensor
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Threads that compute; one a core by default
    #[arg(long, global = true, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in adapters or checkpoints, from their headers alone
    Inspect(InspectArgs),
    /// Bake adapters into base weights
    Merge(MergeArgs),
    /// Make one adapter of several
    Combine(CombineArgs),
    /// Lower or fit an adapter's rank
    #[command(alias = "compress")]
    Resize(ResizeArgs),
    /// See whether adapters get along
    Compare(CompareArgs),
    /// Check that a merged checkpoint is what merge should have written
    Verify(VerifyArgs),
    /// Read or edit a file's header; its tensors stay as they are
    Metadata(MetadataArgs),
}

/// Reads the command line; on bad usage, says why and exits with 2.
pub(crate) fn parse() -> Cli {
    Cli::parse_from(split_weights(std::env::args_os()))
}

/// Splits `-w 1,-0.5` into numbers of their own, which a value that starts with a minus needs.
fn split_weights(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut split = Vec::new();
    let mut in_weights = false;
    for arg in args {
        let text = arg.to_string_lossy().into_owned();
        let numbers =
            |list: &str| list.split(',').all(|number| number.trim().parse::<f64>().is_ok());
        if ["-w", "--weights", "--ratios"].contains(&text.as_str()) {
            in_weights = true;
        } else if in_weights && numbers(&text) {
            split.extend(text.split(',').map(|number| OsString::from(number.trim())));
            continue;
        } else {
            in_weights = false;
        }
        split.push(arg);
    }
    split
}

/// A report with the command it belongs to.
#[derive(Serialize)]
struct Named<'a, T> {
    tool: &'static str,
    version: &'static str,
    command: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

fn named<'a, T>(command: &'static str, report: &'a T) -> Named<'a, T> {
    Named { tool: "lora-tool", version: env!("CARGO_PKG_VERSION"), command, report }
}

impl Cli {
    /// How to talk to this user.
    pub(crate) fn terminal(&self) -> Terminal {
        Terminal::new(self.quiet)
    }

    /// Does what was asked.
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<Answer, Failure> {
        match &self.command {
            Command::Inspect(args) => self.inspect(args, terminal),
            Command::Merge(args) => self.merge(args, terminal),
            Command::Combine(args) => {
                let combine = combine::plan(&args.options(self.threads)?)?;
                self.combine(&combine, ("combine", "combined into"), args.how(), terminal)
            }
            Command::Resize(args) => {
                let combine = resize::plan(&args.options(self.threads)?)?;
                self.combine(&combine, ("resize", "resized into"), args.how(), terminal)
            }
            Command::Compare(args) => self.compare(args, terminal),
            Command::Verify(args) => self.verify(args, terminal),
            Command::Metadata(args) => edit_metadata(args, terminal),
        }
    }

    fn inspect(&self, args: &InspectArgs, terminal: &Terminal) -> Result<Answer, Failure> {
        let report = inspect::run(&args.options())?;
        if args.json {
            terminal.json(&report)?;
        } else {
            let modules = args.modules || self.verbose > 0;
            terminal.print(&render::inspect(&report, modules, args.metadata))?;
        }
        Ok(Answer::Yes)
    }

    fn merge(&self, args: &MergeArgs, terminal: &Terminal) -> Result<Answer, Failure> {
        let merge = merge::plan(&args.options(self.threads)?)?;
        if args.dry_run {
            if args.json {
                terminal.json(&named("merge", &merge.plan))?;
            } else {
                terminal.print(&render::plan(&merge.plan, self.verbose > 0))?;
            }
            return Ok(Answer::Yes);
        }
        let report = merge.run(&*terminal.progress("merging"))?;
        for warning in &report.warnings {
            terminal.warning(warning);
        }
        if args.json {
            terminal.json(&named("merge", &report))?;
        } else {
            terminal.print(&render::merge(&report, self.verbose > 0))?;
        }
        let good = report.verification.as_ref().is_none_or(|verification| verification.ok);
        Ok(if good { Answer::Yes } else { Answer::No })
    }

    fn combine(
        &self,
        combine: &Combine,
        (command, verb): (&'static str, &str),
        how: &CombineOptions,
        terminal: &Terminal,
    ) -> Result<Answer, Failure> {
        let modules = how.modules || self.verbose > 0;
        if how.dry_run {
            if how.json {
                terminal.json(&named(command, &combine.plan))?;
            } else {
                terminal.print(&render_combine::plan(&combine.plan, modules))?;
            }
            return Ok(Answer::Yes);
        }
        let report = combine.run(&*terminal.progress("combining"))?;
        for warning in &report.warnings {
            terminal.warning(warning);
        }
        if how.json {
            terminal.json(&named(command, &report))?;
        } else {
            terminal.print(&render_combine::combine(&report, verb, modules))?;
        }
        Ok(Answer::Yes)
    }

    fn compare(&self, args: &CompareArgs, terminal: &Terminal) -> Result<Answer, Failure> {
        let report = compare::run(&args.options(self.threads)?, &*terminal.progress("comparing"))?;
        if args.json {
            terminal.json(&named("compare", &report))?;
        } else {
            terminal.print(&render_combine::compare(&report, args.modules || self.verbose > 0))?;
        }
        Ok(Answer::Yes)
    }

    fn verify(&self, args: &VerifyArgs, terminal: &Terminal) -> Result<Answer, Failure> {
        let report = verify::run(&args.options()?, &*terminal.progress("verifying"))?;
        if args.json {
            terminal.json(&named("verify", &report))?;
        } else {
            terminal.print(&render::verify(&report))?;
        }
        Ok(if report.ok { Answer::Yes } else { Answer::No })
    }
}

fn edit_metadata(args: &MetadataArgs, terminal: &Terminal) -> Result<Answer, Failure> {
    let edit = lora_tool::ops::metadata::plan(&args.options())?;
    let report = match args.dry_run {
        true => edit.report,
        false => edit.run(&*terminal.progress("copying"))?,
    };
    for warning in &report.warnings {
        terminal.warning(warning);
    }
    match args.json {
        true => terminal.json(&named("metadata", &report))?,
        false => terminal.print(&metadata::render(&report))?,
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn weights_split_at_commas_and_minus_signs() {
        let split = |line: &str| {
            let args = line.split(' ').map(OsString::from);
            split_weights(args).iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            split("merge b a -w -1,0.5 -o x"),
            ["merge", "b", "a", "-w", "-1", "0.5", "-o", "x"]
        );
        assert_eq!(split("merge -w 1 2 a,b"), ["merge", "-w", "1", "2", "a,b"]);
    }
}
