//! Text from files, made safe to show: a name may hold what moves a cursor or turns a line around.

use std::borrow::Cow;

/// `text` with control and direction characters spelled out (`\u{1b}`); line ends stay.
pub fn harmless(text: &str) -> String {
    escape(text, |c| c != '\n' && is_hostile(c))
}

/// As [`harmless`], line ends spelled out too: no name can begin a line of its own.
pub fn one_line(text: &str) -> String {
    escape(text, is_hostile)
}

/// Text of at most some hundred characters: a longer one keeps its beginning and its end.
pub fn clipped(text: &str) -> Cow<'_, str> {
    clip(text, 240)
}

/// As [`clipped`], for whole messages: a screen of text at most.
pub fn short(text: &str) -> Cow<'_, str> {
    clip(text, 4000)
}

fn clip(text: &str, longest: usize) -> Cow<'_, str> {
    // Cheap to tell for most, whose characters need not be counted.
    if text.len() <= longest || text.chars().nth(longest).is_none() {
        return Cow::Borrowed(text);
    }
    let end: Vec<char> = text.chars().rev().take(longest / 4).collect();
    let start = text.chars().take(longest * 3 / 4 - 1);
    Cow::Owned(start.chain(['…']).chain(end.into_iter().rev()).collect())
}

fn escape(text: &str, hostile: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Controls, directions, separators of lines, and what has no width at all.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_both_ends() {
        assert_eq!(clipped("é".repeat(240).as_str()), "é".repeat(240));
        let long = format!("a{}z", "é".repeat(1000));
        let text = clipped(&long);
        assert!(text.starts_with('a') && text.ends_with('z') && text.contains('…'));
        assert_eq!(text.chars().count(), 240);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31mb\u{202e}c\nd"), "a\\u{1b}[31mb\\u{202e}c\nd");
        assert_eq!(one_line("a\r\nhint: b\u{2028}"), "a\\u{d}\\u{a}hint: b\\u{2028}");
        assert_eq!(one_line("naïve 名前 σ₁ ×"), "naïve 名前 σ₁ ×");
    }
}
