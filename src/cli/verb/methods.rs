//! `methods`.

use clap::Args;
use lora_tool::method::catalogue::{catalogue, markdown};

use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool methods
  lora-tool methods --json")]
pub(crate) struct MethodsArgs {
    /// Print a table in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for MethodsArgs {
    fn run(&self, session: &Session) -> Outcome {
        if self.markdown {
            session.raw(markdown().as_bytes())?;
            return Ok(Answer::Yes);
        }
        let report = serde_json::json!({ "methods": catalogue() });
        session.answer(
            "methods",
            self.json,
            &report,
            |_| render::methods::methods(&catalogue()),
        )?;
        Ok(Answer::Yes)
    }
}
