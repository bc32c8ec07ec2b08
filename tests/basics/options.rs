//! The page of options and the Python functions are what the table of options says. To write them anew:
//! `LORA_TOOL_WRITE=1 cargo test --test basics options`.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fmt::Write;
use std::path::Path;

use lora_tool::method::params::{PARAMS, Param, ParamKind};
use lora_tool::ops::shared::options::{Kind, OptionSpec, Recipe, option, options_of};

use super::reports::report_name;

const VERBS: [(&str, &str); 5] = [
    ("merge", "Bakes adapters into base weights, in one pass and with one rounding."),
    (
        "combine",
        "Makes one adapter of several: by default the exact weighted sum of their updates.",
    ),
    ("resize", "Lowers an adapter's rank, or fits it to an energy, an error or a size."),
    ("extract", "Makes an adapter of what fine-tuning changed."),
    ("convert", "Writes the same update in another convention, or as a program loads it."),
];

/// Python's arguments by position, and whether one must be given.
fn positional(verb: &str) -> &'static [(&'static str, bool)] {
    match verb {
        "merge" => &[("base", true), ("adapters", true), ("output", true)],
        "combine" => &[("adapters", true), ("output", true)],
        "resize" => &[("adapter", true), ("output", true), ("rank", false)],
        "extract" => &[("base", true), ("tuned", true), ("output", true), ("rank", true)],
        _ => &[("adapter", true), ("output", true), ("to", false)],
    }
}

/// Parameters of methods that a verb takes.
fn parameters(verb: &str) -> &'static [Param] {
    if ["merge", "combine"].contains(&verb) { PARAMS } else { &[] }
}

