//! Tables of rules as text, one line a rule:
//!
//! ```text
//! transformer_blocks.{i}.attn.{to_q,to_k,to_v}   double_blocks.{i}.img_attn.qkv   1:1:1
//! norm_out.linear                                final_layer.adaLN_modulation.1   swapped
//! img_in
//! ```
//!
//! First the module's path in diffusers, then the published one (the same where there is none), then
//! what of the published tensor it is: all of it, `swapped` (its halves in the other order), `queries`
//! (as many rows as the layer has inputs, and the rest in two halves), or the proportions of the parts
//! that lie one under another in it. A part of proportion 1 has as many rows as the layer has inputs, unless
//! `any` stands behind the proportions.
//!
//! Words in braces are alternatives: the first braces of a line's two paths go together, and so on.
//! Braces that only diffusers' path has are the parts of the published tensor, in order.

use super::{Cut, Rule};

/// The rules of a table.
pub(super) fn rules_of(table: &str) -> Vec<Rule> {
    table.lines().filter_map(parse).flatten().collect()
}

/// Lines of a table that say nothing that is understood; none, in a sound table.
#[cfg(test)]
pub(super) fn faults(table: &str) -> Vec<&str> {
    let empty = |line: &&str| line.trim().is_empty();
    table.lines().filter(|line| !empty(line) && parse(line).is_none()).collect()
}

fn parse(line: &str) -> Option<Vec<Rule>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (split, published, cuts) = match words.as_slice() {
        [same] => (*same, *same, Cuts::All(Cut::Whole)),
        [split, published] => (*split, *published, Cuts::All(Cut::Whole)),
        [split, published, "swapped"] => (*split, *published, Cuts::All(Cut::Swapped)),
        [split, published, "queries"] => {
            (*split, *published, Cuts::Each(vec![Cut::First, Cut::Middle, Cut::Last]))
        }
        [split, published, parts] => (*split, *published, shares(parts, true)?),
        [split, published, parts, "any"] => (*split, *published, shares(parts, false)?),
        _ => return None,
    };
    let (split, published) = (expand(split), expand(published));
    let per = split.len().checked_div(published.len())?;
    let each = match &cuts {
        Cuts::All(_) => per == 1,
        Cuts::Each(parts) => per == parts.len(),
    };
    if !each || per * published.len() != split.len() {
        return None;
    }
    let rule = |(at, split): (usize, String)| {
        let cut = match &cuts {
            Cuts::All(cut) => *cut,
            Cuts::Each(parts) => *parts.get(at % per)?,
        };
        Some(Rule { split, published: published.get(at / per)?.clone(), cut })
    };
    split.into_iter().enumerate().map(rule).collect()
}

/// What of their published tensor the modules of a line are.
enum Cuts {
    All(Cut),
    Each(Vec<Cut>),
}

/// Proportions: `1:1:1:4`.
fn shares(text: &str, square: bool) -> Option<Cuts> {
    let counts: Option<Vec<usize>> = text.split(':').map(|part| part.parse().ok()).collect();
    let counts = counts.filter(|counts| counts.len() > 1 && !counts.contains(&0))?;
    let of = counts.iter().sum();
    let mut start = 0;
    let parts = counts.into_iter().map(|count| {
        start += count;
        Cut::Share { start: start - count, count, of, square }
    });
    Some(Cuts::Each(parts.collect()))
}

/// A path with its alternatives written out, the last braces turning fastest. Gaps (`{i}`) stay.
fn expand(path: &str) -> Vec<String> {
    let Some((start, end)) = alternatives(path) else { return vec![path.to_owned()] };
    let parts = (path.get(..start), path.get(start + 1..end), path.get(end + 1..));
    let (Some(before), Some(inside), Some(after)) = parts else { return Vec::new() };
    let behind = expand(after);
    let with = |word: &str| -> Vec<String> {
        behind.iter().map(|after| format!("{before}{word}{after}")).collect()
    };
    inside.split(',').flat_map(with).collect()
}

/// The first braces that have a comma in them.
fn alternatives(path: &str) -> Option<(usize, usize)> {
    let opened = path.match_indices('{').map(|(at, _)| at);
    opened
        .filter_map(|start| Some((start, start + path.get(start..)?.find('}')?)))
        .find(|(start, end)| path.get(*start..*end).is_some_and(|inside| inside.contains(',')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Vec<(String, String, Cut)> {
        let rules = parse(line).expect("a rule");
        rules.into_iter().map(|rule| (rule.split, rule.published, rule.cut)).collect()
    }

    #[test]
    fn lines_say_rules() {
        let whole = |a: &str, b: &str| (a.to_owned(), b.to_owned(), Cut::Whole);
        assert_eq!(said("  a.{i}.b "), [whole("a.{i}.b", "a.{i}.b")]);
        assert_eq!(
            said("x.{a,b}.{c,d} y.{e,f}.{g,h}"),
            [
                whole("x.a.c", "y.e.g"),
                whole("x.a.d", "y.e.h"),
                whole("x.b.c", "y.f.g"),
                whole("x.b.d", "y.f.h"),
            ]
        );
        let share = |start, count| Cut::Share { start, count, of: 4, square: false };
        let part = |name: &str, cut| (name.to_owned(), "{i}.f".to_owned(), cut);
        assert_eq!(
            said("{i}.{a,b.c} {i}.f 1:3 any"),
            [part("{i}.a", share(0, 1)), part("{i}.b.c", share(1, 3))]
        );
        let parts = said("{x,y}.{q,k,v} {x,y}.qkv queries");
        assert_eq!(parts.len(), 6);
        assert_eq!(parts[4], ("y.k".to_owned(), "y.qkv".to_owned(), Cut::Middle));
        assert_eq!(said("a b swapped")[0].2, Cut::Swapped);
        for wrong in ["a b c d e", "{a,b} c", "a {b,c}", "{a,b} c 1:1:1", "a b 0:1", "a b 1:x"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
