//! `completions`.

use clap::Args;
use clap_complete::{Shell, generate};

use crate::cli::{Answer, Outcome, Session, Verb, command};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool completions bash > ~/.local/share/bash-completion/completions/lora-tool
  lora-tool completions zsh > ~/.zfunc/_lora-tool")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Verb for CompletionsArgs {
    fn run(&self, session: &Session) -> Outcome {
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "lora-tool", &mut script);
        session.raw(&script)?;
        Ok(Answer::Yes)
    }
}
