//! How methods are chosen, and their parameters: one flag for each that some method takes.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use lora_tool::method::params::{Given, PARAMS};
use lora_tool::method::{Compat, Space};

/// Above the parameters in the help.
const HEADING: &str = "Parameters of methods (`lora-tool methods` says which method takes which)";

/// The parameters given, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct MethodParams(pub(crate) Given);

impl Args for MethodParams {
    fn augment_args(command: Command) -> Command {
        PARAMS.iter().fold(command, |command, param| {
            let value = if param.default_text().parse::<f64>().is_ok() { "X" } else { "WORD" };
            let own = Arg::new(param.name).long(param.name).value_name(value).help(param.about);
            command.arg(own.allow_hyphen_values(true).help_heading(HEADING))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MethodParams {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = PARAMS.iter().filter_map(|param| {
            let text = matches.get_one::<String>(param.name)?;
            Some((param.name.to_owned(), text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A peer to reproduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompatArg {
    /// PEFT's add_weighted_adapter
    Peft,
    /// kohya's merge_lora.py
    Kohya,
    /// mergekit's generalised task arithmetic
    Mergekit,
}

impl CompatArg {
    pub(crate) fn compat(self) -> Compat {
        match self {
            Self::Peft => Compat::Peft,
            Self::Kohya => Compat::Kohya,
            Self::Mergekit => Compat::Mergekit,
        }
    }
}

/// Where an elementwise method looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpaceArg {
    /// At the elements of the deltas
    Delta,
    /// At the elements of cores in a basis that all adapters share
    Core,
    /// At coordinates in a basis of the outputs that all adapters share
    Knots,
    /// At the elements of A and of B, apart
    Factors,
}

impl SpaceArg {
    pub(crate) fn space(self) -> Space {
        match self {
            Self::Delta => Space::Delta,
            Self::Core => Space::Core,
            Self::Knots => Space::Knots,
            Self::Factors => Space::Factors,
        }
    }
}
