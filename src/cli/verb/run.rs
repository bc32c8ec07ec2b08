//! `run`.

use std::path::PathBuf;

use clap::Args;
use lora_tool::format::Access;
use lora_tool::ops::run::{self, Options, Planned};

use super::{combine, merge};
use crate::cli::args::OutcomeArgs;
use crate::cli::{Outcome, Session, Verb};

#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  lora-tool run blend.yaml
  lora-tool run blend.yaml -o OUT --dry-run
  lora-tool run blend.yaml --force --json",
    after_long_help = "\
A recipe is YAML. With a base it is a merge, without one a combination; its keys are called as the
options of these verbs are, and its paths are relative to its own folder:

  base: llama                  # leave it out to make one adapter of several
  adapters:
    - path: style
      weight: 0.7
    - path: task
      weight:                  # by module: the first filter (a regular expression) that matches
        - filter: mlp          # decides, and some rule must
          value: 0.5
        - filter: self_attn    # a gradient from the first layer to the last
          value: [0, 0.5, 1]
        - value: 1
      parameters:
        density: 0.4           # for this adapter
      exclude: lm_head
  method: ties                 # `lora-tool methods` lists them
  parameters:
    density: 0.3
  dtype: bf16
  output: merged

More keys, of both: seed, compat, include, exclude, convention, alpha, scale, rslora, ignore_field,
residual_base. Of a merge: max_shard_size, allow_unmatched, keep_tied, verify, receipt. Of a combination:
rank, conv_rank, max_rank, uniform, space, to, on_conflict, and lbw of an adapter. A list below
`parameters` has one number for each adapter.

The recipe, the version and the SHA-256 of every input stand in the result's metadata.

Examples:
  lora-tool run blend.yaml
  lora-tool run blend.yaml -o OUT --dry-run
  lora-tool run blend.yaml --force --json"
)]
pub(crate) struct RunArgs {
    /// The recipe, a YAML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Where the result goes, instead of where the recipe says
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Read inputs instead of mapping them: for network file systems
    #[arg(long)]
    no_mmap: bool,
    #[command(flatten)]
    outcome: OutcomeArgs,
}

impl RunArgs {
    fn options(&self, threads: usize) -> Options {
        Options {
            recipe: self.recipe.clone(),
            output: self.output.clone(),
            access: if self.no_mmap { Access::Read } else { Access::Map },
            force: self.outcome.force,
            threads,
        }
    }
}

impl Verb for RunArgs {
    fn run(&self, session: &Session) -> Outcome {
        match run::plan(&self.options(session.threads))? {
            Planned::Merge(planned) => {
                let OutcomeArgs { dry_run, json, .. } = self.outcome;
                merge::perform("run", &planned, dry_run, json, session)
            }
            Planned::Combine(planned) => combine::perform("run", &planned, &self.outcome, session),
        }
    }
}
