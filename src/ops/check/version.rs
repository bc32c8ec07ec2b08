//! Versions of programs, as far as rules compare them.

use std::fmt;

/// A version's numbers, the most significant first: `0.33.0`, or a date, `2026-10`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

impl Version {
    /// Reads numbers between dots or dashes. What follows a number (`0.33.0rc1`) is left out; `None` if
    /// a part begins with none.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        };
        let text = text.strip_prefix('v').unwrap_or(text);
        let parts: Option<Vec<u64>> = text.split(['.', '-']).map(number).collect();
        let mut parts = parts?;
        while parts.len() > 1 && parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Self(parts))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u64::to_string).collect();
        write!(f, "{}", parts.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let parse = |text: &str| Version::parse(text).expect(text);
        assert!(parse("0.9") < parse("0.31.0"));
        assert!(parse("0.31.9") < parse("0.32"));
        assert_eq!(parse("0.33.0rc1"), parse("v0.33"));
        assert!(parse("2025-12") < parse("2026-10"));
        assert_eq!(Version::parse("newest"), None);
        assert_eq!(Version::parse(""), None);
        assert_eq!(parse("0.33.0").to_string(), "0.33");
    }
}
