//! `man`.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;
use lora_tool::error::Locate;
use lora_tool::format::Staging;

use crate::cli::{Answer, Outcome, Session, Verb};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool man | man -l -
  lora-tool man merge | man -l -
  lora-tool man --output man1")]
pub(crate) struct ManArgs {
    /// The verb; the tool as a whole by default
    #[arg(value_name = "VERB", conflicts_with = "output")]
    verb: Option<String>,
    /// Write a page for the tool and for every verb into this new directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace an existing DIR
    #[arg(short, long, requires = "output")]
    force: bool,
}

impl Verb for ManArgs {
    fn run(&self, session: &Session) -> Outcome {
        let mut tool = crate::cli::command().disable_help_subcommand(true);
        tool.build();
        if let Some(directory) = &self.output {
            let staging = Staging::directory(directory, self.force)?;
            staging.write("lora-tool.1", &page(&tool)?)?;
            for verb in tool.get_subcommands() {
                let name = format!("lora-tool-{}.1", verb.get_name());
                staging.write(&name, &page(verb)?).in_file(directory)?;
            }
            staging.commit()?;
            session.say(&format!("wrote {}\n", directory.display()))?;
            return Ok(Answer::Yes);
        }
        let command = match &self.verb {
            None => &tool,
            Some(name) => tool.find_subcommand(name).ok_or_else(|| {
                let all: Vec<_> = tool.get_subcommands().map(clap::Command::get_name).collect();
                let reason = format!("there is no verb `{name}`; there are {}", all.join(", "));
                lora_tool::ErrorKind::BadOption(reason)
            })?,
        };
        session.raw(&page(command)?)?;
        Ok(Answer::Yes)
    }
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}
