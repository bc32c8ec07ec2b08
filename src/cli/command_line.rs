//! The command line as a whole: options of every command, and the verb that is run.

use std::ffi::OsString;

use clap::{Command, CommandFactory, FromArgMatches, Parser};

use lora_tool::format::location::fetch_missing;

use super::outcome::{Outcome, Said};
use super::session::{Asked, Session};
use super::terminal::{Shown, Terminal};
use super::verb::{self, Verb};
use super::{options, spelling};

/// Above the options that every command has.
const EVERYWHERE: &str = "Options of every command";

/// Manage and merge LoRA adapters: exact, streaming, without Python.
#[derive(Debug, Parser)]
#[command(name = "lora-tool", version, max_term_width = 100, help_expected = true)]
#[command(
    after_help = "Exit codes: 0 done or yes, 1 the answer is no (verify, check, diff), 2 it could not be done."
)]
pub(crate) struct Cli {
    /// Print errors only
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    quiet: bool,
    /// Say more: every module and tensor
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Threads that compute; one a core by default
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = threads)]
    threads: usize,
    /// When to use colours: auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "WHEN", value_enum, default_value = "auto", hide_default_value = true, hide_possible_values = true)]
    color: When,
    /// How to show progress: auto is a bar on a terminal and a line every ten seconds elsewhere
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "HOW", value_enum, default_value = "auto", hide_default_value = true, hide_possible_values = true)]
    progress: Shown,
    /// Download what the local Hub cache lacks of inputs named org/name (HF_ENDPOINT, HF_TOKEN)
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    fetch: bool,
    #[command(subcommand)]
    command: verb::Command,
    #[arg(skip)]
    asked: Asked,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Threads that can be asked for; more only cost time to start.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "a count is meant".to_owned())?;
    match number {
        0..=MOST_THREADS => Ok(number),
        _ => Err(format!("at most {MOST_THREADS}; one a core is the default")),
    }
}

/// Reads the command line; on bad usage, says why and exits with 2.
pub(crate) fn parse() -> Cli {
    // Arguments are located as they are parsed, so this one has to be known before.
    let options = std::env::args_os().take_while(|word| word != "--");
    let (mut fetch, mut quiet) = (false, false);
    for word in options {
        fetch |= word == "--fetch";
        quiet |= word == "-q" || word == "--quiet";
    }
    if fetch {
        fetch_missing(if quiet { |_| () } else { Terminal::tell });
    }
    let (words, left_out) = spelling::without_kohyas(spelling::usual(std::env::args_os()));
    if !left_out.is_empty() && !quiet {
        Terminal::tell(&format!("note: without effect here: {}", left_out.join(", ")));
    }
    let asked = asked(&words);
    let parsed = command().try_get_matches_from(words);
    match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => Cli { asked, ..cli },
        Err(error) => {
            if error.use_stderr() {
                // What cannot be printed on standard output stands on standard error below.
                let _ = asked.refuse(&said(&error));
            }
            error.exit()
        }
    }
}

/// What can be told of a command line that may be wrong.
fn asked(words: &[OsString]) -> Asked {
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let words: Vec<_> = words.iter().skip(1).map(text).collect();
    let line = words.iter().fold("lora-tool".to_owned(), |line, word| line + " " + &quoted(word));
    let words: Vec<_> = words.into_iter().take_while(|word| word != "--").collect();
    let format = words.windows(2).any(|pair| pair == ["--format", "json"]);
    let json = format || words.iter().any(|word| word == "--json" || word == "--format=json");
    let verbs = command();
    let verb = words.iter().find_map(|word| verbs.find_subcommand(word));
    Asked { json, command: verb.map(|verb| verb.get_name().to_owned()), line }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-+=:@%,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// What is wrong with a command line, and the tips that clap has, without its labels.
fn said(error: &clap::Error) -> Said {
    let text = error.render().to_string();
    let fault = text.split("\n\n").next().unwrap_or_default();
    let tips: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
    let hint = (!tips.is_empty()).then(|| tips.join("; "));
    Said::new(fault.trim_start_matches("error: ").to_owned(), hint)
}

/// The whole command line, its options as their table describes them.
pub(crate) fn command() -> Command {
    options::described(Cli::command())
}

impl Cli {
    /// How to talk to this user, and what holds for every verb.
    pub(crate) fn session(&self) -> Session {
        match self.color {
            When::Auto => {}
            When::Always => anstream::ColorChoice::Always.write_global(),
            When::Never => anstream::ColorChoice::Never.write_global(),
        }
        let asked = self.asked.clone();
        Session::new(self.quiet, self.progress, self.verbose > 0, self.threads, asked)
    }

    /// Does what was asked.
    pub(crate) fn run(&self, session: &Session) -> Outcome {
        self.command.run(session)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    /// The command line's underscores are dashes before clap sees them.
    #[test]
    fn no_option_is_spelled_with_an_underscore() {
        for verb in command().get_subcommands() {
            for arg in verb.get_arguments() {
                let aliases = arg.get_all_aliases().unwrap_or_default();
                for name in aliases.into_iter().chain(arg.get_long()) {
                    assert!(!name.contains('_'), "{} --{name}", verb.get_name());
                }
            }
        }
    }

    /// Words of a shell line, up to a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut quoted = false;
        let mut fresh = true;
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => fresh = true,
                '|' | '>' if !quoted => break,
                _ => {
                    if std::mem::take(&mut fresh) {
                        words.push(String::new());
                    }
                    words.last_mut().unwrap().push(c);
                }
            }
        }
        words
    }

    #[test]
    fn every_verb_has_examples_that_parse() {
        for verb in command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> =
                help.lines().map(str::trim).filter(|line| line.starts_with("lora-tool ")).collect();
            assert!(examples.len() >= 2, "{}: {} examples", verb.get_name(), examples.len());
            for example in examples {
                let words = words(example);
                assert_eq!(words.get(1).map(String::as_str), Some(verb.get_name()), "{example}");
                let args = spelling::usual(words.into_iter().map(std::ffi::OsString::from));
                if let Err(error) = command().try_get_matches_from(args) {
                    panic!("{example}\n{error}");
                }
            }
        }
    }
}
