//! What a program that loads adapters is: what it reads, what it needs written, and its rules.

use crate::adapter::convert::Takes;
use crate::ops::check::rule::Rule;
use crate::ops::check::subject::Subject;

/// What a program's models are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops::check) enum Field {
    /// Language, with towers beside it.
    Language,
    /// Images, video and sound.
    Image,
    /// Anything.
    Any,
}

/// A program that loads adapters.
pub(in crate::ops) struct Program {
    /// Its name in `--for`.
    pub(in crate::ops) name: &'static str,
    /// Other names of it.
    pub(in crate::ops::check) aliases: &'static [&'static str],
    /// The newest version whose source the rules were read from.
    pub(in crate::ops::check) version: &'static str,
    /// The oldest; of one before it nothing is known.
    pub(in crate::ops::check) oldest: &'static str,
    pub(in crate::ops::check) field: Field,
    /// Conventions it reads.
    pub(in crate::ops::check) reads: &'static [&'static str],
    /// Conventions that its own converter reads, by whose rules they are judged too.
    pub(in crate::ops::check) converts: &'static [&'static str],
    /// What `convert --for` writes.
    pub(in crate::ops) takes: Takes,
    /// What is written for older versions instead, with the first that takes the rest; the oldest first.
    pub(in crate::ops::check) older: &'static [(&'static str, Takes)],
    /// Flags that the server needs for this adapter.
    pub(in crate::ops::check) needs: fn(&Subject<'_>) -> Vec<String>,
    /// Its rules, in groups: its own, and those of programs whose code it has.
    pub(in crate::ops::check) rules: &'static [&'static [Rule]],
}

/// For programs that need no flag for any adapter.
pub(in crate::ops::check) fn nothing(_: &Subject<'_>) -> Vec<String> {
    Vec::new()
}
