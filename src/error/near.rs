//! Which of some names was meant by one that is none of them.

/// The name most like `name`, if they are no more than three letters apart, and no more than a third of them.
pub fn near<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = 3.min(name.chars().count() / 3).max(1);
    let apart = names.into_iter().map(|other| (distance(name, other), other));
    apart
        .min_by_key(|(apart, _)| *apart)
        .filter(|(apart, _)| *apart <= most)
        .map(|(_, other)| other)
}

/// Levenshtein distance: how many letters to change, add or leave out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *slot;
            let changed = diagonal + usize::from(x != *y);
            left = changed.min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_near_by_few_letters() {
        assert_eq!(
            (distance("kitten", "sitting"), distance("", "ab"), distance("a", "a")),
            (3, 2, 0)
        );
        assert_eq!(
            near("style.safetensor", ["task", "style.safetensors"]),
            Some("style.safetensors")
        );
        assert_eq!(near("ab", ["cd", "xy"]), None);
        assert_eq!(near("anything", []), None);
    }
}
