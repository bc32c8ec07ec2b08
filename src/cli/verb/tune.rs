//! `tune`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lora_tool::ops::combine::RankPolicy;
use lora_tool::ops::tune;

use crate::cli::args::weigh;
use crate::cli::method_args::MethodParams;
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool tune style task --score './accuracy.sh {adapter}' -o tuned.yaml
  lora-tool tune style task --base BASE --score 'python loss.py {model}' --minimize -o tuned.yaml
  lora-tool tune a b c --method df-regmean --score './accuracy.sh {adapter}' -o tuned.yaml

The recipe is then run as any other: lora-tool run tuned.yaml -o OUT")]
pub(crate) struct TuneArgs {
    /// Adapters, each with the weight that the search begins at after a colon if it has one (style:0.7)
    #[arg(required = true, value_name = "ADAPTER")]
    adapters: Vec<OsString>,
    /// A command whose last printed word is the score; {adapter} in it is the candidate, {model} the base with it merged in
    #[arg(long, value_name = "COMMAND")]
    score: String,
    /// The recipe to write
    #[arg(short, long, value_name = "RECIPE")]
    output: PathBuf,
    /// The lowest score is the best
    #[arg(long)]
    minimize: bool,
    /// The base of {model}
    #[arg(long, value_name = "BASE")]
    base: Option<PathBuf>,
    /// One weight per adapter that the search begins at; 1 each by default
    #[arg(short, long, value_name = "W", num_args = 1.., allow_negative_numbers = true)]
    weights: Vec<f64>,
    /// How to combine; auto, the default, chooses by what the adapters write over each other
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    #[command(flatten)]
    params: MethodParams,
    /// Rank of the candidates, as `combine` takes it
    #[arg(long, value_name = "POLICY")]
    rank: Option<RankPolicy>,
    /// Replace an existing RECIPE
    #[arg(short, long)]
    force: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verb for TuneArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = tune::Options {
            adapters: weigh(&self.adapters, &self.weights)?,
            output: self.output.clone(),
            score: self.score.clone(),
            minimize: self.minimize,
            base: self.base.clone(),
            method: self.method.clone(),
            params: self.params.0.clone(),
            rank: self.rank,
            force: self.force,
            threads: session.threads,
        };
        session.note(render::tune::HEAD);
        let report = tune::run(&options, |trial| session.note(&render::tune::trial(trial)))?;
        session.answer("tune", self.json, &report, render::tune::report)?;
        Ok(Answer::Yes)
    }
}