/// The file as it should be, and what is said where it is not.
pub(super) fn hold(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("LORA_TOOL_WRITE").is_some() {
        std::fs::write(&path, text).expect("a writable file");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(
        found == text,
        "{file} is not what the table of options says: {differs:?}\n\
         write it anew with LORA_TOOL_WRITE=1 cargo test --test basics options"
    );
}

#[test]
fn the_page_of_options_is_the_table() {
    let mut page = String::from(
        "# Options\n\n\
         The options of the verbs that write weights or adapters. A recipe (`lora-tool run`) says an option of `merge` \
         or `combine` under the key in the last column, and so does an item of a batch (`lora-tool batch`) of any of \
         these verbs; Python takes it under the same name. Every command also takes `--quiet`, `--verbose` and \
         `--threads N`.\n",
    );
    for (verb, _) in VERBS {
        let (place, command) = match verb {
            "merge" | "combine" => ("recipe or batch", "run"),
            _ => ("batch", "batch"),
        };
        let head = format!("| option | what it does | default | in a {place} |\n|---|---|---|---|");
        write!(page, "\n## {verb}\n\n{head}\n").expect("a text");
        for option in options_of(verb) {
            let place = match option.recipe {
                Recipe::Key => format!("`{}`", option.name),
                Recipe::Adapter(key) => format!("`{key}` of an adapter"),
                Recipe::Run if (command, option.name) == ("batch", "modules") => {
                    "always in its report".to_owned()
                }
                Recipe::Run | Recipe::None => format!("`{command} --{}`", option.long()),
            };
            row(&mut page, &shown(option), option.help, option.default, &place);
        }
        for param in parameters(verb) {
            let place = format!("`parameters: {{{}: …}}`", param.name.replace('-', "_"));
            let shown = format!("`--{} {}`", param.name, if is_word(param) { "WORD" } else { "X" });
            row(&mut page, &shown, param.about, "the method's", &place);
        }
    }
    hold("docs/options.md", &page);
}

fn row(page: &mut String, shown: &str, help: &str, default: &str, place: &str) {
    let cell = |text: &str| text.replace('|', "\\|");
    let (shown, help, default) = (cell(shown), cell(help), cell(default));
    writeln!(page, "| {shown} | {help} | {default} | {place} |").expect("a text");
}

/// The option as a usage shows it, with its other spellings.
fn shown(option: &OptionSpec) -> String {
    if ["base", "tuned", "adapters", "adapter"].contains(&option.name) {
        return format!("`{}`", option.value);
    }
    let value = if option.value.is_empty() { String::new() } else { format!(" {}", option.value) };
    let names = std::iter::once(format!("`--{}{value}`", option.long()));
    let also = option.aliases.iter().map(|alias| format!("`--{alias}`"));
    names.chain(also).collect::<Vec<_>>().join(", ")
}

fn is_word(param: &Param) -> bool {
    matches!(param.kind, ParamKind::Word(_))
}

fn literal(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("Literal[{}]", words.join(", "))
}

/// The type of a value in Python.
fn python_type(kind: Kind) -> String {
    let name = match kind {
        Kind::Path => "Path",
        Kind::Paths => "Paths",
        Kind::Flag => "bool",
        Kind::Number => "float",
        Kind::Count => "int",
        Kind::Numbers => "Iterable[float]",
        Kind::NumberLists => "Iterable[Iterable[float]]",
        Kind::Text | Kind::Regex => "str",
        Kind::Texts => "str | Iterable[str]",
        Kind::Word(words) => return literal(words),
        Kind::Rank | Kind::Size => "int | str",
        Kind::RegexNumbers => "Mapping[str, float]",
    };
    name.to_owned()
}

fn parameter_type(param: &Param) -> String {
    match param.kind {
        ParamKind::Word(words) => literal(words),
        ParamKind::Number { each: true, .. } => "float | Iterable[float]".to_owned(),
        ParamKind::Number { .. } if param.name == "seed" => "int".to_owned(),
        ParamKind::Number { .. } => "float".to_owned(),
    }
}

/// Words of Python's grammar, which name no argument.
#[rustfmt::skip]
const PYTHON_KEYWORDS: [&str; 32] = [
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if",
    "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

/// The name in Python, with an underscore after it where Python has the word.
fn python_name(name: &str) -> String {
    let name = name.replace('-', "_");
    if PYTHON_KEYWORDS.contains(&name.as_str()) { format!("{name}_") } else { name }
}

/// Every report is JSON, and lists all modules; what writes nothing is a function of its own.
fn is_of_the_terminal(option: &OptionSpec) -> bool {
    ["json", "modules", "explore"].contains(&option.name)
}

#[test]
fn the_python_functions_take_what_the_table_says() {
    let mut module = String::from(
        "\"\"\"The verbs that write weights or adapters. Made from the table of options by a test; not to be edited.\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from typing import Iterable, Literal, Mapping, cast\n\n\
         from ._call import Path, Paths, Progress, call, joined, paths\n\
         from ._reports import CombineReport, ConvertReport, ExtractReport, MergeReport\n",
    );
    for (verb, summary) in VERBS {
        function(&mut module, verb, summary);
    }
    hold("python/lora_tool/_verbs.py", &module);
}

fn function(module: &mut String, verb: &str, summary: &str) {
    let (mut signature, mut about, mut passed) = (String::new(), String::new(), String::new());
    let by_position = positional(verb);
    let mut inputs = Vec::new();
    for (name, required) in by_position {
        let option = option(verb, name).expect("an argument of the table");
        let kind = python_type(option.kind);
        match required {
            true => writeln!(signature, "    {name}: {kind},"),
            false => writeln!(signature, "    {name}: {kind} | None = None,"),
        }
        .expect("a text");
        writeln!(about, "    {name}: {}", option.help_text()).expect("a text");
        match option.kind {
            Kind::Paths => inputs.push(format!("*paths({name})")),
            Kind::Path if *name != "output" => inputs.push((*name).to_owned()),
            _ => writeln!(passed, "        {name}={name},").expect("a text"),
        }
    }
    signature.push_str("    *,\n");
    let named = options_of(verb).filter(|option| {
        !is_of_the_terminal(option) && by_position.iter().all(|(name, _)| *name != option.name)
    });
    for option in named {
        let (name, kind) = (python_name(option.name), python_type(option.kind));
        match option.kind {
            Kind::Flag => writeln!(signature, "    {name}: bool = False,"),
            _ => writeln!(signature, "    {name}: {kind} | None = None,"),
        }
        .expect("a text");
        writeln!(about, "    {name}: {}", option.help_text()).expect("a text");
        match option.kind {
            Kind::NumberLists => writeln!(
                passed,
                "        {name}=None if {name} is None else [joined(numbers) for numbers in {name}],"
            ),
            _ => writeln!(passed, "        {name}={name},"),
        }
        .expect("a text");
    }
    for param in parameters(verb) {
        let (name, kind) = (python_name(param.name), parameter_type(param));
        writeln!(signature, "    {name}: {kind} | None = None,").expect("a text");
        writeln!(about, "    {name}: Of methods that take it: {}", param.about).expect("a text");
        match kind.contains("Iterable") {
            true => writeln!(passed, "        {name}=joined({name}),"),
            false => writeln!(passed, "        {name}={name},"),
        }
        .expect("a text");
    }
    signature.push_str("    threads: int | None = None,\n    progress: Progress | None = None,\n");
    passed.push_str("        threads=threads,\n        progress=progress,\n");
    about.push_str(
        "    threads: Threads that compute [default: one per core]\n    progress: Called with the phase, what of it \
         is done, and all of it, a few times a second\n",
    );
    let report = report_name(if verb == "resize" { "combine" } else { verb });
    let inputs = inputs.join(", ");
    write!(
        module,
        "\n\ndef {verb}(\n{signature}) -> {report}:\n    \"\"\"{summary}\n\n{about}    \"\"\"\n    \
         return cast({report}, call(\n        \"{verb}\", {inputs},\n{passed}    ))\n"
    )
    .expect("a text");
}
