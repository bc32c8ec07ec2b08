//! The one list of verbs, in the order in which help shows them.

use super::definition::Verb;
use super::{
    batch, check, clean, collect, combine, commit, compare, completions, convert, diff, extract,
    inspect, list, man, merge, metadata, methods, resize, run, tune, undo, verify, work,
};
use crate::cli::{Outcome, Session};

/// The one list of verbs: makes the enum that clap reads and hands each its turn.
macro_rules! verbs {
    ($($(#[$meta:meta])* $name:ident($args:ty),)*) => {
        /// What to do.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $($(#[$meta])* $name($args),)*
        }

        impl Verb for Command {
            fn run(&self, session: &Session) -> Outcome {
                match self {
                    $(Self::$name(args) => args.run(session),)*
                }
            }
        }
    };
}

verbs! {
    /// Show what is in adapters or checkpoints, from their headers alone
    Inspect(inspect::InspectArgs),
    /// List the adapters in folders, a row each, and mark those that are the same
    List(list::ListArgs),
    /// Bake adapters into base weights
    Merge(merge::MergeArgs),
    /// Take many adapters through other verbs, item by item
    Batch(batch::BatchArgs),
    /// Make some parts of what was planned for several machines
    Work(work::WorkArgs),
    /// Put what workers have made in place
    Commit(commit::CommitArgs),
    /// Make one adapter of several
    Combine(combine::CombineArgs),
    /// Keep many adapters of one model in little space
    Collect(collect::CollectArgs),
    /// Lower or fit an adapter's rank
    #[command(alias = "compress")]
    Resize(resize::ResizeArgs),
    /// Make an adapter of what fine-tuning changed
    Extract(extract::ExtractArgs),
    /// See what a program would refuse, ignore or scale wrongly in an adapter
    Check(check::CheckArgs),
    /// Write the same update in another convention's file
    Convert(convert::ConvertArgs),
    /// See whether adapters get along
    Compare(compare::CompareArgs),
    /// Find the weights that score best by a command of yours
    Tune(tune::TuneArgs),
    /// Compare two checkpoints, or two adapters, in numbers
    Diff(diff::DiffArgs),
    /// Check that a merged checkpoint is what merge should have written
    Verify(verify::VerifyArgs),
    /// Restore the base, bit for bit, from a merge that kept its receipt
    Undo(undo::UndoArgs),
    /// Remove what killed runs have left beside their outputs
    Clean(clean::CleanArgs),
    /// Read or edit a file's header; its tensors stay as they are
    Metadata(metadata::MetadataArgs),
    /// Run a recipe: a merge or a combination written down
    Run(run::RunArgs),
    /// List the combination methods, their parameters and sources
    Methods(methods::MethodsArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page, or write one for every verb
    Man(man::ManArgs),
}
