//! Paths with gaps: `blocks.{i}.attn.qkv`, `{*}.self_attn.qkv_proj`.

/// A number.
const NUMBER: &str = "{i}";
/// One or more parts; at most once in a pattern.
const ANY: &str = "{*}";

/// What stands in a pattern's gaps, if the name fits.
pub(in crate::adapter) fn capture(pattern: &str, name: &str) -> Option<Vec<String>> {
    // Most names already differ in the first letters or the last.
    let start = pattern.split('{').next().unwrap_or_default();
    let end = pattern.rsplit('}').next().unwrap_or_default();
    if !name.starts_with(start) || !name.ends_with(end) {
        return None;
    }
    let Some((head, tail)) = pattern.split_once(ANY) else {
        let (pattern, name): (Vec<_>, Vec<_>) =
            (pattern.split('.').collect(), name.split('.').collect());
        return same_length(&pattern, &name);
    };
    let (head, tail) = (head.trim_end_matches('.'), tail.trim_start_matches('.'));
    let parts = |text: &'_ str| text.split('.').filter(|part| !part.is_empty()).count();
    let name: Vec<&str> = name.split('.').collect();
    let (before, after) = (parts(head), parts(tail));
    let end = name.len().checked_sub(after)?;
    let middle = name.get(before..end).filter(|middle| !middle.is_empty())?;
    let split = |text: &'_ str| -> Vec<String> {
        text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (head, tail) = (split(head), split(tail));
    let mut found = same_length(&borrowed(&head), name.get(..before)?)?;
    found.push(middle.join("."));
    found.extend(same_length(&borrowed(&tail), name.get(end..)?)?);
    Some(found)
}

/// As [`capture`], of a name whose dots became underscores. Only numbers are captured: what `{*}` would
/// stand for has lost its dots.
pub(in crate::adapter) fn capture_flat(pattern: &str, name: &str) -> Option<Vec<String>> {
    if pattern.contains(ANY) {
        return None;
    }
    let mut rest = name;
    let mut found = Vec::new();
    for (at, literal) in pattern.split(NUMBER).enumerate() {
        if at > 0 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at_checked(digits).filter(|(n, _)| !n.is_empty())?;
            found.push(number.to_owned());
            rest = after;
        }
        rest = strip_flat(rest, literal)?;
    }
    rest.is_empty().then_some(found)
}

/// What stands behind a literal whose dots became underscores.
pub(super) fn strip_flat<'a>(name: &'a str, literal: &str) -> Option<&'a str> {
    let (own, rest) = name.split_at_checked(literal.len())?;
    let same = |(a, b): (u8, u8)| a == b || (a == b'.' && b == b'_');
    literal.bytes().zip(own.bytes()).all(same).then_some(rest)
}

fn borrowed(parts: &[String]) -> Vec<&str> {
    parts.iter().map(String::as_str).collect()
}

fn same_length(pattern: &[&str], name: &[&str]) -> Option<Vec<String>> {
    if pattern.len() != name.len() {
        return None;
    }
    let mut found = Vec::new();
    for (expected, part) in pattern.iter().zip(name) {
        match expected.strip_suffix(NUMBER) {
            // A number may have a word before it: `block{i}`.
            Some(word) => {
                let number = part.strip_prefix(word)?;
                if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                found.push(number.to_owned());
            }
            None if expected == part => {}
            None => return None,
        }
    }
    Some(found)
}

/// The pattern with its gaps filled.
pub(in crate::adapter) fn fill(pattern: &str, found: &[String]) -> String {
    let mut found = found.iter();
    let mut next = || found.next().map(String::as_str).unwrap_or_default();
    let parts = pattern.split('.').map(|part| match part.strip_suffix(NUMBER) {
        Some(word) => format!("{word}{}", next()),
        None if part == ANY => next().to_owned(),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_filled_again() {
        for (pattern, name) in [
            ("a.{i}.b", "a.12.b"),
            ("{*}.b.c", "x.y.b.c"),
            ("a.{i}.{*}", "a.0.x.1.y"),
            ("a.{i}.{*}.c", "a.0.x.c"),
            ("a.b{i}.c.{i}", "a.b10.c.2"),
            ("a", "a"),
        ] {
            let found = capture(pattern, name).expect(name);
            assert_eq!(fill(pattern, &found), name);
        }
        for (pattern, name, found) in
            [("a.{i}.b_c.{i}", "a_12_b_c_0", vec!["12", "0"]), ("a.b", "a_b", vec![])]
        {
            assert_eq!(capture_flat(pattern, name).expect(name), found);
        }
        for (pattern, name) in
            [("a.{i}", "a_"), ("a.{i}", "a_1_b"), ("{*}.a", "b_a"), ("a.b", "ab")]
        {
            assert_eq!(capture_flat(pattern, name), None, "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a.{i}.b", "a.x.b"),
            ("a.b{i}", "a.b"),
            ("a.b{i}", "a.c1"),
            ("a.{i}", "a.1.b"),
            ("{*}.b.c", "b.c"),
            ("a.{*}", "a"),
            ("a.{i}", "a."),
        ] {
            assert_eq!(capture(pattern, name), None, "{pattern} {name}");
        }
    }
}
