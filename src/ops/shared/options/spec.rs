//! What the table says of one option.

/// One option of some verbs.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Its name with underscores, as recipes and Python have it; the command line has dashes.
    pub name: &'static str,
    /// The verbs that take it as it is described here.
    pub verbs: &'static [&'static str],
    /// Where a recipe says it, or an item of a batch.
    pub recipe: Recipe,
    /// What it takes.
    pub kind: Kind,
    /// Its value in the command's usage; empty for a flag.
    pub value: &'static str,
    /// What holds without it; empty where that goes without saying.
    pub default: &'static str,
    /// What it does, in a sentence without its full stop.
    pub help: &'static str,
    /// Other spellings on the command line, as other programs have them.
    pub aliases: &'static [&'static str],
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file or directory.
    Path,
    /// Files or directories.
    Paths,
    /// Nothing: it is given or not.
    Flag,
    /// A number.
    Number,
    /// A whole number, 0 or above.
    Count,
    /// One number per adapter.
    Numbers,
    /// One list of numbers per adapter, in kohya's spelling.
    NumberLists,
    /// A text.
    Text,
    /// Texts, the option repeated.
    Texts,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A rank policy: a whole number, or a word with a number.
    Rank,
    /// Bytes: 5GB.
    Size,
    /// A regular expression about names of modules.
    Regex,
    /// Numbers by regular expression.
    RegexNumbers,
}

/// Where a recipe says an option, or an item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// At its top, under the option's name.
    Key,
    /// In each adapter, under this key.
    Adapter(&'static str),
    /// Not there: on the command line of `run` or `batch`, since no result depends on it.
    Run,
    /// Nowhere: its verb is in no recipe, and in no batch.
    None,
}

impl OptionSpec {
    /// The name as the command line has it: `module-weight`.
    pub fn long(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The help with what holds without the option.
    pub fn help_text(&self) -> String {
        match self.default {
            "" => self.help.to_owned(),
            default => format!("{} [default: {default}]", self.help),
        }
    }
}
