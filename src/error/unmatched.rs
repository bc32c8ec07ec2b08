//! Names that found no place, and how they are listed.

use super::harmless::one_line;

/// A module that found no place in the base, and the base's nearest names.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct UnmatchedName {
    /// The adapter's own name for it.
    pub name: String,
    /// Names in the base that look most like it.
    pub nearest: Vec<String>,
}

/// The unmatched names as lines, at most eight of them.
pub(super) fn list_unmatched(unmatched: &[UnmatchedName]) -> String {
    const SHOWN: usize = 8;
    let mut lines = String::new();
    for name in unmatched.iter().take(SHOWN) {
        lines.push_str("\n  ");
        lines.push_str(&one_line(&name.name));
        if !name.nearest.is_empty() {
            lines.push_str("   (nearest: ");
            lines.push_str(&one_line(&name.nearest.join(", ")));
            lines.push(')');
        }
    }
    if unmatched.len() > SHOWN {
        lines.push_str("\n  … and ");
        lines.push_str(&(unmatched.len() - SHOWN).to_string());
        lines.push_str(" more");
    }
    lines
}
