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

fn borrowed(parts: &[String]) -> Vec<&str> {
    parts.iter().map(String::as_str).collect()
}

fn same_length(pattern: &[&str], name: &[&str]) -> Option<Vec<String>> {
    if pattern.len() != name.len() {
        return None;
    }
    let mut found = Vec::new();
    for (expected, part) in pattern.iter().zip(name) {
        match *expected {
            NUMBER if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
                found.push((*part).to_owned());
            }
            NUMBER => return None,
            literal if literal == *part => {}
            _ => return None,
        }
    }
    Some(found)
}

/// The pattern with its gaps filled.
pub(in crate::adapter) fn fill(pattern: &str, found: &[String]) -> String {
    let mut found = found.iter();
    let parts = pattern.split('.').map(|part| match part {
        NUMBER | ANY => found.next().map(String::as_str).unwrap_or_default(),
        literal => literal,
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
            ("a", "a"),
        ] {
            let found = capture(pattern, name).expect(name);
            assert_eq!(fill(pattern, &found), name);
        }
        for (pattern, name) in [
            ("a.{i}.b", "a.x.b"),
            ("a.{i}", "a.1.b"),
            ("{*}.b.c", "b.c"),
            ("a.{*}", "a"),
            ("a.{i}", "a."),
        ] {
            assert_eq!(capture(pattern, name), None, "{pattern} {name}");
        }
    }
}
