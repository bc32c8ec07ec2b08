//! `collect`: build, add, export and info.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lora_tool::format::{Access, Dtype};
use lora_tool::ops::collect::{self, AddOptions, ExportOptions, Number, Options};

use crate::cli::args::{DtypeArg, OpenArgs, destination, location};
use crate::cli::{Answer, Outcome, Session, Verb, render};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lora-tool collect build loras -o store --rank 64
  lora-tool collect build loras -o store --rank 32 --clusters 4 --dtype int8
  lora-tool collect build loras -o served --rank 32 --common-a
  lora-tool collect add store new-lora
  lora-tool collect export store new-lora -o new-lora-again
  lora-tool collect info store")]
pub(crate) struct CollectArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a collection of the adapters in folders
    Build(BuildArgs),
    /// Put adapters into a collection; what is there stays as it is
    Add(AddArgs),
    /// Write one adapter of a collection as a plain adapter
    Export(ExportArgs),
    /// Show what is in a collection, and how far each adapter is from what it was
    Info(InfoArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// Folders of adapters; single adapters too
    #[arg(required = true, value_name = "DIR", value_parser = location())]
    paths: Vec<PathBuf>,
    /// Where the collection goes: a directory
    #[arg(short, long, value_name = "STORE", value_parser = destination())]
    output: PathBuf,
    /// Directions that the updates of a module share, for its outputs and for its inputs
    #[arg(long, value_name = "K")]
    rank: usize,
    /// Groups of adapters that have directions of their own
    #[arg(long, value_name = "C", default_value_t = 1)]
    clusters: usize,
    /// Write plain PEFT adapters instead, whose A is the same byte for byte
    #[arg(long)]
    common_a: bool,
    /// How numbers are stored; keep is the widest among the adapters, int8 has a scale for every direction
    #[arg(long, value_name = "DTYPE", value_enum, default_value = "keep")]
    dtype: StoredArg,
    /// Seed of the random directions that the search begins at, and of the groups' first adapters
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    open: OpenArgs,
    /// Replace an existing STORE
    #[arg(short, long)]
    force: bool,
    /// Check everything and print the plan; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The collection
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Folders of adapters; single adapters too
    #[arg(required = true, value_name = "DIR", value_parser = location())]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The collection
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// The adapter's name in it
    #[arg(value_name = "NAME")]
    name: String,
    /// Where the adapter goes: a directory for peft and mlx, a .safetensors or .gguf file for others
    #[arg(short, long, value_name = "OUT", value_parser = destination())]
    output: PathBuf,
    /// The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf; the adapters' own by default
    #[arg(long, value_name = "CONVENTION")]
    to: Option<String>,
    /// The base model, if --to needs its module names, or for gguf its architecture
    #[arg(long, value_name = "BASE", value_parser = location())]
    reference: Option<PathBuf>,
    /// Dtype of the factors; keep is the collection's, f32 of one in int8
    #[arg(long, value_name = "DTYPE", value_enum, default_value = "keep")]
    dtype: DtypeArg,
    /// Replace an existing OUT
    #[arg(short, long)]
    force: bool,
    /// Read the collection instead of memory-mapping it, for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The collection
    #[arg(value_name = "STORE")]
    store: PathBuf,
    /// Read the collection instead of memory-mapping it, for network file systems
    #[arg(long)]
    no_mmap: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// How the numbers of a collection are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoredArg {
    /// The widest among the adapters
    Keep,
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// bfloat16
    Bf16,
    /// Whole numbers of eight bits
    Int8,
}

impl StoredArg {
    fn number(self) -> Option<Number> {
        let dtype = |arg: DtypeArg| arg.dtype().map(Number::Float);
        match self {
            Self::Keep => None,
            Self::F32 => Some(Number::Float(Dtype::F32)),
            Self::F16 => dtype(DtypeArg::F16),
            Self::Bf16 => dtype(DtypeArg::Bf16),
            Self::Int8 => Some(Number::Int8),
        }
    }
}

fn access(no_mmap: bool) -> Access {
    if no_mmap { Access::Read } else { Access::Map }
}

impl BuildArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = Options {
            paths: self.paths.clone(),
            output: self.output.clone(),
            rank: self.rank,
            clusters: self.clusters,
            common_a: self.common_a,
            number: self.dtype.number(),
            seed: self.seed,
            open: self.open.options(),
            force: self.force,
            threads: session.threads,
        };
        let progress = session.steps("collecting");
        let collect = collect::plan(&options, &*progress)?;
        if self.dry_run {
            session.answer("collect", self.json, &collect.plan, render::collect::planned)?;
            return Ok(Answer::Yes);
        }
        let report = collect.run(&*progress)?;
        session.answer("collect", self.json, &report, |report| {
            render::collect::report("collected into", report, session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}

impl AddArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = AddOptions {
            store: self.store.clone(),
            paths: self.paths.clone(),
            open: self.open.options(),
            threads: session.threads,
        };
        let report = collect::add(&options, &*session.steps("adding"))?;
        session.answer("collect", self.json, &report, |report| {
            render::collect::report("added to", report, session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}

impl ExportArgs {
    fn run(&self, session: &Session) -> Outcome {
        let options = ExportOptions {
            store: self.store.clone(),
            name: self.name.clone(),
            output: self.output.clone(),
            to: self.to.clone(),
            reference: self.reference.clone(),
            dtype: self.dtype.dtype(),
            access: access(self.no_mmap),
            force: self.force,
            threads: session.threads,
        };
        let report = collect::export(&options, &*session.steps("exporting"))?;
        session.answer("collect", self.json, &report, render::collect::exported)?;
        Ok(Answer::Yes)
    }
}

impl InfoArgs {
    fn run(&self, session: &Session) -> Outcome {
        let report = collect::info(&self.store, access(self.no_mmap))?;
        session.answer("collect", self.json, &report, |report| {
            render::collect::info(report, session.verbose)
        })?;
        Ok(Answer::Yes)
    }
}

impl Verb for CollectArgs {
    fn run(&self, session: &Session) -> Outcome {
        match &self.what {
            What::Build(args) => args.run(session),
            What::Add(args) => args.run(session),
            What::Export(args) => args.run(session),
            What::Info(args) => args.run(session),
        }
    }
}
