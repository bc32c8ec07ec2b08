//! `run`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use lora_tool::error::{Locate, Result};
use lora_tool::format::Access;
use lora_tool::ops::run::{self, Options, Planned};

use super::shared_work::PlanArgs;
use super::{combine, merge};
use crate::cli::args::{OutcomeArgs, destination};
use crate::cli::{Outcome, Session, Verb};

#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  lora-tool run blend.yaml
  lora-tool run blend.yaml -o OUT --dry-run
  lora-tool run blend.yaml --force --json
  make-recipe | lora-tool run - -o OUT",
    after_long_help = "\
A recipe is YAML. With a base it is a merge, without one a combination; its keys are called as the
options of these verbs are, and its paths are relative to its own folder (those of a recipe from
standard input, `-`, to the working directory):

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
        density:               # for this adapter; by module and layer as weights are, and where no
          - filter: mlp        # filter matches, what holds for all adapters
            value: [0.2, 0.6]
      exclude: lm_head
  method: ties                 # `lora-tool methods` lists them
  parameters:                  # every number but the seed may be by module or layer
    density: 0.3
    lambda: [1, 1.2]
  dtype: bf16
  output: merged

Every option of merge and combine that changes a result is a key too, with underscores (module_weight: {mlp: 0.5},
max_shard_size: 5GB, verify: true, rank: energy:0.99, …); docs/options.md lists them. kohya's lbw is a key of an adapter.
A plain list below the recipe's own `parameters` has one number for each adapter if an adapter may have its own
(density, gamma, epsilon); otherwise it is a gradient over the layers.

The recipe, the version and the SHA-256 of every input stand in the result's metadata.

Examples:
  lora-tool run blend.yaml
  lora-tool run blend.yaml -o OUT --dry-run
  lora-tool run blend.yaml --force --json
  make-recipe | lora-tool run - -o OUT"
)]
pub(crate) struct RunArgs {
    /// The recipe, a YAML file; - for standard input
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Where the result goes, instead of where the recipe says
    #[arg(short, long, value_name = "OUT", value_parser = destination())]
    output: Option<PathBuf>,
    /// Read inputs instead of mapping them: for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Continue an interrupted merge, as `resume: true` in the recipe does
    #[arg(long, conflicts_with = "plan")]
    resume: bool,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    outcome: OutcomeArgs,
}

impl RunArgs {
    fn options(&self, threads: usize) -> Result<Options> {
        let standard_input = self.recipe == Path::new("-");
        Ok(Options {
            recipe: self.recipe.clone(),
            text: standard_input.then(read_standard_input).transpose().in_file(&self.recipe)?,
            output: self.output.clone(),
            access: if self.no_mmap { Access::Read } else { Access::Map },
            force: self.outcome.force,
            resume: self.resume,
            threads,
        })
    }
}

/// Recipes are short; what is longer than this is none.
const LONGEST: u64 = 16 << 20;

fn read_standard_input() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::stdin().lock().take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        let reason = format!("it is longer than the {LONGEST} bytes that a recipe may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(text)
}

impl Verb for RunArgs {
    fn run(&self, session: &Session) -> Outcome {
        match run::plan(&self.options(session.threads)?)? {
            Planned::Merge(planned) => {
                let OutcomeArgs { dry_run, json, .. } = self.outcome;
                merge::perform("run", *planned, (&self.plan, dry_run), json, session)
            }
            Planned::Combine(_) if self.plan.plan.is_some() => {
                let reason = "--plan is for merges: the recipe has no base, and makes one adapter";
                Err(lora_tool::ErrorKind::BadOption(reason.to_owned()).into())
            }
            Planned::Combine(planned) => combine::perform("run", &planned, &self.outcome, session),
        }
    }
}
