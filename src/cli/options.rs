//! Arguments as the table of options describes them: help, what their value is called, and the spellings of other
//! programs. What an argument's value is, and which arguments exclude each other, stands at its verb.

use clap::{Arg, Command};
use lora_tool::ops::shared::options::{OptionSpec, option};

/// The same command, every argument that the table has described by it.
pub(super) fn described(command: Command) -> Command {
    let verbs = command.get_subcommands().map(|verb| verb.get_name().to_owned());
    let verbs: Vec<String> = verbs.collect();
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(&verb, |command| all_of(&verb, command))
    })
}

/// A verb, or a part of one that has arguments of its own.
fn all_of(verb: &str, command: Command) -> Command {
    let parts = command.get_subcommands().map(|part| part.get_name().to_owned());
    let parts: Vec<String> = parts.collect();
    let command = command.mut_args(|arg| describe(verb, arg));
    parts
        .into_iter()
        .fold(command, |command, part| command.mut_subcommand(&part, |part| all_of(verb, part)))
}

/// Options that few runs need, under headings of their own; what is not here stands first.
const HEADINGS: [(&str, &[&str]); 5] = [
    (
        "Which modules",
        &[
            "module_weight",
            "lbw",
            "include",
            "exclude",
            "allow_unmatched",
            "allow_disjoint",
            "add_new",
            "keep_tied",
        ],
    ),
    (
        "Quantised bases",
        &[
            "quantized",
            "touched",
            "quantize_like",
            "as_trained",
            "scales",
            "rounding",
            "rounding_seed",
            "min_survival",
            "residual",
            "residual_rank",
            "types",
        ],
    ),
    (
        "How inputs are read",
        &[
            "alpha",
            "rslora",
            "scale",
            "convention",
            "ignore_field",
            "residual_base",
            "orientation",
            "no_mmap",
        ],
    ),
    ("Work on several machines, and interrupted work", &["plan", "workers", "resume"]),
    ("What is written and printed", &["card", "force", "dry_run", "modules", "json"]),
];

fn heading(option: &OptionSpec) -> Option<&'static str> {
    let holds = |(_, names): &&(&str, &[&str])| names.contains(&option.name);
    HEADINGS.iter().find(holds).map(|(heading, _)| *heading)
}

fn describe(verb: &str, arg: Arg) -> Arg {
    let name = arg.get_long().unwrap_or(arg.get_id().as_str());
    let Some(option) = option(verb, name) else { return arg };
    let arg = arg.help(option.help_text()).aliases(option.aliases);
    let arg = match heading(option) {
        Some(heading) if arg.get_long().is_some() => arg.help_heading(heading),
        _ => arg,
    };
    if option.value.is_empty() {
        return arg;
    }
    // The help says it, in the table's words.
    arg.value_name(option.value).hide_default_value(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use clap::ArgAction;
    use lora_tool::ops::shared::options::{Kind, options_of};

    use super::super::command;
    use super::*;

    const VERBS: [&str; 5] = ["merge", "combine", "resize", "extract", "convert"];

    /// Parameters of methods have a table of their own.
    fn is_parameter(name: &str) -> bool {
        lora_tool::method::params::PARAMS.iter().any(|param| param.name == name)
    }

    fn name_of(arg: &Arg) -> String {
        arg.get_long().unwrap_or(arg.get_id().as_str()).replace('-', "_")
    }

    #[test]
    fn every_argument_of_the_five_verbs_is_in_the_table_and_the_reverse() {
        for verb in VERBS {
            let command = command();
            let command = command.find_subcommand(verb).unwrap();
            let args: Vec<String> = command
                .get_arguments()
                .filter(|arg| !arg.is_hide_set())
                .map(name_of)
                .filter(|name| verb == "extract" || !is_parameter(&name.replace('_', "-")))
                .collect();
            for name in &args {
                assert!(option(verb, name).is_some(), "{verb} --{name} is not in the table");
            }
            for option in options_of(verb) {
                let found = args.iter().filter(|name| *name == option.name).count();
                assert_eq!(found, 1, "{verb} --{} is in the table", option.long());
                let lines = options_of(verb).filter(|other| other.name == option.name).count();
                assert_eq!(lines, 1, "lines of {verb} --{}", option.long());
            }
        }
    }

    #[test]
    fn arguments_take_what_the_table_says() {
        for verb in VERBS {
            let command = command();
            let command = command.find_subcommand(verb).unwrap();
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(option) = option(verb, &name_of(arg)) else { continue };
                let place = format!("{verb} --{}", option.long());
                let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
                assert_eq!(is_flag, option.kind == Kind::Flag, "{place}");
                let defaults = arg.get_default_values();
                if let ([default], Kind::Word(_) | Kind::Size) = (defaults, option.kind)
                    && (verb, option.name) != ("extract", "dtype")
                {
                    assert_eq!(default.to_str(), Some(option.default), "{place}");
                }
                let words: Vec<String> = arg
                    .get_possible_values()
                    .iter()
                    .map(|word| word.get_name().to_owned())
                    .collect();
                match option.kind {
                    Kind::Word(expected) => assert_eq!(words, expected, "{place}"),
                    Kind::Flag => {}
                    _ => assert!(words.is_empty(), "{place}"),
                }
            }
        }
    }
}
