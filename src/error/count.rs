//! Numbers of things in a sentence.

/// A number with its noun, which takes an s unless there is one: `1 file`, `2 files`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Bytes in units of 1000: `12 kB`, `1.4 MB`.
pub fn human_bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 && unit != "B" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// An amount as people read it, and exactly: `11 kB (11192 bytes)`.
pub(super) fn exact_amount(count: u64, unit: &str) -> String {
    match unit {
        "bytes" if count > 999 => format!("{} ({count} bytes)", human_bytes(count)),
        _ => format!("{count} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_singular() {
        let all = [0, 1, 2].map(|count| counted(count, "file"));
        assert_eq!(all, ["0 files", "1 file", "2 files"]);
    }
}
