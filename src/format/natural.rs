//! The order in which people count: `layers.2` before `layers.10`.

use std::cmp::Ordering;

/// Compares two names, runs of digits as the numbers that they are.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    loop {
        let (a_text, a_number, a_next) = piece(a_rest);
        let (b_text, b_number, b_next) = piece(b_rest);
        let order = a_text.cmp(b_text).then_with(|| number(a_number, b_number));
        if order != Ordering::Equal {
            return order;
        }
        if a_next.is_empty() || b_next.is_empty() {
            // Names that differ in zeros before a number alone are still two names.
            return a_next.len().cmp(&b_next.len()).then_with(|| a.cmp(b));
        }
        (a_rest, b_rest) = (a_next, b_next);
    }
}

/// What stands before the first digit, the digits, and the rest.
fn piece(text: &str) -> (&str, &str, &str) {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (before, rest) = text.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    (before, digits, rest)
}

/// Numbers of any length: without zeros before them, the longer is the larger.
fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count() {
        let mut names = ["l.10.q", "l.2.v", "l.2.q", "l.1.q", "a", "l", "l.02.q"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "l", "l.1.q", "l.02.q", "l.2.q", "l.2.v", "l.10.q"]);
        let mut names = ["b10", "b9", "b09", "a", "", "b9c", "ü2"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "a", "b09", "b9", "b9c", "b10", "ü2"]);
    }

    #[test]
    fn the_order_is_total() {
        let names = ["", "1", "01", "a1", "a01b", "a1b", "a1c", "b", "10", "a"];
        for a in names {
            for b in names {
                assert_eq!(natural(a, b), natural(b, a).reverse(), "{a} {b}");
                assert_eq!(natural(a, b) == Ordering::Equal, a == b, "{a} {b}");
                for c in names {
                    let falls = natural(a, b).is_le() && natural(b, c).is_le();
                    assert!(!falls || natural(a, c).is_le(), "{a} {b} {c}");
                }
            }
        }
    }
}
